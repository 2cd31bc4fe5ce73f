"""The published formulation of AU-Net, in its plain form: what the speed of training is held against.

Dense masks [L, L] for windows, a fixed number of units per row (so trunk positions are mostly padding), norms and
rotations by elementary products, and upsampling by a loop over the matrices of all offsets. It has the parameters of
`aunet_lightning.AUNet` and takes its configuration (multi_linear, one document a row), so that both can be given the
same weights and must give the same logits.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig, StageConfig

UNITS_PER_BYTE = (0.4, 0.2, 0.1)  # the cap of stage 2, 3, 4


class Norm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor, turns: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, self.head_dim)) for m in (self.query, self.key, self.value))
        q, k = rotated(q, turns), rotated(k, turns)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """x [B, L, H, K] by turns [L, K/2, 2, 2], each a rotation of two channels."""
    return (x.unflatten(-1, (-1, 1, 2)) * turns[None, :, None]).sum(-1).flatten(-2)


class FFN(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, stage: StageConfig, config: AUNetConfig) -> None:
        super().__init__()
        hidden = -(-int(config.ffn_multiplier * (8 * stage.dim // 3)) // config.ffn_multiple_of)
        self.attention_norm, self.ffn_norm = (Norm(stage.dim, config.norm_eps) for _ in range(2))
        self.attention = Attention(stage.dim, stage.head_dim)
        self.ffn = FFN(stage.dim, hidden * config.ffn_multiple_of)

    def forward(self, x: Tensor, mask: Tensor, turns: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask, turns)
        return x + self.ffn(self.ffn_norm(x))


class Pooling(nn.Module):
    def __init__(self, dim: int, coarser: int, eps: float) -> None:
        super().__init__()
        self.norm, self.down = Norm(dim, eps), nn.Linear(dim, coarser, bias=False)


class Upsampling(nn.Module):
    def __init__(self, dim: int, coarser: int, config: AUNetConfig) -> None:
        super().__init__()
        self.norm, self.up = Norm(coarser, config.norm_eps), nn.Linear(coarser, dim, bias=False)
        self.by_offset = nn.Parameter(torch.zeros(config.max_offset, dim, coarser))

    def forward(self, u: Tensor, offset: Tensor) -> Tensor:
        out = self.up(u)
        own = torch.zeros_like(out)
        for p, matrix in enumerate(self.by_offset):
            here = offset == p
            own = own.index_put((here,), F.linear(u[here], matrix))
        return out + own


class PlainAUNet(nn.Module):
    """forward(ids [B, L], levels [B, L]) → logits [B, L, ids]."""

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__()
        self.config, stages = config, config.stages
        pairs = [*itertools.pairwise(stages)]
        blocks = [nn.ModuleList(Block(stage, config) for _ in range(stage.layers)) for stage in stages]
        self.embedding = nn.Embedding(config.vocabulary, stages[0].dim)
        self.encoders, self.trunk = nn.ModuleList(blocks[:-1]), blocks[-1]
        self.poolings = nn.ModuleList(Pooling(a.dim, b.dim, config.norm_eps) for a, b in pairs)
        self.upsamplings = nn.ModuleList(Upsampling(a.dim, b.dim, config) for a, b in pairs)
        self.decoders = nn.ModuleList(
            nn.ModuleList(Block(stage, config) for _ in range(stage.layers)) for stage in stages[:-1]
        )
        self.norm = Norm(stages[0].dim, config.norm_eps)
        self.head = nn.Linear(stages[0].dim, config.vocabulary, bias=False)

    def forward(self, ids: Tensor, levels: Tensor) -> Tensor:
        config, (_, length) = self.config, ids.shape
        at = torch.arange(length, device=ids.device)
        levels = levels.masked_fill(at == 0, config.depth)
        sizes = [length, *(max(int(length * share), 1) for share in UNITS_PER_BYTE)][: config.depth + 1]
        masks = [self._mask(stage.window, n, ids.device) for stage, n in zip(config.stages, sizes, strict=True)]
        turns = [self._turns(stage.head_dim, n, ids.device) for stage, n in zip(config.stages, sizes, strict=True)]

        x, levels_here, kept = self.embedding(ids), levels, []
        for s in range(config.depth):
            for block in self.encoders[s]:
                x = block(x, masks[s], turns[s])
            boundary = levels_here > s
            index = boundary.cumsum(1) - 1  # of the unit of each position
            boundary = boundary & (index < sizes[s + 1])
            index = index.clamp(max=sizes[s + 1] - 1)
            where = torch.zeros(len(ids), sizes[s + 1] + 1, dtype=torch.long, device=ids.device)
            where.scatter_(1, torch.where(boundary, index, sizes[s + 1]), at[: x.shape[1]].expand_as(index))
            where = where[:, : sizes[s + 1]]
            since = torch.where(boundary, at[: x.shape[1]], 0).cummax(1).values
            kept.append((x, index, (at[: x.shape[1]] - since)))
            filled = torch.arange(sizes[s + 1], device=ids.device) < boundary.sum(1, keepdim=True)
            levels_here = levels_here.gather(1, where) * filled
            pooled = x.gather(1, where[..., None].expand(-1, -1, x.shape[2]))
            x = self.poolings[s].down(self.poolings[s].norm(pooled))
        for block in self.trunk:
            x = block(x, masks[-1], turns[-1])
        for s in reversed(range(config.depth)):
            h, index, offset = kept[s]
            u = self.upsamplings[s].norm(x)
            u = u.gather(1, index[..., None].expand(-1, -1, u.shape[2]))
            x = self.upsamplings[s](u, offset.clamp(max=config.max_offset - 1)) + h
            for block in self.decoders[s]:
                x = block(x, masks[s], turns[s])
        return self.head(self.norm(x))

    def _mask(self, window: int | None, n: int, device: torch.device) -> Tensor:
        distance = torch.arange(n, device=device)[:, None] - torch.arange(n, device=device)
        return (distance >= 0) & (distance < (window or n))

    def _turns(self, head_dim: int, n: int, device: torch.device) -> Tensor:
        exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
        angles = torch.arange(n, device=device)[:, None] * self.config.rope_theta**-exponents
        cos, sin = angles.cos().float(), angles.sin().float()
        return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
