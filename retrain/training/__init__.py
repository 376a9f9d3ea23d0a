"""The training loop: batches, objective, optimizer, schedules, averaging, early stopping, fine-tuning, ranks."""
