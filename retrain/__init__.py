"""From examples to the next release: when to train, on what, in which process, and whether the result may serve."""
