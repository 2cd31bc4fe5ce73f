"""The model as a person would write it down from DESIGN's formula: one row, loops, no tricks."""

import torch
import torch.nn.functional as F

from aunet_lightning import AUNet
from aunet_lightning.vocabulary import BOS, EOS

NEVER = -1  # in place of a level: the end of a document begins nothing


def plain_logits(model: AUNet, ids: list[int], levels: list[int], refreshes: list[int] = ()) -> torch.Tensor:
    """Logits [L, 258] of one row. What is forced has, where splitters are learned, a level above the highest.
    refreshes: bytes inside units at which the unit's vector is made anew."""
    config, depth = model.config, model.config.depth
    documents = torch.tensor(ids).eq(BOS).cumsum(0).tolist()
    learned = bool(model.predictors)
    masks = learned or config.document_masking
    levels = [depth + learned if t == 0 or (masks and ids[t] == BOS) else level for t, level in enumerate(levels)]
    if learned:
        levels = [NEVER if ids[t] == EOS and level <= depth else level for t, level in enumerate(levels)]
    x = model.embedding.weight[ids]
    return F.linear(_norm(_stage(model, 0, x, levels, documents, refreshes), model.norm), model.head.weight)


def _norm(x, module):
    return x / (x.pow(2).mean(-1, keepdim=True) + module.eps).sqrt() * module.weight


def _stage(model, s, x, levels, documents, refreshes=()):
    config = model.config
    stage = config.stages[s]
    if s == config.depth:
        return _blocks(model.trunk, x, stage, documents, config)
    h = _blocks(model.encoders[s], x, stage, documents, config)
    boundaries, p = [t for t, level in enumerate(levels) if level > s], None
    if str(s) in model.predictors:
        boundaries, p = _learned(model.predictors[str(s)], h, levels, config.depth + 1)
    boundaries = boundaries[: config.stages[s + 1].max_units]
    pooling, upsampling = model.poolings[s], model.upsamplings[s]
    coarse = torch.stack([pooling.down.weight @ _norm(h[t], pooling.norm) for t in boundaries])
    y = _stage(model, s + 1, coarse, [levels[t] for t in boundaries], [documents[t] for t in boundaries])
    vectors = [_norm(unit, upsampling.norm) for unit in y]
    if p is not None and model.predictors[str(s)].smooths:
        for i in range(1, len(vectors)):
            vectors[i] = p[boundaries[i]] * vectors[i] + (1 - p[boundaries[i]]) * vectors[i - 1]
    up = []
    for t in range(len(x)):
        k = max(i for i, boundary in enumerate(boundaries) if boundary <= t)
        u, offset, n = vectors[k], t - boundaries[k], config.max_offset
        if newer := [r for r in refreshes if boundaries[k] < r <= t]:  # as if a unit began there, which begins no other
            at, before = newer[-1], boundaries[: k + 1]
            one_more = torch.cat([coarse[: k + 1], (pooling.down.weight @ _norm(h[at], pooling.norm))[None]])
            here = [levels[b] for b in before] + [NEVER], [documents[b] for b in [*before, at]]
            u, offset = _norm(_stage(model, s + 1, one_more, *here)[-1], upsampling.norm), t - at
        bounded = min(offset, n - 1) if config.offsets == "clamp" else offset % n
        if config.upsampling == "multi_linear":
            up.append(upsampling.up.weight @ u + upsampling.by_offset[bounded] @ u)
        elif config.upsampling == "repeat":
            up.append(upsampling.up.weight @ (u + upsampling.position.weight[bounded]))
        elif config.upsampling == "copy" or offset == 0:
            up.append(upsampling.up.weight @ u)
        else:
            up.append(torch.zeros(len(x[0])))
    return _blocks(model.decoders[s], torch.stack(up) + (h if stage.skip else 0), stage, documents, config)


def _learned(router, h, levels, forced):
    """Boundaries and p of the cosine router, position by position; what is forced has p = 1."""
    p = []
    for t in range(len(h)):
        q, k = router.query.weight @ h[t], router.key.weight @ h[max(t - 1, 0)]
        distance = ((1 - q @ k / (q.norm() * k.norm())) / 2).clamp(1e-6, 1 - 1e-6)
        odds = distance / (1 - distance) * router.bias.exp()
        p.append(torch.ones(()) if levels[t] == forced else (odds / (1 + odds))[0])
    return [t for t in range(len(h)) if p[t] > 0.5 and levels[t] != NEVER], p


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
        if block.conv is not None:
            normed, weight = _norm(x, block.conv_norm), block.conv.weight
            same = [[i - j >= 0 and (not config.document_masking or documents[i] == documents[i - j])
                     for j in range(len(weight))] for i in range(n)]  # fmt: skip
            taps = [sum(weight[j] * normed[i - j] for j in range(len(weight)) if same[i][j]) for i in range(n)]
            x = x + torch.stack(taps)
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
