"""Shows that a change to the code changes no number: records every number of a checkout, and compares two records.

    python benchmarks/same_numbers.py TREE OUT.json         # TREE: a checkout of this repository
    python benchmarks/same_numbers.py --compare A.json B.json  # exit code 1, and what differs, where something does

Floats are kept to the last bit (hexadecimal), tensors and long texts as the SHA-256 of their bytes. What is recorded
goes by what outlives a refactoring: the commands, the stable names, and the files of a run. Wall clock, throughput and
MLflow's ids are left out. About three minutes on two idle cores; only numbers of one machine are comparable.
"""

import argparse
import sys
from pathlib import Path

from same.compare import compare
from same.record import record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs=2, type=Path, metavar="PATH", help="TREE OUT.json, or two records")
    parser.add_argument("--compare", action="store_true", help="compare two records")
    parser.add_argument("--most", type=int, default=60, help="differences shown one by one (default 60)")
    parser.add_argument("--keep", action="store_true", help="keep the folder in which everything was run")
    parser.add_argument("--only", nargs="+", choices=["rules", "runs", "sharded"], help="record these parts alone")
    options = parser.parse_args()
    first, second = options.paths
    if options.compare:
        return compare(first, second, options.most)
    return record(first.resolve(), second, options.keep, options.only or ["rules", "runs", "sharded"])


if __name__ == "__main__":
    sys.exit(main())
