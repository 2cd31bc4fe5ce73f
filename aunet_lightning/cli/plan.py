"""The command `aunet plan`: a configuration for `aunet fit` from a budget, a language mix and a number of GPUs."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aunet_lightning.cli.options import UPPER, add_upper_splitters, rule_of
from aunet_lightning.cli.texts import MEGABYTES, MEGABYTES_RANGE
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path
from aunet_lightning.reports.table import TOTAL, aligned, row_of
from splitters import DEFAULT, Stack
from splitters.laws.check import check_foreign

if TYPE_CHECKING:
    from aunet_lightning.data.mix import Mix
    from aunet_lightning.planning import Plan

HELD_OUT = 100  # one document in this many is held out, in files with enough of them
RANGES = {
    "flops": Range(above=0, most=1e35), "gpu_hours": Range(above=0, most=1e12), "parameters": Range(above=0, most=1e15),
    "flops_per_second": Range(least=1e6, most=1e30), "utilisation": Range(above=0),
    "gpu_memory": Range(above=0, most=1e6), "devices": Range(least=1, most=10**7), "ratio": Range(above=0, most=1e6),
    "megabytes": MEGABYTES_RANGE, "row_bytes": Range(least=1, most=2**27),
    "stages": Range(least=1, most=1000), "bytes_per_unit": Range(most=1e6),
}  # fmt: skip


def plan(arguments: list[str]) -> int:
    """`aunet plan`: prints a run that spends a budget, and writes its configuration."""
    options = _parser().parse_args(arguments)
    _check(options)
    rules = _rules(options)
    stack = Stack(rules)
    check_foreign(stack)
    if stack.refreshes is not None:
        raise ValueError(
            "--splitter: a plan does not count refreshes: plan for the splitter in its `of`, and expect more FLOPs"
        )
    mix = _measure(options.data, stack, options.megabytes) if options.data else None
    rates = _rates(options, stack, mix)
    from aunet_lightning import planning

    machine = planning.Machine(
        options.devices, options.flops_per_second, options.utilisation, options.gpu_memory * 1e9, options.precision
    )
    flops = options.flops
    if options.gpu_hours is not None:
        flops = options.gpu_hours * 3600 * options.flops_per_second * options.utilisation
    try:
        made = planning.plan(rules, rates, machine, flops, options.parameters, options.ratio, options.row_bytes)
    except ValueError as error:
        if options.gpu_hours is None:
            raise
        raise ValueError(str(error).replace("--flops is", f"--gpu_hours is {options.gpu_hours:g}, in FLOPs")) from None
    if mix is not None and len(mix.bytes) > 1 and options.bytes_per_unit is None and rules:
        print(_table(mix, stack.depth) + "\n")
    lines = summary(made, mix)
    print("\n".join(lines))
    settings = made.settings()
    settings["data"] = _data(options.data, mix) | settings["data"]
    if options.out:
        comment = [f"aunet plan {shlex.join(arguments)}", "", *lines]
        if not options.data:
            comment += ["", "It names no text: add data.train_files, and data.val_files or data.holdout_every."]
        out = user_path(options.out, "--out")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(planning.as_yaml(settings, comment), encoding="utf-8")
        rest = "" if options.data else " --data.train_files '[YOUR.jsonl]' --data.holdout_every 100"
        print(f"\nwrote {out}: aunet fit -c {out}{rest}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet plan",
        description="Choose network, batch, learning rate and steps for a budget, by the rules of AU-Net.",
        epilog="One of --flops, --gpu_hours and --parameters is the budget. See docs/plan.md.",
    )
    add = parser.add_argument
    add("--flops", type=float, help="FLOPs to train with, as docs/plan.md counts them")
    add("--gpu_hours", type=float, help="GPU hours, of all devices together")
    add("--parameters", type=float, help="of the network; --ratio sets the data for it")
    add("--stages", type=int, help="1 to 4 (default: as many as the splitters give, or 3)")
    add("--splitter", help=f"bytes to stage 2: a name, or YAML (default {DEFAULT})")
    add_upper_splitters(parser)
    add("--data", nargs="+", action="extend", help="JSON-lines files of the training text, in the wanted mix")
    add("--bytes_per_unit", nargs="+", type=float, help="of stages 2, 3, …, instead of measuring it on --data")
    add(
        "--megabytes",
        type=float,
        default=MEGABYTES,
        help=f"to split of each language (default {MEGABYTES})",
    )
    add("--devices", type=int, default=1, help="GPUs (default 1)")
    add("--flops_per_second", type=float, default=989e12, help="peak of one GPU (default 989e12: an H100 in bf16)")
    add("--utilisation", type=float, default=0.4, help="share of the peak that training reaches (default 0.4)")
    add("--gpu_memory", type=float, default=80.0, help="GB of one GPU (default 80)")
    add("--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed", help="default bf16-mixed")
    add(
        "--ratio",
        type=float,
        default=10.0,
        help="gamma of the paper: about tokens per parameter (default 10)",
    )
    add("--row_bytes", type=int, help="bytes of a row (default 8192, fewer if the batch is small)")
    add("--out", metavar="FILE", help="write the configuration, for aunet fit -c")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, range_ in RANGES.items():
        check(f"--{name}", getattr(options, name), range_)
    if options.utilisation > 1:
        raise ValueError(f"--utilisation is {options.utilisation:g}: it is a share of the peak, give 1 or less")
    budgets = [f"--{name}" for name in ("flops", "gpu_hours", "parameters") if getattr(options, name) is not None]
    if len(budgets) != 1:
        got = "no budget is given" if not budgets else f"{' and '.join(budgets)} are both budgets"
        raise ValueError(f"{got}: give one of --flops, --gpu_hours and --parameters")


def _rules(options: argparse.Namespace) -> list[Any]:
    """Returns one rule per stage transition. Raises ValueError if their number does not match --stages."""
    upper = None
    if options.upper_splitters is not None:
        upper = [rule_of("--upper_splitters", rule) for rule in options.upper_splitters]
    stages = options.stages or (len(upper) + 2 if upper is not None else 3)
    if stages == 1:
        if options.splitter or upper:
            raise ValueError("--stages is 1: bytes alone have no units, leave out --splitter and --upper_splitters")
        return []
    upper = [UPPER] * (stages - 2) if upper is None else upper
    if len(upper) != stages - 2:
        raise ValueError(
            f"--upper_splitters names {len(upper)} rules: {stages} stages take {stages - 2}, one above the second"
        )
    return [rule_of("--splitter", options.splitter or DEFAULT), *upper]


def _rates(options: argparse.Namespace, stack: Stack, mix: Mix | None) -> list[float]:
    given = options.bytes_per_unit
    if given is not None:
        rising = all(fine <= coarse for fine, coarse in zip([1.0, *given], given, strict=False))
        if len(given) != stack.depth or not rising:
            raise ValueError(
                f"--bytes_per_unit is {' '.join(f'{rate:g}' for rate in given)}: give {stack.depth} numbers, one for "
                "each stage above bytes, none below 1 or below the one before it"
            )
        return list(given)
    if not stack.depth:
        return []
    if stack.n_byte_rules < stack.depth:
        name = type(stack.learned[stack.n_byte_rules]).__name__.lower()
        raise ValueError(
            f"--bytes_per_unit is missing: {name} is learned, so it cannot be measured on text. Give the wanted rate"
        )
    if mix is None:
        raise ValueError(
            "--data is missing: name text, on which to count units, or give --bytes_per_unit, as in "
            + " ".join(f"{5 * 2**s}" for s in range(stack.depth))
        )
    return mix.rates()


def _measure(files: Sequence[str], stack: Stack, megabytes: float) -> Mix:
    from aunet_lightning.data.mix import measure

    mix, warning = measure(files, stack, megabytes * 1e6, "--data")
    if warning:
        print(f"aunet: warning: {warning}", file=sys.stderr)
    if not mix.bytes:
        raise ValueError(f'--data: there is no text in {", ".join(files)}: name JSON lines with a key "text"')
    return mix


def _table(mix: Mix, depth: int) -> str:
    """Returns size and bytes per unit of all text and of each language, as aligned columns."""
    rows = [["language", "MB", *(f"bytes/unit, stage {s + 2}" for s in range(depth))]]
    for language in (None, *sorted(mix.bytes)):
        size = sum(mix.bytes.values()) if language is None else mix.bytes[language]
        name = TOTAL if language is None else row_of(language)
        rows.append([name, f"{size / 1e6:.2f}", *(f"{rate:.2f}" for rate in mix.rates(language))])
    return "\n".join(aligned(rows, left=("language",)))


def _data(files: Sequence[str] | None, mix: Mix | None) -> dict[str, Any]:
    """Returns the settings under `data` that name the text."""
    if not files or mix is None:
        return {}
    most = max(mix.documents.values())
    held_out = {"holdout_every": min(HELD_OUT, max(most // 3, 2))} if most > 1 else {}
    return {"train_files": list(files)} | held_out


def summary(made: Plan, mix: Mix | None = None) -> list[str]:
    """Returns the plan as lines of text."""
    from aunet_lightning.planning import MOST_LR

    machine, memory, gb = made.machine, made.memory, 1e9
    lines = [
        f"Budget    {made.flops:.3g} FLOPs: {_hours(machine.hours(made.flops))} on {machine.devices} × "
        f"{machine.flops_per_second:.3g} FLOP/s at {machine.utilisation:.0%}",
        f"Network   AU-Net {len(made.net.stages)}, {_count(made.parameters)} parameters, "
        f"{made.flops_per_byte:.3g} FLOPs per byte ({made.published_per_byte:.3g} as the paper counts)",
    ]
    for s, stage in enumerate(made.net.stages):
        trunk = s == made.net.depth
        unit = f"units of {made.rates[s - 1]:.2f} bytes" if s else "bytes"
        layers = f"{stage.layers} layers" if trunk else f"{stage.layers} + {stage.layers} layers"
        lines.append(
            f"  stage {s + 1} {stage.dim} wide, {layers}, heads of {stage.head_dim}, window {stage.window}; {unit}"
        )
    lines += [
        f"Data      {made.bytes:.3g} bytes: {made.steps} steps of {made.batch_bytes:.3g} bytes, "
        f"{made.rows * made.accumulate * machine.devices} rows of {made.row_bytes}, warm-up 10 %",
        f"Learning  rate {made.lr:g}" + (f" (the rule gives {made.rule_lr:.2g})" if made.rule_lr > MOST_LR else ""),
        f"Memory    {memory.total / gb:.3g} GB of {machine.memory / gb:g} on each device ({made.strategy})",
        f"  weights {memory.parameters / gb:.3g}, gradients {memory.gradients / gb:.3g}, moments "
        f"{memory.optimizer / gb:.3g}, copies and buffers {(memory.copies + memory.gathered) / gb:.3g}, activations "
        f"{memory.activations / gb:.3g} ({made.rows} × {memory.activations / made.rows / gb:.3g} a row)",
    ]
    if made.accumulate > 1:
        lines.append(
            f"  note: {made.rows * made.accumulate} rows on a device at once would take {made.at_once / gb:.3g} GB, so "
            f"{made.rows} at once, {made.accumulate} times a step"
        )
    if not made.fits:
        lines.append(
            f"  warning: one row per device does not fit in {machine.memory / gb:g} GB with room for kernels: give "
            "more --devices or a smaller --row_bytes"
        )
    if made.extrapolated:
        lines.append("  note: batch and learning rate are extrapolated from models of 25 to 500 M parameters")
    if mix is not None and made.bytes > 2 * sum(mix.bytes.values()):
        lines.append(f"  note: that is the text {made.bytes / sum(mix.bytes.values()):.1f} times over")
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{hours * 60:.2g} minutes" if hours * 60 >= 1 else "under a minute"


def _count(n: float) -> str:
    return f"{n / 1e9:.2f} billion" if n >= 1e9 else f"{n / 1e6:.3g} M"
