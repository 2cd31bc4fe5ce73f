"""Builds models from weights under the published names (those of the released AU-Net implementation)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig, StageConfig

_BLOCK = {
    "attention.wq": "attention.query",
    "attention.wk": "attention.key",
    "attention.wv": "attention.value",
    "attention.wo": "attention.out",
    "feed_forward.w1": "ffn.gate",
    "feed_forward.w3": "ffn.up",
    "feed_forward.w2": "ffn.down",
    "attention_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
_TRANSITION = {
    "down_norm.weight": "poolings.{}.norm.weight",
    "trans_down.weight": "poolings.{}.down.weight",
    "up_norm.weight": "upsamplings.{}.norm.weight",
    "trans_up.weight": "upsamplings.{}.up.weight",
    "indexed_linear.weight": "upsamplings.{}.by_offset",
    "pos_encoding.weight": "upsamplings.{}.position.weight",
}


def load_reference(case_or_state_dict: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]) -> AUNet:
    """Builds an AUNet, float32, from weights under the published names and gives it the published behaviour
    (offsets modulo, no document masking, `max_seqlens` as caps).

    case_or_state_dict: a safetensors file, or a mapping from names to tensors; names may carry the
    prefix `w.` of a golden case, whose other entries are ignored.
    config: an entry of `cases.json`: `dims`, `head_dims`, `layers`, and where they differ from the
    defaults `sliding_windows`, `max_seqlens`, `residuals`, `rope_theta`, `multiple_of`, `norm_eps`,
    `pool_positions`. The weights' names decide the upsampling.
    Raises ValueError where the configuration does not match the weights, or names are left over.
    """
    weights = _weights(case_or_state_dict)
    model = AUNet(_config(weights, config))
    wanted = model.state_dict()
    renamed = {our_name(name): tensor for name, tensor in weights.items()}
    missing, unknown = sorted(wanted.keys() - renamed.keys()), sorted(renamed.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(
            f"weights and config do not match: missing {missing or 'none'}, not in the model {unknown or 'none'}"
        )
    for name, tensor in renamed.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} is {list(tensor.shape)}, but config makes it {list(wanted[name].shape)}")
    model.load_state_dict({name: tensor.float() for name, tensor in renamed.items()})
    return model


def our_name(name: str) -> str:
    """Returns this package's parameter name for a published one (without `w.`); unknown ones pass through."""
    fixed = {
        "tok_embeddings.weight": "embedding.weight",
        "vocab_norm.weight": "norm.weight",
        "vocab.weight": "head.weight",
    }
    if name in fixed:
        return fixed[name]
    place, *rest = name.split(".")
    if place == "transitions":
        return _TRANSITION.get(".".join(rest[1:]), name).format(rest[0])
    stack, _, inner = name.partition(".layers.")  # encoders.S, decoders.S or trunk
    layer, _, parameter = inner.partition(".")
    return f"{stack}.{layer}.{_BLOCK.get(parameter.removesuffix('.weight'), parameter)}.weight"


def _weights(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(source, str | Path):
        from safetensors.torch import load_file

        source = load_file(source)
    if any(name.startswith("w.") for name in source):
        return {name[2:]: tensor for name, tensor in source.items() if name.startswith("w.")}
    return dict(source)


def _config(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> AUNetConfig:
    n = len(config["dims"])

    def each(key: str, default: Any, length: int = n) -> list[Any]:
        values = config.get(key) or [default] * length
        if len(values) != length:
            raise ValueError(f"{key} has {len(values)} entries for {n} stages: it needs {length}")
        return list(values)

    windows, caps = each("sliding_windows", None), each("max_seqlens", None)
    skips = (config.get("residuals") or [True] * n)[: n - 1]
    if len(skips) != n - 1:
        raise ValueError(f"residuals has {len(skips)} entries for {n} stages: it needs {n - 1}")
    stages = [
        StageConfig(
            dim=dim,
            layers=layers,
            head_dim=head_dim,
            window=window,
            skip=skip,
            max_units=cap if s > 0 and cap and cap > 0 else None,
        )
        for s, (dim, layers, head_dim, window, cap, skip) in enumerate(
            zip(config["dims"], each("layers", 1), each("head_dims", 64), windows, caps, [*skips, True], strict=True)
        )
    ]
    offsets = [
        tensor.shape[0] for name, tensor in weights.items() if "indexed_linear" in name or "pos_encoding" in name
    ]
    return AUNetConfig(
        stages=stages,
        upsampling=_upsampling(weights),
        max_offset=offsets[0] if offsets else config.get("pool_positions", 16),
        offsets="modulo",
        document_masking=False,
        rope_theta=config.get("rope_theta", 500_000.0),
        norm_eps=config.get("norm_eps", 1e-5),
        ffn_multiple_of=config.get("multiple_of", 256),
    )


def _upsampling(weights: Mapping[str, Tensor]) -> str:
    if any(".indexed_linear." in name for name in weights):
        return "multi_linear"
    return "repeat" if any(".pos_encoding." in name for name in weights) else "insert"
