"""Selection of training examples: the replay buffer, sampling, splits and weights."""
