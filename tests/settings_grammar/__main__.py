"""Draws settings and runs them."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.settings_grammar.cases import Case, bad, case, every_bad, good, made, write_text
from tests.settings_grammar.runs import faults, run


def script() -> None:
    parser = argparse.ArgumentParser(description="Draws settings and runs them.")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("good", "bad", "all-bad"), default="bad")
    parser.add_argument("--only", default="", help="a word in what is drawn")
    parser.add_argument("--part", default="0/1", help="of all-bad: i/n")
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--show", action="store_true", help="print every error, not only the wrong ones")
    options = parser.parse_args()
    import resource

    import aunet_lightning.cli.training  # noqa: F401 (so that its seconds are those of no case)

    resource.setrlimit(resource.RLIMIT_AS, (14 * 2**30, 14 * 2**30))
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    write_text(folder)
    everything = every_bad(folder)
    if options.kind == "good":
        cases = [case(settings, what, "", True) for settings, what in (good(rng, folder) for _ in range(options.draws))]
    elif options.kind == "bad":
        cases = [bad(rng, folder, everything) for _ in range(options.draws)]
    else:
        i, n = map(int, options.part.split("/"))
        cases = [one if isinstance(one, Case) else made(rng, folder, *one) for one in everything][i::n]
    cases = [one for one in cases if options.only in one.what]
    wrong, slowest = 0, 0.0
    for one in cases:
        got = run(one, folder, options.limit)
        found = faults(one, got)
        wrong, slowest = wrong + bool(found), max(slowest, got.seconds)
        if found or options.show:
            tail = (
                got.error.strip()[-1500:]
                if got.code in ("traceback", "hang")
                else got.error.rpartition("error:")[2].strip()
            )
            print(f"[{got.code}, {got.seconds:.1f} s] {one.what}\n    {found}\n    {tail[:1600]}", flush=True)
    print(f"{len(cases)} drawn, {wrong} wrong, slowest {slowest:.1f} s")


if __name__ == "__main__":
    sys.exit(script())
