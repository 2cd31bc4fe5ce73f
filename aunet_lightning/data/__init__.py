"""From JSON lines to batches of byte ids with levels: each a pure function of files, seed and index."""
