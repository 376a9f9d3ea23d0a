"""Control of retraining: when to train, whether a candidate may serve, and publishing it."""
