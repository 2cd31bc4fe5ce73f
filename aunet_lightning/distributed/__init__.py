"""Many devices: sharding, the strategy that saves the shards, gathering, and detection of lost processes."""
