"""Rules that combine other rules."""
