"""Classes for Hugging Face `transformers`, which the folder of `aunet export` names: configuration, model, tokenizer.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

They wrap our own network, whose state is what `generate` keeps between steps. Shapes: B rows, L ids, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizer
from transformers.utils import ModelOutput, cached_file

from aunet_lightning.checkpoints.forms import WEIGHTS
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.state import State
from aunet_lightning.reader.reader import ByteReader, Reader, TokenReader
from aunet_lightning.vocabulary import BOS, EOS

OF_HUB = ("cache_dir", "revision", "token", "local_files_only")  # options that say where a repository's files are


class AUNetHFConfig(PreTrainedConfig):
    """The network's settings (`net`) and its splitters, as `aunet export` writes them."""

    model_type = "aunet"

    def __init__(self, net: dict[str, Any] | None = None, splitters: list[Any] | None = None, **others: Any) -> None:
        self.net, self.splitters = net or {}, splitters or []
        super().__init__(**{"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS, **others})


@dataclass
class Read:
    """What the rows of a batch have read, and the state after."""

    ids: Tensor  # [B, L], with the padding
    state: State


@dataclass
class AUNetOutput(ModelOutput):
    """logits [B, L, V] of what follows each id; read: for the next call."""

    logits: Tensor | None = None
    read: Read | None = None


class AUNetForCausalLM(PreTrainedModel, GenerationMixin):
    """An AU-Net (or a transformer of bytes or tokens) for `generate`. It trains with `aunet fit`, not here."""

    config_class = AUNetHFConfig
    main_input_name = "input_ids"
    _is_stateful = True

    def __init__(self, config: AUNetHFConfig, net: AUNet | None = None) -> None:
        super().__init__(config)
        self.generation_config.suppress_tokens = [BOS]  # a document has one beginning
        self.net = net if net is not None else AUNet(AUNetConfig(**config.net), config.splitters)

    @classmethod
    def from_pretrained(cls, path: Any, *_: Any, config: Any = None, **others: Any) -> AUNetForCausalLM:
        """Returns the model of an exported folder, or of a repository of the hub that has its files, in the type
        `dtype`. Raises UserError where the weights are damaged or the splitters now place other boundaries."""
        if not (folder := Path(path)).is_dir():
            known = {key: others[key] for key in OF_HUB if key in others}
            folder = Path(cached_file(path, WEIGHTS, **known)).parent
        net = AUNet.from_pretrained(folder)
        given = config if isinstance(config, AUNetHFConfig) else AUNetHFConfig.from_pretrained(folder)
        dtype = others.get("dtype", others.get("torch_dtype"))
        return cls(given, net.to(dtype) if isinstance(dtype, torch.dtype) else net).eval()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the network has a state of its own

    @property
    def reader(self) -> Reader:
        """How text is read."""
        return self.net.reader or ByteReader(self.config.splitters)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, read: Read | None = None,
        use_cache: bool | None = None, return_dict: bool | None = None, **_: Any,
    ) -> AUNetOutput:  # fmt: skip
        """input_ids [B, L], and where they are ids and not padding, [B, L], at one end: logits [B, L, V] of what
        follows each, 0 at padding. read: what was read before; its rows go on with these ids."""
        batch, length = input_ids.shape
        if read is not None:
            output = self.net(input_ids, state=read.state)
            return AUNetOutput(output.logits, Read(torch.cat([read.ids, input_ids], 1), output.state))
        state = self.net.initial_state(batch, self.reader.stack, constant=not self.training)
        if attention_mask is None or bool(attention_mask.all()):
            output = self.net(input_ids, state=state)
            return AUNetOutput(output.logits, Read(input_ids, output.state))
        at = torch.arange(length, device=input_ids.device)
        mask = attention_mask.bool()
        first, lengths = mask.int().argmax(1), mask.sum(1)
        to = (at + first[:, None]).clamp(max=length - 1)  # where each row's ids are, from its first on
        output = self.net(input_ids.gather(1, to), state=state, lengths=lengths.tolist())
        back = (at - first[:, None]).clamp(min=0)[..., None].expand(-1, -1, output.logits.shape[-1])
        logits = output.logits.gather(1, back) * mask[..., None]
        return AUNetOutput(logits, Read(input_ids, output.state))

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, read: Read | None = None, **_: Any
    ) -> dict[str, Any]:
        """Goes on from what was read where the rows are those (beams change places, and are read anew)."""
        if read is not None and torch.equal(read.ids, input_ids[:, : read.ids.shape[1]]):
            return {"input_ids": input_ids[:, read.ids.shape[1] :], "read": read}
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _update_model_kwargs_for_generation(
        self, outputs: AUNetOutput, model_kwargs: dict[str, Any], *given: Any, **options: Any
    ) -> dict[str, Any]:
        updated = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *given, **options)
        return updated | {"read": outputs.read if updated.get("use_cache", True) else None}


class AUNetTokenizer(PreTrainedTokenizer):
    """Text as ids of the network: bytes, or tokens of the BPE in `vocab_file`; a text begins with BOS. Names of special
    tokens in a text are text."""

    vocab_files_names = {"vocab_file": "vocabulary.json"}  # noqa: RUF012 (as the library has it)
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(self, vocab_file: str | None = None, **others: Any) -> None:
        self._reader = TokenReader(vocab_file) if vocab_file else ByteReader([])
        texts = [text.decode("latin-1") for text in self._reader.bytes_of]
        seen: set[str] = set()
        self._tokens = []
        for id_, text in enumerate(texts):
            name = {BOS: "<bos>", EOS: "<eos>"}.get(id_, text)
            self._tokens.append(f"{name}#{id_}" if name in seen else name)
            seen.add(name)
        self._ids = {token: id_ for id_, token in enumerate(self._tokens)}
        special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>", "padding_side": "left"}
        super().__init__(**{**special, "split_special_tokens": True, **others})

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        (ids,) = self._reader.encode([text.encode("utf-8", "surrogateescape")])
        return [self._tokens[int(id_)] for id_ in ids]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Returns the text of tokens; bytes that are not UTF-8 become U+FFFD."""
        ids = [self._ids[token] for token in tokens if token in self._ids]
        return self._reader.decode(ids).decode("utf-8", "replace")

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [BOS, *token_ids_0, *(token_ids_1 or [])]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        if self._reader.tokenizer is None:
            return ()
        path = Path(save_directory) / "-".join(filter(None, [filename_prefix, "vocabulary.json"]))
        path.write_text(self._reader.tokenizer.fields, encoding="utf-8")
        return (str(path),)
