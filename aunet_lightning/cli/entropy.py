"""The command `aunet entropy`: the threshold of the splitter `entropy` that gives a wanted rate."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import yaml

from aunet_lightning.cli.texts import FORMATS, MEGABYTES_RANGE, Text, add_texts, read_texts, up_to
from aunet_lightning.entropy.byte_model import device, load
from aunet_lightning.entropy.threshold import find, fires
from aunet_lightning.numbers import Range, check
from aunet_lightning.reports.table import TOTAL, aligned, row_of


def find_threshold(arguments: list[str]) -> int:
    """`aunet entropy`: prints the threshold, the rate it gives in each language, and the line for a YAML file."""
    options = _parser().parse_args(arguments)
    check("--bytes_per_unit", options.bytes_per_unit, Range(least=1, most=1e6))
    check("--megabytes", options.megabytes, MEGABYTES_RANGE)
    model = load(options.ckpt_path)
    texts = [text for text in up_to(list(read_texts(options.text)), int(options.megabytes * 1e6)) if text.data]
    if not texts:
        raise ValueError(f"there is no text in {', '.join(options.text) or 'standard input'}")

    size = sum(len(text.data) for text in texts)
    print(f"aunet: reading {len(texts)} documents, {size / 1e6:.2f} MB, on {device()}", file=sys.stderr)
    bits: list[np.ndarray] = [np.empty(0, np.float32)] * len(texts)
    for number, of_text in model.entropies([np.frombuffer(text.data, np.uint8) for text in texts], device()):
        bits[number] = of_text
    bounds = find(bits, options.bytes_per_unit, options.by)

    counts = [int(fires(of_text, bounds.get("threshold"), bounds.get("rise")).sum()) for of_text in bits]
    print("\n".join(_table(texts, counts)))
    print("\n" + ", ".join(f"{name} {value!r} bits" for name, value in bounds.items()))
    rule = {"name": "entropy", "checkpoint": options.ckpt_path, **bounds}
    flow = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    print(f"splitter: {flow.strip()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet entropy",
        description="Find the threshold at which the splitter entropy gives units of a wanted mean length.",
        epilog=f"{FORMATS}, as for aunet split.",
    )
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a one-stage model")
    add_texts(parser)
    parser.add_argument("--bytes_per_unit", type=float, required=True, help="the wanted rate, 1 or more")
    parser.add_argument(
        "--by",
        choices=("global", "rise", "both"),
        default="global",
        help="bound the entropy (default), its rise from byte to byte, or both",
    )
    return parser


def _table(texts: Sequence[Text], counts: Sequence[int]) -> list[str]:
    """Returns bytes, boundaries and their ratio for all text and for each language, a line each."""
    rows = [["language", "bytes", "boundaries", "bytes/unit"]]
    for language in (TOTAL, *sorted({row_of(text.language) for text in texts})):
        mine = [i for i, text in enumerate(texts) if language in (TOTAL, row_of(text.language))]
        n_bytes, n_boundaries = sum(len(texts[i].data) for i in mine), sum(counts[i] for i in mine)
        rate = f"{n_bytes / n_boundaries:.2f}" if n_boundaries else "–"
        rows.append([language, str(n_bytes), str(n_boundaries), rate])
    return aligned(rows, left=("language",))
