"""Splitters by speed: MB/s of splitting, and µs per byte of stepping, on the shipped text.

make bench            or: python benchmarks/splitter_speed.py [--megabytes 2]
"""

import argparse
import json
import platform
import time
from pathlib import Path

from splitters import available, build

UDHR = Path(__file__).parent.parent / "experiments" / "data" / "udhr"
LANGUAGES = ("en", "zh-Hans", "th", "ar")
STEPPED = 50_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2.0)
    options = parser.parse_args()
    lines = [line for language in LANGUAGES for line in (UDHR / f"{language}.jsonl").open()]
    text = "\n".join(json.loads(line)["text"] for line in lines).encode()
    data = (text * (int(options.megabytes * 1e6) // len(text) + 1))[: int(options.megabytes * 1e6)]

    print(f"{len(data) / 1e6:.1f} MB of {', '.join(LANGUAGES)}; {platform.processor() or platform.machine()}, one core")
    print(f"{'splitter':<16}{'split MB/s':>12}{'step µs/byte':>14}{'bytes/unit':>12}")
    for name in available():
        splitter = build(name)
        splitter.split(data[:100])  # tables are made on first use
        begin = time.perf_counter()
        boundaries = splitter.split(data)
        split = time.perf_counter() - begin
        stepper = splitter.stepper()
        begin = time.perf_counter()
        for byte in data[:STEPPED]:
            stepper.push(byte)
        step = time.perf_counter() - begin
        rate = len(data) / max(int(boundaries.sum()), 1)
        print(f"{name:<16}{len(data) / split / 1e6:>12.1f}{step / STEPPED * 1e6:>14.2f}{rate:>12.2f}")


if __name__ == "__main__":
    main()
