"""A network as a model of lm_eval. Its numbers are those of `aunet score` and of `aunet generate`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lm_eval.models  # noqa: F401 (registers the harness's own models; it does so itself only while it has none)
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from aunet_lightning.checkpoints.load import load_with_contents
from aunet_lightning.cli.options import device_of
from aunet_lightning.generation import Request, Sampling, stream
from aunet_lightning.numbers import Range, check
from aunet_lightning.scoring import ROW, Continuation, Score, check_rows, score

DEVICE = "cuda:0"  # the harness names it where its user names none, whether or not there is one
OF_SAMPLING = ("top_k", "top_p", "min_p", "repetition_penalty")  # of generation_kwargs, and called so by `Sampling`
READ = {*OF_SAMPLING, "until", "max_gen_toks", "do_sample", "temperature"}
MAX_BYTES = 256  # where a task names no max_gen_toks

_log = logging.getLogger(__name__)


@register_model("aunet")
class AUNetLM(LM):
    """The network of a checkpoint, or of what `aunet export` wrote.

    pretrained: its path. device: auto, cpu, cuda, …
    row_ids, context_ids, batch_ids: as of `aunet score`, whose bits these are (row_ids None: as in training).
    rows: texts that are generated at once. seed: of those that are drawn.
    batch_size, max_batch_size: not used: texts are batched by length, as many as memory is likely to hold.
    trust_remote_code: not used: the harness passes on what it was given for data sets.

    Raises ValueError for numbers that are out of range, UserError for a checkpoint that cannot be read.
    """

    def __init__(
        self, pretrained: str, device: str = "auto", row_ids: int | None = None, context_ids: int = 0,
        batch_ids: int | None = None, rows: int = 32, seed: int = 0, batch_size: int | str | None = None,
        max_batch_size: int | None = None, trust_remote_code: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check("rows", rows, Range(least=1), whole=True)
        if batch_size not in (None, 1, "1") or max_batch_size is not None:
            _log.warning("batch_size is not used: texts are batched by length; batch_ids and rows limit the memory")
        net, self.reader, contents = load_with_contents(str(pretrained))
        if row_ids is None and contents.row_ids is None:
            _log.warning(f"the checkpoint does not record its rows, so they are of {ROW} ids: give row_ids")
        self.row_ids = row_ids if row_ids is not None else contents.row_ids or ROW
        check_rows(self.row_ids, context_ids, batch_ids)
        self.context_ids, self.batch_ids, self.rows, self.seed = context_ids, batch_ids, rows, seed
        self._device = device_of(device)
        self.net = net.to(self._device)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> AUNetLM:
        """Returns the model of --model_args, which precede the options of the command."""
        options = {key: value for key, value in (additional_config or {}).items() if value is not None}
        if options.get("device") == DEVICE:
            options["device"] = "auto"
        return cls(**options | arg_dict)

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the harness writes beside its results."""
        size = sum(weight.numel() for weight in self.net.parameters())
        return {"model_num_parameters": size, "row_ids": self.row_ids, "context_ids": self.context_ids}

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Returns of each (context, continuation) the nats of the continuation's bytes, and whether each of its ids is
        the most likely one."""
        found, unread = [], 0
        for request, one in self._scored(requests):
            found.append((_nats(one), bool(one.greedy.all())))
            unread += one.unread > 0
            self.cache_hook.add_partial("loglikelihood", request.args, found[-1])
        if unread:
            _log.warning(
                f"{unread} contexts do not fit into a row of {self.row_ids} ids, which has their end alone: give "
                "row_ids, if the network has seen longer rows"
            )
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Returns of each text the nats of all its bytes, in rows as `aunet score` reads them."""
        found = []
        for request, one in self._scored(requests):
            found.append(_nats(one))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Returns what follows each context, up to a string of `until` or `max_gen_toks` bytes (the field's unit is
        tokens, whatever the model reads). It is greedy unless there is a temperature. A request that comes several
        times is drawn anew each time."""
        texts = [""] * len(requests)
        seen: dict[str, int] = {}
        groups: dict[str, tuple[Sampling, list[tuple[int, Request]]]] = {}
        for number, request in enumerate(requests):
            context, options = request.args[:2]
            of = seen.get(key := repr(request.args), 0)
            seen[key] = of + 1
            _, group = groups.setdefault(repr(options), (_sampling(options), []))
            group.append((number, Request(_bytes(context), self.seed, of)))
        with tqdm(total=len(requests), desc="aunet") as bar:
            for sampling, group in groups.values():
                asked = [request for _, request in group]
                for piece in stream(self.net, self.reader, asked, sampling, self.rows):
                    if piece.done is not None:
                        number = group[piece.number][0]
                        texts[number] = piece.done.text.decode("utf-8", "replace")
                        self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
                        bar.update()
        return texts

    def _scored(self, requests: Sequence[Instance]) -> Iterator[tuple[Instance, Score]]:
        """Yields requests, whose arguments are (context, text) or (text,), with their scores."""
        texts = (Continuation(*[b"", *map(_bytes, request.args)][-2:]) for request in requests)
        found = score(self.net, self.reader, texts, self.row_ids, self.context_ids, self.batch_ids)
        return zip(requests, tqdm(found, desc="aunet", total=len(requests)), strict=True)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _nats(one: Score) -> float:
    return -one.bits * math.log(2)


def _sampling(given: Mapping[str, Any]) -> Sampling:
    """Returns how a task's generation_kwargs ask for texts to be continued."""
    options: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), MAX_BYTES))
    if unknown := sorted(options.keys() - READ):
        _log.warning(f"generation_kwargs: {', '.join(unknown)}: not known to this model, and left out")
    more = {name: options[name] for name in OF_SAMPLING if options.get(name) is not None}
    temperature = float(options.get("temperature") or 0)  # 0 where do_sample is off
    stop = tuple(_bytes(text) for text in options["until"] if text)
    return Sampling(options["max_gen_toks"], temperature=temperature, stop=stop, **more)
