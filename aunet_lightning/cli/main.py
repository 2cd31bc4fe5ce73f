"""Entry point: picks the command, and loads only what it needs."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence

import yaml

from aunet_lightning import __version__

USAGE = """usage: aunet COMMAND [options]      (aunet COMMAND --help tells a command's options)

Autoregressive U-Nets on raw bytes: train them, and see which splitter serves which language.

  fit         train:                       aunet fit -c experiments/quickstart.yaml
  validate    held-out bits per byte:      aunet validate -c CONFIG [--ckpt_path CKPT]
  test        the same on the test files
  predict     bits of every test document, to predictions.jsonl in the run's folder
  generate    text from a checkpoint:      aunet generate CKPT --prompt "All human"
  split       show a text's units:         aunet split "Hello, world" --splitter whitespace
  splitters   list the splitters

A run keeps its configuration, checkpoints and MLflow id in one folder (runs/EXPERIMENT/NAME);
the same command again continues it. Another splitter: --splitter cjk_character
"""
TRAINING = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 it failed, 2 it was not understood."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"aunet {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    # OpenMP threads that wait for each other spin, and where another program has the cores they spin
    # for nothing: 8 times slower with one busy neighbour, 3 times with this limit (experiments/RESULTS.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # one's own splitters: module:Class
    if command in TRAINING:
        from aunet_lightning.cli.training import run

        return run(arguments)
    light: dict[str, Callable[[list[str]], int]] = {"generate": _generate, "split": _split, "splitters": _splitters}
    if command not in light:
        known = ", ".join([*TRAINING, *light])
        print(f"aunet: error: unknown command {command!r}: choose one of {known}", file=sys.stderr)
        return 2
    try:
        return light[command](rest)
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"aunet: error: {error}", file=sys.stderr)
        return 1


def _splitters(arguments: list[str]) -> int:
    argparse.ArgumentParser("aunet splitters", description="List the splitters.").parse_args(arguments)
    import inspect

    from splitters import available, available_unit_rules
    from splitters.registry import class_of

    for title, names in (
        ("from bytes to units (--splitter NAME):", available()),
        ("\namong the units below (upper_splitters):", available_unit_rules()),
    ):
        print(title)
        for name in names:
            cls = class_of(name)
            signature = str(inspect.signature(cls)).removesuffix(" -> None")
            print(f"  {name}{signature if signature != '()' else ''}")
            print("      " + " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()))
    return 0


def _split(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("aunet split", description="Show the units of a text, or of standard input.")
    parser.add_argument("text", nargs="?", help="the text; left out: standard input")
    parser.add_argument("--splitter", default="whitespace", help="name, or YAML such as '{name: fixed, n: 4}'")
    parser.add_argument(
        "--upper_splitters", nargs="*", default=[], help="one rule per further stage, for example every"
    )
    options = parser.parse_args(arguments)
    from aunet_lightning.reports.boundaries import MARKS, as_line
    from splitters import Stack

    stack = Stack([yaml.safe_load(rule) for rule in (options.splitter, *options.upper_splitters)])
    data = options.text.encode() if options.text is not None else sys.stdin.buffer.read()
    print(re.sub(f"(⏎[{''.join(MARKS)}]?)", r"\1\n", as_line(data, stack)).rstrip("\n"))
    levels = stack.levels(data)
    for s in range(1, stack.depth + 1):
        units = int((levels >= s).sum())
        print(f"stage {s + 1}: {units} boundaries in {len(data)} bytes, {len(data) / max(units, 1):.2f} bytes per unit")
    return 0


def _generate(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("aunet generate", description="Generate text from a checkpoint.")
    parser.add_argument("checkpoint", help="a .ckpt file of a run")
    parser.add_argument("--prompt", action="append", help="beginning of the text; may be given several times")
    parser.add_argument("--bytes", type=int, default=200, help="how many bytes to add (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most likely byte (default 0.8)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text")
    options = parser.parse_args(arguments)
    from aunet_lightning.cli.checkpoint import load_net
    from aunet_lightning.generation import generate

    net, stack = load_net(options.checkpoint)
    prompts = [prompt.encode() for prompt in options.prompt or [""]]
    for text in generate(net, stack, prompts, options.bytes, options.temperature, options.seed):
        print(text.decode("utf-8", "replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
