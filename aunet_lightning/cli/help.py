"""`--help` of fit, validate, test and predict: short, and what is ours first; a part in full where one is named.

`aunet fit --help` has a line or two for most settings, `aunet fit --help model.optimizer` (or `--model.optimizer.help`)
those of one part in full, `--help trainer` what Lightning documents, `--help all` everything.
"""

import argparse
import re
import shutil
import textwrap
from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aunet_lightning.lightning_private import help_of, link_sources, parser_actions
from aunet_lightning.numbers import listed, show

PARTS = {  # in the order shown
    "splitter": "Where units begin (aunet splitters lists the rules)",
    "data": "The text",
    "model": "The network, its optimizer and its budget",
    "run": "The run's folder, its checkpoints, MLflow",
    "report": "What is printed at the end",
    "trainer": "Lightning's Trainer",
    "checkpoint": "The seed, and the checkpoint to continue from or to read",
}
MEMBERS = {
    "splitter": ("upper_splitters", "tokenizer"),
    "checkpoint": ("seed_everything", "ckpt_path", "weights_only", "verbose", "return_predictions"),
}
OFTEN = {  # of parts whose other settings are left out of the short help
    "trainer": ("max_steps", "accelerator", "devices", "precision", "val_check_interval", "limit_val_batches"),
    "run": ("experiment", "name", "folder", "checkpoint_every"),
    "report": ("sample_prompts",),
}
LATER = "model.parallel."  # left out likewise
OWN_WORDS = {  # where the parser's are long, or not those of this command
    "seed_everything": "the seed of weights, of the data's order and of what is drawn",
    "ckpt_path": "a checkpoint, last or best; by default fit continues from the run's newest, others read its best",
    "weights_only": "as in torch.load; a fit reads checkpoints as data in any case",
    "trainer.max_steps": "steps of training; -1: model.budget or max_epochs ends it",
    "trainer.accelerator": "cpu, gpu or auto",
    "trainer.devices": "how many, or auto",
    "trainer.precision": "32-true, bf16-mixed, …",
    "trainer.val_check_interval": "steps between validations (with check_val_every_n_epoch null)",
    "trainer.limit_val_batches": "batches of a validation, or a share of them",
    "model.compile": "whether to compile the network: true, false or auto",
    "model.net.offsets": "matrices for offsets past the last: clamp, or modulo as in published weights",
    "model.net.stages": "the stages, from bytes to the trunk: [{dim: 128, layers: 1, head_dim: 32, window: 256}, …]",
}
NAME_WIDTH = 34
USAGE = "aunet {} -c CONFIG.yaml [-c MORE.yaml …] [--KEY VALUE …]"
HELP = ("-h", "--help")
WITH_HELP = (
    "data", "model", "run", "report", "trainer", "model.net", "model.optimizer", "model.budget", "model.parallel",
)  # fmt: skip


def asked(arguments: Sequence[str]) -> str | None:
    """Returns the part whose help is asked for, "" for the short help, or None where none is asked for."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument in HELP:
            return "" if following.startswith("-") else following
        part = re.fullmatch(r"--([a-z][\w.]*)\.help", argument)
        if part and part[1] in WITH_HELP:
            return part[1]
    return None


def help_text(command: str, parser: ArgumentParser, part: str) -> str:
    """Returns the help of a command, whose parser is given. Raises ValueError for a part that does not exist."""
    actions = {action.dest: action for action in parser_actions(parser) if _is_setting(action)}
    if not part:
        return "\n".join(_short(command, actions, shutil.get_terminal_size().columns))
    chosen = [name for name in actions if part in ("all", name, _part_of(name)) or name.startswith(f"{part}.")]
    if not chosen:
        known = listed([*PARTS, "model.net", "model.optimizer", "all"])
        raise ValueError(f"--help {show(part)}: no settings are called so; there are {known}")
    sections = {title: [actions[one] for one in chosen if _part_of(one) == name] for name, title in PARTS.items()}
    sections = {title: own for title, own in sections.items() if own}
    return help_of(parser, USAGE.format(command), sections)


def _is_setting(action: Action) -> bool:
    if not action.option_strings or action.help == argparse.SUPPRESS or action.dest.endswith(".help"):
        return False
    others = action.dest in ("help", "config", "print_config") or action.metavar == "CONFIG"
    return not others and not link_sources(action)


def _part_of(name: str) -> str:
    first = name.partition(".")[0]
    return next((part for part, names in MEMBERS.items() if first in names), first)


def _short(command: str, actions: Mapping[str, Action], width: int) -> Iterator[str]:
    yield f"usage: {USAGE.format(command)}"
    yield ""
    yield from textwrap.wrap(
        "Settings come from YAML files (experiments/quickstart.yaml is one to begin with) and from options; what comes "
        "later wins. --print_config prints them all.", width
    )  # fmt: skip
    for part, title in PARTS.items():
        names = [name for name in actions if _part_of(name) == part and not name.startswith(LATER)]
        if part in OFTEN:
            names = [name for name in names if name.partition(".")[2] in OFTEN[part]]
            title += f" (all of it: --help {part})"
        yield ""
        yield f"{title}:"
        for name in names:
            yield from _line(name, actions[name], width)
    yield ""
    yield from textwrap.wrap(
        f"One part in full, with types: aunet {command} --help PART, such as data, model.optimizer, model.parallel or "
        "trainer; everything: --help all", width
    )  # fmt: skip


def _line(name: str, action: Action, width: int) -> Iterator[str]:
    """Yields a setting, its meaning and its default, in two columns."""
    words = [OWN_WORDS.get(name) or meaning(action)]
    if action.default not in (None, argparse.SUPPRESS) and not action.required:
        words.append(f"(default {_default(action.default)})")
    lines = textwrap.wrap(" ".join(filter(None, words)), max(width - NAME_WIDTH, 30)) or [""]
    head = f"  --{name}"
    if len(head) >= NAME_WIDTH:
        yield head
        head = ""
    for i, line in enumerate(lines):
        yield f"{head if i == 0 else '':<{NAME_WIDTH}}{line}".rstrip()


def meaning(action: Action) -> str:
    """Returns the first statement of an option's help."""
    return re.split(r"; |\. ", " ".join(str(action.help or "").split()))[0].removesuffix(".")


def _default(value: Any) -> str:
    return value if isinstance(value, str) else show(value)
