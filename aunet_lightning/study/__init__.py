"""What a study runs: cells, sizes, processes and results."""
