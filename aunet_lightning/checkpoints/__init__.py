"""Checkpoints: their contents, their forms, and the network loaded from one."""
