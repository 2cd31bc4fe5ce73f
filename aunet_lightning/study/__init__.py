"""A study: its cells, their sizes, processes and results."""
