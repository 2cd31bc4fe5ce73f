"""What a checkpoint says, its forms, and how a network is loaded from one."""
