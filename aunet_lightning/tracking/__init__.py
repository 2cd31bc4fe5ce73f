"""Where a run leaves its traces: one folder per run, and MLflow."""
