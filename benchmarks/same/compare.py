"""Compares two records."""

import json
from pathlib import Path


def compare(a: Path, b: Path, most: int) -> int:
    """Prints where two records differ; returns 1 where they do."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (a, b))
    differing = [key for key in sorted(first.keys() | second.keys())
                 if key not in first or key not in second or first[key] != second[key]]  # fmt: skip
    for key in differing[:most]:
        print(key)
        one, other = (found.get(key, "(is not there)") for found in (first, second))
        if isinstance(one, list) and isinstance(other, list):
            one, other = [line for line in one if line not in other], [line for line in other if line not in one]
        print(f"    {str(one)[:400]}\n    {str(other)[:400]}")
    failed = [key for key in first.keys() | second.keys() if key.startswith("FAILED/")]
    if not differing and not failed:
        print(f"all {len(first):,} values are equal")
        return 0
    if differing:
        groups: dict[str, int] = {}
        for key in differing:
            group = "/".join(key.split("/")[:3])
            groups[group] = groups.get(group, 0) + 1
        print(f"\n{len(differing):,} of {len(first.keys() | second.keys()):,} values differ:")
        for group, count in sorted(groups.items(), key=lambda item: -item[1])[:40]:
            print(f"{count:6,}  {group}")
    for key in sorted(failed):
        print(f"could not be recorded: {key}")
    return 1
