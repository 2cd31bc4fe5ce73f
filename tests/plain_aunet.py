"""The model as a person would write it down from DESIGN's formula: one row, loops, no tricks."""

import torch
import torch.nn.functional as F

from aunet_lightning import AUNet
from aunet_lightning.vocabulary import BOS


def plain_logits(model: AUNet, ids: list[int], levels: list[int]) -> torch.Tensor:
    """Logits [L, 258] of one row."""
    config, depth = model.config, model.config.depth
    documents = torch.tensor(ids).eq(BOS).cumsum(0).tolist()
    levels = [
        depth if t == 0 or (config.document_masking and ids[t] == BOS) else level for t, level in enumerate(levels)
    ]
    x = model.embedding.weight[ids]
    return F.linear(_norm(_stage(model, 0, x, levels, documents), model.norm), model.head.weight)


def _norm(x, module):
    return x / (x.pow(2).mean(-1, keepdim=True) + module.eps).sqrt() * module.weight


def _stage(model, s, x, levels, documents):
    config = model.config
    stage = config.stages[s]
    if s == config.depth:
        return _blocks(model.trunk, x, stage, documents, config)
    h = _blocks(model.encoders[s], x, stage, documents, config)
    boundaries = [t for t, level in enumerate(levels) if level > s][: config.stages[s + 1].max_units]
    pooling, upsampling = model.poolings[s], model.upsamplings[s]
    coarse = torch.stack([pooling.down.weight @ _norm(h[t], pooling.norm) for t in boundaries])
    y = _stage(model, s + 1, coarse, [levels[t] for t in boundaries], [documents[t] for t in boundaries])
    up = []
    for t in range(len(x)):
        k = max(i for i, boundary in enumerate(boundaries) if boundary <= t)
        u, p = _norm(y[k], upsampling.norm), t - boundaries[k]
        n = config.max_offset
        bounded = min(p, n - 1) if config.offsets == "clamp" else p % n
        if config.upsampling == "multi_linear":
            up.append(upsampling.up.weight @ u + upsampling.by_offset[bounded] @ u)
        elif config.upsampling == "repeat":
            up.append(upsampling.up.weight @ (u + upsampling.position.weight[bounded]))
        else:
            up.append(upsampling.up.weight @ u if p == 0 else torch.zeros(len(x[0])))
    return _blocks(model.decoders[s], torch.stack(up) + (h if stage.skip else 0), stage, documents, config)


def _blocks(blocks, x, stage, documents, config):
    n = len(x)
    sees = torch.tensor(
        [
            [
                j <= i and (stage.window is None or i - j < stage.window)
                and (not config.document_masking or documents[i] == documents[j])
                for j in range(n)
            ]
            for i in range(n)
        ]
    )  # fmt: skip
    for block in blocks:
        a, normed = block.attention, _norm(x, block.attention_norm)
        heads = []
        for h in range(stage.dim // stage.head_dim):
            rows = slice(h * stage.head_dim, (h + 1) * stage.head_dim)
            q, k, v = (normed @ w.weight[rows].T for w in (a.query, a.key, a.value))
            q, k = _rotate(q, config.rope_theta), _rotate(k, config.rope_theta)
            scores = (q @ k.T / stage.head_dim**0.5).masked_fill(~sees, -torch.inf)
            heads.append(scores.softmax(-1) @ v)
        x = x + torch.cat(heads, -1) @ a.out.weight.T
        normed = _norm(x, block.ffn_norm)
        gate, wide = normed @ block.ffn.gate.weight.T, normed @ block.ffn.up.weight.T
        x = x + (gate * gate.sigmoid() * wide) @ block.ffn.down.weight.T
    return x


def _rotate(x, theta):
    """Turns pair i of position t by t · theta^(-2i/K), as complex numbers."""
    n, width = x.shape
    angle = torch.arange(n)[:, None] * theta ** (-torch.arange(0, width, 2) / width)
    turned = torch.view_as_complex(x.reshape(n, width // 2, 2).contiguous()) * torch.polar(
        torch.ones(angle.shape), angle
    )
    return torch.view_as_real(turned).reshape(n, width)
