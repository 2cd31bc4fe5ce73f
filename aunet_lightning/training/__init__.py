"""How a model learns: loss, metrics, optimizer and what a run shows."""
