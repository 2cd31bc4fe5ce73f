"""The page of a run: drawn from the files of its folder alone, so that a run that continues has the whole."""

import json
import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from aunet_lightning.effects import REQUIRED, Effect
from aunet_lightning.reports.figures import Series, curves
from aunet_lightning.reports.page import Block, Heading, Items, Pictures, Table, TableCell, Text, Verbatim, as_html
from aunet_lightning.reports.run import drawings, sections
from aunet_lightning.reports.run.known import Known, amount, thinned
from aunet_lightning.reports.table import TOTAL
from aunet_lightning.tracking.names import rule_name, units_name
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.definition import settings_by_key

POINTS = 300  # of a curve


def page_of(folder: RunFolder, state: str, seconds: Mapping[str, float], step: int = 0) -> str:
    """Returns the page: state says what the run is doing (running, finished, stopped, failed: why), seconds what its
    time went to, step how far it has come (0: as far as it has logged)."""
    known = Known(folder, state, seconds, step)
    blocks = [
        *_result(known), *_run(known), *_languages(known), *_curves(known), *sections.samples(known),
        *sections.boundaries(known), *sections.surprisal(known), *sections.lengths(known), *sections.attention(known),
        *_time(known), *_settings(known), *_continuing(known),
    ]  # fmt: skip
    return as_html(folder.path.name, blocks, sections.STYLE + drawings.STYLE)


def _result(known: Known) -> list[Block]:
    header, rows = known.table
    sentences, total = [_state(known)], rows.get(TOTAL, [math.nan])
    if math.isfinite(total[0]):
        step = known.measured_at[-1] if known.measured_at else known.steps
        text, flops = (known.at(name, step) for name in ("bytes_seen", "flops"))
        sentences.append(
            f"After {step:,.0f} steps ({amount(text, 'B')} of text and {amount(flops, 'FLOPs')}) the model needs "
            f"{total[0]:.3f} bits per byte of held-out text."
        )
        sentences += _against(header, total)
        best = known.last("best/val_bpb")
        if found := known.overfit:
            sentences.append(
                f"The model overfits: held-out text takes {found.rise:.1%} more than at its lowest "
                f"({found.lowest:.3f}, after {found.step:,.0f} steps), while training text takes less."
            )
        elif best < total[0] - 5e-4:
            sentences.append(f"Its lowest so far was {best:.3f}.")
    else:
        sentences.append("Held-out text has not been measured.")
    return [Text(" ".join(sentences), "answer")]


def _languages(known: Known) -> list[Block]:
    header, rows = known.table
    if not rows:
        return []
    read = known.read_by_language
    body: list[list[str | TableCell]] = []
    for name, values in rows.items():
        body.append([name, *_lowest(values), *([read.get(name, "–")] if read else [])])
    table = Table(["bits per byte", *header, *(["text read"] if read else [])], body)
    baselines = ", the lowest of each row bold; n-grams are of the same training text" if len(header) > 1 else ""
    times = " Text read: how much training text there is, and how often it was read." if read else ""
    note = f"Held-out text by language{baselines}.{times}"
    return [Heading("Languages"), table, Text(note, "note")]


def _state(known: Known) -> str:
    most = known.settings.get("trainer", {}).get("max_steps", -1)
    of = f" of {most:,}" if isinstance(most, int) and most > 0 else ""
    state, _, why = known.state.partition(": ")
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    because = f" ({why})" if why else ""
    then = ", when this was written" if state == "running" else ""  # it may have died since
    return f"{state.capitalize()}{because} at step {known.steps:,}{of}{then} ({written})."


def _against(header: Sequence[str], total: Sequence[float]) -> list[str]:
    """How the model compares with the best yardstick."""
    others = [(value, name) for name, value in zip(header[1:], total[1:], strict=False) if math.isfinite(value)]
    if not others:
        return []
    value, name = min(others)
    share = total[0] / value - 1
    where = f"{abs(share):.1%} {'more' if share > 0 else 'less'} than" if abs(share) >= 5e-4 else "as much as"
    return [f"That is {where} the best yardstick, a {name} of the same text ({value:.3f})."]


def _lowest(values: Sequence[float]) -> list[TableCell]:
    lowest = min((value for value in values if math.isfinite(value)), default=math.nan)
    return [
        TableCell([f"{value:.3f}" if math.isfinite(value) else "–"], best=value == lowest and len(values) > 1)
        for value in values
    ]


def _run(known: Known) -> list[Block]:
    """What the run is."""
    settings = known.settings
    if not settings:
        return []
    stages = settings["model"]["net"]["stages"]
    upper = [rule_name(rule) for rule in settings.get("upper_splitters") or []]
    shapes = "; ".join(
        f"stage {i}: {stage['dim']} wide, {stage['layers']} layer{'s' * (stage['layers'] != 1)}"
        + (f", window {stage['window']}" if stage.get("window") else "")
        for i, stage in enumerate(stages, 1)
    )
    items = [("Units:", " ← ".join([units_name(settings), *upper]) + _rates(known)), ("Stages:", shapes)]
    if math.isfinite(parameters := known.last("cost/parameters")):
        per_byte = amount(known.last("cost/flops_per_byte"), "FLOPs")
        items.append(("Size:", f"{parameters:,.0f} parameters; {per_byte} of training per byte of text"))
    for part, name in (("train", "Training text:"), ("val", "Held-out text:")):
        if of := known.text.get(part):
            languages, n = of["languages"], len(of["languages"])
            listed = ", ".join(languages[:30]) + (f" and {n - 30} more" if n > 30 else "")
            documents = f"{amount(of['bytes'], 'B')} in {of['documents']:,} documents"
            items.append((name, f"{documents}, {n} language{'s' * (n != 1)}: {listed}"))
    return [Items(items)]


