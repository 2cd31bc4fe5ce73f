"""Rates of `entropy` on other text: bounds found on some manuals, and what they give on others and on other text.

    python benchmarks/entropy_rates.py CKPT --corpora ../shared/corpora/bench --bytes_per_unit 6

Manuals are the first --kilobytes of each language's validation text: bounds are found on every second document, the
others are of the same kind. The text of another kind is the Universal Declaration of Human Rights. The last table says
how far the boundaries of bounds that follow the text are those of a threshold found on that very text.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aunet_lightning.cli.texts import read_texts
from aunet_lightning.entropy.byte_model import ByteModel, load
from aunet_lightning.entropy.splitter import bounds_of, per_script, script_runs
from aunet_lightning.entropy.threshold import Bounds, find, find_by_script

LANGUAGES = ("zh-Hans", "th", "en", "de")
SCRIPTS = ("Han", "Thai", "default")
FOLLOW = (0.05, 0.1, 0.2, 0.4)
UDHR = Path(__file__).parent.parent / "experiments" / "data" / "udhr"


class Part(NamedTuple):
    """Documents of one language: entropies, and the group of each byte."""

    bits: list[np.ndarray]
    groups: list[np.ndarray]

    def fired(self, bounds: Bounds) -> np.ndarray:
        return np.concatenate([bounds.fires(*document) for document in zip(*self, strict=True)])


def read(model: ByteModel, path: Path, most: float, groups: Callable[[bytes], np.ndarray]) -> Part:
    texts, n = [], 0
    for text in read_texts([str(path)], must_exist=True):
        if text.data and n < most:
            texts.append(text.data)
            n += len(text.data)
    bits = dict(model.entropies([np.frombuffer(text, np.uint8) for text in texts]))
    return Part([bits[i] for i in range(len(texts))], [groups(text) for text in texts])


def arms(found_on: Sequence[Part], rate: float) -> dict[str, Bounds]:
    """Returns bounds by name."""
    bits = [document for part in found_on for document in part.bits]
    groups = [document for part in found_on for document in part.groups]
    rates, scripts = dict.fromkeys(SCRIPTS, rate), script_runs(dict.fromkeys(SCRIPTS, rate))
    made = {}
    for by in ("global", "rise", "both"):
        for name, found in (
            ("one for all", find(bits, rate, by)), ("per script", find_by_script(bits, groups, rates, by))
        ):  # fmt: skip
            options = {option: per_script(option, value) for option, value in found.items()}
            made[f"{name}, {by}"] = bounds_of(options, scripts, 0)
    fixed = made["per script, global"]
    for follow in FOLLOW:
        following = Bounds(fixed.threshold, fixed.rise, np.full(len(SCRIPTS), rate), follow)
        made[f"per script, follow {follow}"] = following
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt_path")
    parser.add_argument("--corpora", type=Path, required=True, help="a folder with valid/ LANGUAGE.jsonl.gz")
    parser.add_argument("--bytes_per_unit", type=float, default=6.0)
    parser.add_argument("--kilobytes", type=float, default=150)
    options = parser.parse_args()
    model, scripts = load(options.ckpt_path), script_runs(dict.fromkeys(SCRIPTS, 0.0))
    parts: dict[str, list[Part]] = {"found on": [], "same kind": [], "other kind": []}
    for language in LANGUAGES:
        manuals = options.corpora / "valid" / f"{language}.jsonl.gz"
        one = read(model, manuals, options.kilobytes * 1e3, scripts.groups)
        parts["found on"].append(Part(one.bits[::2], one.groups[::2]))
        parts["same kind"].append(Part(one.bits[1::2], one.groups[1::2]))
        parts["other kind"].append(read(model, UDHR / f"{language}.jsonl", np.inf, scripts.groups))
    made = arms(parts["found on"], options.bytes_per_unit)
    print("| bounds |", " | ".join(f"{kind}, {language}" for kind in parts for language in LANGUAGES), "|")
    print("|---" * (1 + len(parts) * len(LANGUAGES)) + "|")
    for name, bounds in made.items():
        fired = [part.fired(bounds) for of_kind in parts.values() for part in of_kind]
        print(f"| {name} |", " | ".join(f"{len(one) / max(one.sum(), 1):.2f}" for one in fired), "|")
    print("\nboundaries that the text's own threshold has too, and bits at both\n")
    for name in (name for name in made if "follow" in name):
        cells = []
        for language, part in zip(LANGUAGES, parts["other kind"], strict=True):
            fired, levels = part.fired(made[name]), np.concatenate([bits[1:] for bits in part.bits])
            own = np.zeros(len(levels), bool)
            own[np.argsort(-levels, kind="stable")[: fired.sum()]] = True
            both = (fired & own).sum() / fired.sum()
            cells.append(f"{language} {both:.0%}, {levels[fired].mean():.2f} of {levels[own].mean():.2f}")
        print(f"{name}: {'; '.join(cells)}")


if __name__ == "__main__":
    main()
