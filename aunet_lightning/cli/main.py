"""Entry point: selects the command, loads only what it needs, and reports errors."""

import os
import sys

if sys.path[:1] in ([""], [os.getcwd()]):  # python -m: a file here, such as random.py, must not pass for a module
    sys.path.append(sys.path.pop(0))

import signal
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

from aunet_lightning import __version__
from aunet_lightning.terminal import guarded

USAGE = """usage: aunet COMMAND [options]      (aunet COMMAND --help lists a command's options)

Autoregressive U-Nets on raw bytes: train them, and compare splitters across languages.

  init        write a small experiment to begin with: aunet init DIR
  fit         train:                       aunet fit -c experiments/quickstart.yaml
  validate    held-out bits per byte:      aunet validate -c CONFIG [--ckpt_path CKPT]
  test        the same, on the test files
  predict     bits of every test document, to predictions.jsonl in the run's folder
  score       bits of texts, by document and byte, from a checkpoint alone: aunet score CKPT TEXT.jsonl
  eval        what a model knows of characters and words, in items made from any text: aunet eval make FILES --out DIR
  compare     a grid of runs at equal cost, with a report: aunet compare -c experiments/compare/nonspace-short.yaml
  plan        widths, batch, learning rate and memory from a budget: aunet plan --flops 1e18 --bytes_per_unit 5
  runs        list the runs here, or what of them may be deleted: aunet runs --sort bpb; aunet runs clean
  export      a checkpoint's weights as one safetensors file: aunet export CKPT --out model.safetensors
  generate    text from a checkpoint:      aunet generate CKPT --prompt "All human"
  serve       generation, streams and scores over HTTP: aunet serve CKPT --port 5001
  split       show a text's units:         aunet split "Hello, 世界" --splitter script_aware
              or measure them:             aunet split --stats TEXT.jsonl --splitter trie --splitter whitespace
  data        look at text before a run trains on it: aunet data inspect FILES, aunet data check -c quickstart
              and deal it to training, validation and test: aunet data split FILES --out DIR
  splitters   list the splitters
  vocabulary  train one for --splitter trie: aunet vocabulary TEXT.jsonl --out my.json
  rate        find the options for a wanted rate: aunet rate --splitter script_aware --language th --bytes_per_unit 6
  entropy     find a threshold for --splitter entropy: aunet entropy CKPT TEXT.jsonl --bytes_per_unit 6
  calibrate   the same for a trained router: aunet calibrate CKPT TEXT.jsonl --bytes_per_unit 6 --out model.safetensors

A run keeps its configuration, checkpoints and MLflow id in one folder (runs/EXPERIMENT/NAME);
the same command again continues it. Another splitter: --splitter cjk_character
The tab key completes these words after: eval "$(aunet --print_completion bash)"      (or zsh)
"""
TRAINING = ("fit", "validate", "test", "predict")
LIGHT = {  # the other commands: a module of this package, loaded for it alone, and its function
    "generate": ("generate", "generate"),
    "export": ("export", "export"),
    "score": ("score", "score"),
    "eval": ("eval", "evaluate"),
    "serve": ("serve", "serve"),
    "split": ("split", "split"),
    "splitters": ("split", "splitters"),
    "vocabulary": ("split", "vocabulary"),
    "rate": ("rate", "find_rate"),
    "entropy": ("entropy", "find_threshold"),
    "calibrate": ("calibrate", "calibrate"),
    "compare": ("compare", "compare"),
    "plan": ("plan", "plan"),
    "init": ("init", "init"),
    "runs": ("runs", "runs"),
    "data": ("data", "data"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 success, 1 failure, 2 usage error, 128 + n signal n."""
    if argv is None and sys.getfilesystemencoding() != "utf-8":
        _again_in_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with guarded():
        return _main(arguments)


def _again_in_utf8() -> None:
    """Restarts this program with UTF-8 file names, whatever the locale; the terminal keeps its encoding."""
    terminal = f"{sys.stdout.encoding}:backslashreplace"
    os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING") or terminal}
    python = [sys.executable, "-X", "utf8", "-m", "aunet_lightning.cli.main"]
    os.execv(sys.executable, [os.fsencode(argument) for argument in (*python, *sys.argv[1:])])


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"aunet {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    # Waiting OpenMP threads spin, in vain where another program has the cores: 8 times slower with one busy
    # neighbour, 3 times with this limit (experiments/RESULTS.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if _is_installed():  # else child processes find the package only in this folder
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # nor do files here pass for modules in child processes
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Here)] + [_Here()]
    try:
        if command == "--print_completion":
            return _print_completion(*rest[:1])
        if command in (*TRAINING, "compare"):
            from aunet_lightning.cli.named import with_paths

            rest = with_paths(rest)
        if command in TRAINING:
            return _train([command, *rest])
        return _light(command, rest)
    except BrokenPipeError:  # the reader of the output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\naunet {command}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        from aunet_lightning.errors import report

        return report(error, f"aunet {command}" if command in TRAINING else "aunet")


class _Here:
    """Finds modules in the working folder, such as a user's splitters (module:Class), after all others: a file there
    may be named random.py, or splitters.py."""

    def __init__(self) -> None:
        self.folder = os.getcwd()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if path is not None else PathFinder.find_spec(name, [self.folder])


def _is_installed() -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution("aunet-lightning") is not None
    except PackageNotFoundError:
        return False


def _light(command: str, rest: list[str]) -> int:
    if command not in LIGHT:
        known = ", ".join([*TRAINING, *LIGHT])
        print(f"aunet: error: unknown command {command!r}: choose one of {known}", file=sys.stderr)
        return 2
    module, name = LIGHT[command]
    function = getattr(import_module(f"aunet_lightning.cli.{module}"), name)
    _plain_warnings()
    return int(function(rest, main) if command == "compare" else function(rest))


def _train(arguments: list[str]) -> int:
    _check_encoding(arguments)
    from aunet_lightning.loading import load_torchmetrics, without_collection

    with without_collection():
        load_torchmetrics()
        from aunet_lightning.cli.training import run
    _plain_warnings()
    return run(arguments)


def _plain_warnings() -> None:
    from aunet_lightning.errors import plain_warnings

    plain_warnings()


def _print_completion(shell: str = "") -> int:
    from aunet_lightning.cli.completion import print_completion

    train = {command: partial(lambda name, rest: _train([name, *rest]), command) for command in TRAINING}
    return print_completion(shell, train | {command: partial(_light, command) for command in LIGHT})


def _check_encoding(arguments: Sequence[str]) -> None:
    """Raises UserError for settings that are not UTF-8, which no configuration file can hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            from aunet_lightning.errors import UserError

            raise UserError(
                f"the argument {argument!r} is not UTF-8: rename the file, or write the setting in UTF-8"
            ) from None


if __name__ == "__main__":
    from aunet_lightning.cli.main import main as by_name  # which the jobs of a study, elsewhere, can import

    sys.exit(by_name())
