"""Online updates: the learner, its replay memory, the guard, and the chain of updates."""
