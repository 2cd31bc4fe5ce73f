"""Many devices: how a network is cut among them, what their checkpoints are, and who notices that one is gone."""
