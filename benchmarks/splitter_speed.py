"""Times splitters on one core: a complete text at once, the same rule in plain Python, and one byte at a time.

python benchmarks/splitter_speed.py [--megabytes 4] [--vocabulary FILE]

The text is a mix of English, Chinese, Thai and Arabic (the shipped one, repeated). "plain" pushes the
text through the rule's stepper. A push is timed over the first 4 kB of a text, and after 1 MB of it: the ratio
shows whether it gets slower. Each number is the best of three.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import regex

from splitters import Splitter, Stepper, available, build

UDHR = Path(__file__).parent.parent / "experiments" / "data" / "udhr"
LANGUAGES = ("en", "zh-Hans", "th", "ar")
PATTERN = r"\S+\s"
FEW, MANY = 4_000, 1_000_000  # bytes before a timed push
PUSHED = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--vocabulary", help="a tokenizers JSON for one more trie")
    options = parser.parse_args()
    data = mix(int(options.megabytes * 1e6))

    print(f"{len(data) / 1e6:.1f} MB of {', '.join(LANGUAGES)}; {processor()}, one core")
    titles = ("split MB/s", "plain MB/s", "ratio", "push µs", "after 1 MB", "bytes/unit")
    print(f"{'splitter':<22}" + "".join(title.rjust(12) for title in titles))
    for name in available("rule"):
        show(name, build(name), data)
    if options.vocabulary:
        show(f"trie {Path(options.vocabulary).stem}", build("trie", vocabulary=options.vocabulary), data)

    text, rule = data.decode("utf-8", "ignore"), build("pattern", patterns=PATTERN)
    matches = best(lambda: sum(1 for _ in regex.finditer(PATTERN, text)))
    ours = best(lambda: rule.split(data))
    print(f"pattern {PATTERN}: regex finds its matches at {len(data) / matches / 1e6:.1f} MB/s, "
          f"the splitter at {len(data) / ours / 1e6:.1f} MB/s, {matches / ours:.1f} times that")  # fmt: skip


def mix(size: int) -> bytes:
    lines = [line for language in LANGUAGES for line in (UDHR / f"{language}.jsonl").open(encoding="utf-8")]
    text = "\n".join(json.loads(line)["text"] for line in lines).encode()
    return (text * (size // len(text) + 1))[:size]


def show(name: str, splitter: Splitter, data: bytes) -> None:
    boundaries = splitter.split(data)  # tables are made, and loops compiled, on first use
    split = len(data) / best(lambda: splitter.split(data)) / 1e6
    plain = PUSHED / best(lambda: push(splitter.stepper(), data[:PUSHED])) / 1e6
    early = best(lambda: push(splitter.stepper(), data[:FEW])) / FEW * 1e6
    stepper = splitter.stepper()
    push(stepper, data * (MANY // len(data) + 1))
    late = best(lambda: push(stepper, data[:FEW])) / FEW * 1e6
    rate = len(data) / max(int(boundaries.sum()), 1)
    print(f"{name:<22}{split:>12.1f}{plain:>12.2f}{split / plain:>12.0f}{early:>12.3f}{late:>12.3f}{rate:>12.2f}")


def push(stepper: Stepper, data: bytes) -> None:
    for byte in data:
        stepper.push(byte)


def best(call: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of three calls."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
