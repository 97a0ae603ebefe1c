"""Training: the loop over batches, engines, checkpoints, evaluation."""