def _rates(known: Known) -> str:
    stages = range(2, len(known.settings["model"]["net"]["stages"]) + 1)
    rates = [
        next(
            value
            for name in ("text_unit", "unit")
            if not math.isnan(value := known.last(f"val/bytes_per_{name}_stage{s}")) or name == "unit"
        )
        for s in stages
    ]
    found = [f"{rate:.2f}" for rate in rates if math.isfinite(rate)]
    return f" ({', '.join(found)} bytes per unit on held-out text, by stage)" if found else ""


def _curves(known: Known) -> list[Block]:
    languages = [
        Series(i, language, thinned(line, POINTS))
        for i, (language, line) in enumerate(known.of_languages("val/bpb").items())
    ]
    held_out = [Series(0, "all text", thinned(known.curves.get("val/bpb", []), POINTS), reference=True)]
    training = [Series(1, "training", thinned(known.curves.get("train/bpb", []), POINTS))]
    panels = {
        "languages": (held_out + (languages if len(languages) > 1 else []), "Held-out text, by language"),
        "training": ([*training, held_out[0]._replace(label="held out")], "Training and held-out text"),
    }
    drawn = Pictures(
        "curves", [*panels],
        lambda name, key: curves(name, [one for one in panels[key][0] if one.main], "steps", "BPB"),
        {key: caption for key, (_, caption) in panels.items()}, "The run has logged no metrics.",
    )  # fmt: skip
    note = "Bits per byte over steps, of training text as means over neighbouring steps. Lower is better."
    return [Heading("Curves"), drawn, Text(note, "note")]


def _time(known: Known) -> list[Block]:
    whole = sum(known.seconds.values())
    if not whole:
        return []
    parts = [(name, value) for name, value in known.seconds.items() if value >= 0.05]
    rows = [[name, f"{value:,.1f}", f"{value / whole:.1%}"] for name, value in sorted(parts, key=lambda part: -part[1])]
    rows.append(["all", f"{whole:,.1f}", ""])
    blocks: list[Block] = [Heading("Time"), Table(["part", "seconds", "share"], rows, "named")]
    rate = known.last("perf/bytes_per_second")
    facts = [
        f"{amount(rate, 'B')} of text per second over the last steps"
        if math.isfinite(rate)
        else "Bytes of text per second are not known: too few steps were logged to measure them"
    ]
    for steps, seconds in known.curves.get("perf/training_seconds", [])[-1:]:
        facts.append(f"{seconds / steps:.3g} seconds per step in the mean")
    note = "Of the first process, from its setting up the run; of a run that continues, also before."
    return [*blocks, Text("; ".join(facts) + "."), Text(note, "note")]


def _settings(known: Known) -> list[Block]:
    """The settings that differ from their defaults."""
    if not known.settings:
        return []
    numbers: list[list[str]] = []
    others: list[list[str]] = []
    for key, setting in settings_by_key(known.settings).items():
        if setting.is_default:
            continue
        default = "–" if setting.default is REQUIRED else _shown(setting.default)
        rows = others if setting.effect is Effect.NONE else numbers
        rows.append([key, _shown(setting.value), default])
    rows = [
        *([["The run's numbers depend on these"], *numbers] if numbers else []),
        *([["and not on these: where it is kept, what it shows, how its data is read"], *others] if others else []),
    ]
    note = "All are in config.yaml, in the run's folder. – stands for no default."
    return [
        Heading("Settings that differ from the defaults"),
        Table(["setting", "here", "default"], rows, "wordy named"),
        Text(note, "note"),
    ]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _continuing(known: Known) -> list[Block]:
    """How the run continues."""
    here = Path.cwd()
    command = ["aunet", "fit", "-c", str(known.folder.config)]
    if known.settings.get("ckpt_path") not in (None, "last"):
        command += ["--ckpt_path", "last"]  # and not once more from where it began
    lines = [f"cd {shlex.quote(str(here))}", shlex.join(command)]
    text = "The same command continues the run from its last checkpoint"
    if known.state == "finished":
        text = "The run is finished. With a larger trainer.max_steps or budget the same command trains it further"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        text += "; it was started by torchrun, which comes before it as then"
    use = [f"aunet validate --ckpt_path {shlex.quote(str(known.folder.best))}"]
    use.append(f"aunet generate {shlex.quote(str(known.folder.best))} --prompt 'All human '")
    return [
        Heading("Continue"),
        Text(text + ":"),
        Verbatim("\n".join(lines)),
        Text("To use what it has trained:"),
        Verbatim("\n".join(use)),
    ]
