"""Training: loop, checkpoints, metrics, plots."""
