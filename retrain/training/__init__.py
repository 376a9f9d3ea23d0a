"""The training loop: batches, objective, optimizer, schedules, weight averaging, distributed training."""
