"""Training: loss, metrics, optimizer, checkpoints and reports of a run."""
