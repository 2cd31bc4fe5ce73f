"""What a network costs: FLOPs and memory."""

from aunet_lightning.costs.flops import Cost, published_flops_per_byte

__all__ = ["Cost", "published_flops_per_byte"]
