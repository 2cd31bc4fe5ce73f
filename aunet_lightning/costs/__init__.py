"""Cost of a network: FLOPs and memory."""

from aunet_lightning.costs.flops import Cost, Precision, counter, published_flops_per_byte
from aunet_lightning.costs.memory import DeviceMemory, memory

__all__ = ["Cost", "DeviceMemory", "Precision", "counter", "memory", "published_flops_per_byte"]
