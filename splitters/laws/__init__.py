"""The laws of splitters, as tests with counter-examples."""
