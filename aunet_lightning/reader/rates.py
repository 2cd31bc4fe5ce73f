"""The options with which a splitter has a wanted rate (mean bytes per unit) on given text.

A rule declares its `knob` (`splitters.Knob`): the option that moves its rate. Its values are searched by doubling, then
by halving, as the rate nearly always grows (or falls) with them; the nearest of all that were tried is taken. A class
that can tell without a search does (`Rated.at_rate`).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from aunet_lightning.numbers import Range, check
from aunet_lightning.reader.bpe import SIZES, first_entries, train_bpe
from aunet_lightning.reader.tokens import Tokenizer
from splitters.contract import Knob, LearnedSplitter, Splitter
from splitters.registry import DEFAULT, available, build, class_of, name_and_options, resolve

SAMPLE = 2_000_000  # bytes of text that are measured, at most
SMALL = 100_000  # bytes: on less, the rate of other text may be another
TOLERANCE = 0.05  # relative error up to which a rate counts as reached
NEAR = 0.002  # relative error at which the search ends early
STEPS = 1 << 14  # of a knob that takes any number
RATES = Range(least=1, most=1e6)
MOST_TOKENS = 1 << 16  # of a BPE that is fitted: the head of a larger one would cost more than the model


class NoKnob(ValueError):
    """The splitter has no option that moves its rate. `rate`: that which it has, nan where only training tells."""

    def __init__(self, message: str, rate: float) -> None:
        self.rate = rate
        super().__init__(message)


class Fitted(NamedTuple):
    """A splitter at the value of its knob whose rate is nearest to the wanted one."""

    spec: dict[str, Any]  # as YAML names it
    rate: float  # bytes per unit on the text
    error: float  # relative: 0.02 is 2 % more bytes per unit than wanted
    nearest: tuple[tuple[Any, float], ...] = ()  # the knob's values on either side of the wanted rate, and their rates
    elsewhere: float = math.nan  # of a vocabulary: the rate on one half of the documents of one trained on the other

    @property
    def reached(self) -> bool:
        return abs(self.error) <= TOLERANCE


def bytes_per_unit(rule: Splitter, texts: Sequence[bytes]) -> float:
    """Returns the rate: bytes of text ÷ units that begin on them; infinite without any."""
    units = sum(int(np.count_nonzero(rule.split(text))) for text in texts)
    return sum(map(len, texts)) / units if units else math.inf


def fit_rate(
    spec: Any, texts: Sequence[bytes], wanted: float, out: Path | None = None, trained: str | None = None
) -> Fitted:
    """Returns the splitter `spec` (a name, or {name: …, option: …}) with its knob where it has `wanted` bytes per unit
    on the texts, or comes nearest.

    Of much text, documents of about SAMPLE bytes are measured (`sample`). out: where the vocabulary of a rule that
    walks one is written, as a tokenizers JSON trained on all the texts; trained: such a one, if it is known, of which
    smaller ones are the first entries. Raises NoKnob for a splitter without one, and ValueError for a rate below 1,
    for no text, and as `splitters.build` does.
    """
    check("bytes_per_unit", wanted, RATES)
    whole = [text for text in texts if text]
    texts = sample(whole, SAMPLE)
    if not texts:
        raise ValueError("there is no text on which a rate could be measured: give some")
    name, options = name_and_options("splitter", spec)
    cls = class_of(name)
    if (told := cls.at_rate(options, texts, wanted)) is not None:
        return Fitted({"name": name, **told[0]}, told[1], told[1] / wanted - 1)
    if cls.knob is None:
        raise _without_knob(spec, cls, texts, wanted)
    if cls.knob.entries:
        trained = trained or (train_bpe(whole, int(cls.knob.most)) if out is not None else None)
        return _fit_vocabulary(name, options, cls.knob, texts, wanted, out, trained)
    option = cls.knob.option

    def rate_at(value: Any) -> float:
        return bytes_per_unit(_rule({"name": name, **options, option: value}), texts)

    found = search(cls.knob, rate_at, wanted)
    return Fitted({"name": name, **options, option: found.value}, found.rate, found.rate / wanted - 1, found.nearest)


def fit_tokens(texts: Sequence[bytes], wanted: float, trained: str) -> tuple[int, float]:
    """Returns the size of the part of a BPE vocabulary `trained` on the texts (with MOST_TOKENS) whose tokens come
    nearest to `wanted` bytes, and how many they have."""
    few = sample(texts, SAMPLE)
    total = sum(map(len, few))

    def rate_at(size: int) -> float:
        return total / sum(map(len, Tokenizer(first_entries(trained, size)).encode(few)))

    most = len(json.loads(trained)["model"]["vocab"])
    found = search(Knob("vocab_size", SIZES[0], most), rate_at, wanted)
    return found.value, found.rate


def sample(texts: Sequence[bytes], most: int) -> list[bytes]:
    """Returns documents evenly spaced among the texts, of about `most` bytes in all; one that is larger is cut."""
    total = sum(map(len, texts))
    if total <= most:
        return list(texts)
    places = np.linspace(0, len(texts) - 1, math.ceil(len(texts) * most / total)).astype(int)
    return [texts[place][:most].decode("utf-8", "ignore").encode() for place in places]


class Found(NamedTuple):
    """The result of a search: the value, its rate, and the values around the wanted rate."""

    value: Any
    rate: float
    nearest: tuple[tuple[Any, float], ...]


def search(knob: Knob, rate_at: Callable[[Any], float], wanted: float) -> Found:
    """Returns the value whose rate is nearest to the wanted one, by ratio, among those tried.

    Whole numbers double from the least one until the wanted rate is passed; then the interval is halved. Others are
    halved from the range, in STEPS equal steps. The search ends early at a relative error of NEAR.
    """
    last = int(knob.most - knob.least) if knob.whole else STEPS
    tried: dict[int, float] = {}  # by place: from `least` on

    def value_of(place: int) -> Any:
        return int(knob.least) + place if knob.whole else knob.least + (knob.most - knob.least) * place / STEPS

    def reaches(place: int) -> bool:
        if place not in tried:
            tried[place] = rate_at(value_of(place))
        return tried[place] >= wanted if knob.grows else tried[place] <= wanted

    def is_near() -> bool:
        return any(_distance(rate, wanted) < NEAR for rate in tried.values())

    low, high = -1, 0  # `low` falls short of the wanted rate, `high` reaches it, unless it is the last
    while not reaches(high) and not is_near() and high < last:
        low, high = high, min(2 * high + max(int(knob.least), 1), last) if knob.whole else last
    low = low if reaches(high) else high
    while high - low > 1 and not is_near():
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    best = min(tried, key=lambda place: (_distance(tried[place], wanted), place))
    around = tuple((value_of(place), tried[place]) for place in sorted({low, high}) if place in tried)
    return Found(value_of(best), tried[best], around)


def _rule(spec: Any) -> Splitter:
    rule = resolve(spec)
    assert isinstance(rule, Splitter)
    return rule


def _distance(rate: float, wanted: float) -> float:
    return abs(math.log(rate / wanted))


def _fit_vocabulary(
    name: str,
    options: Mapping[str, Any],
    knob: Knob,
    texts: Sequence[bytes],
    wanted: float,
    out: Path | None,
    trained: str | None,
) -> Fitted:
    """The knob is the size of a vocabulary, of which smaller ones are the first entries."""
    if out is None or trained is None:
        raise ValueError(f"{name}: its {knob.option} is trained on the text: say where to write it, --out FILE")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.json"

        def rate_of(fields: str, size: int, of: Sequence[bytes]) -> float:
            file.write_text(first_entries(fields, size), encoding="utf-8")
            return bytes_per_unit(_rule({"name": name, **options, knob.option: str(file)}), of)

        most = len(json.loads(trained)["model"]["vocab"])
        found = search(knob._replace(most=most), lambda size: rate_of(trained, size, texts), wanted)
        halves = texts[::2], texts[1::2]
        elsewhere = rate_of(train_bpe(halves[0], found.value), found.value, halves[1]) if halves[1] else math.nan
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(first_entries(trained, found.value), encoding="utf-8")
    fitted = {"name": name, **options, knob.option: str(out)}
    return Fitted(fitted, found.rate, found.rate / wanted - 1, found.nearest, elsewhere)


def _without_knob(spec: Any, cls: type, texts: Sequence[bytes], wanted: float) -> NoKnob:
    """Says what a splitter's rate is, and which combinators of it could have the wanted one."""
    if issubclass(cls, LearnedSplitter):
        return NoKnob(f"{flow(spec)} has no option that moves its rate, which only training tells", math.nan)
    rate = bytes_per_unit(_rule(spec), texts)
    found = [flow(one) for one in _combinators(spec, texts, wanted)]
    remedy = f"for {wanted:g}, give --splitter {' or '.join(map(repr, found))}" if found else "and no combinator has it"
    return NoKnob(f"{flow(spec)} has no option that moves its rate, {rate:.2f} bytes per unit: {remedy}", rate)


def _combinators(spec: Any, texts: Sequence[bytes], wanted: float) -> Iterator[dict[str, Any]]:
    """Yields the combinators of one splitter whose knob reaches the wanted rate; one that refreshes stands alone."""
    if _rule(spec).refreshes is not None:
        return
    for name in available("rule"):
        knob = class_of(name).knob
        if knob is not None and combines(name):
            ends = [{"name": name, "of": spec, knob.option: value} for value in (knob.least, knob.most)]
            low, high = sorted(bytes_per_unit(_rule(end), texts) for end in ends)
            if low <= wanted <= high:
                yield {"name": name, "of": spec}


def combines(name: str) -> bool:
    """Returns whether a rule takes another one as its `of`."""
    try:
        build(name, of=DEFAULT)
    except ValueError:
        return False
    return True


def flow(spec: Any) -> str:
    """Returns a spec as one line of YAML."""
    if isinstance(spec, str):
        return spec
    text = yaml.safe_dump(spec, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.strip()
