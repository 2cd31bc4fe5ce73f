"""The command aunet generate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from aunet_lightning.cli.options import add_device, add_option, device_of
from aunet_lightning.cli.texts import STDIN, standard_input
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import coloured, json_line, printable

if TYPE_CHECKING:
    from aunet_lightning.generation import Piece, Request, Sampling, Text
    from aunet_lightning.model.aunet import AUNet
    from aunet_lightning.reader.levels import Levels
    from aunet_lightning.reader.reader import Reader

SEEDS = Range(least=-(2**63), most=2**63 - 1)
OPTIONS = {  # of the command, which a line cannot have
    "bytes", "units", "stop", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "valid_utf8", "max_bytes",
}  # fmt: skip
OF_LINE = ("seed", "sample", "drawn")  # fields of a JSON line, beside its prompt, that say how it is continued


def generate(arguments: list[str]) -> int:
    """aunet generate: prints continuations of prompts."""
    options = _parser().parse_args(arguments)
    check("--seed", options.seed, SEEDS)
    check("--samples", options.samples, Range(least=1))
    check("--rows", options.rows, Range(least=1))
    if options.interactive and (options.prompts or options.prompt or options.file):
        raise ValueError("--interactive asks for prompts itself: leave out --prompt, --file and --prompts")
    if options.prompts and (options.prompt or options.file):
        raise ValueError("--prompts has all prompts: leave out --prompt and --file")
    lines = list(_lines(options.prompts)) if options.prompts else []
    if options.prompts and not lines:
        raise ValueError(f'--prompts {options.prompts} has no line: write {{"prompt": …}} on each')
    prompts = [*map(_prompt, options.prompt or []), *map(_of_file, options.file or [])] or [b""]

    from aunet_lightning.checkpoints.load import load
    from aunet_lightning.generation import Request, Sampling

    sampling = Sampling(
        options.bytes, options.units, options.temperature, options.top_k, options.top_p, options.min_p,
        options.repetition_penalty, tuple(stop.encode() for stop in options.stop or []), options.valid_utf8,
    )  # fmt: skip
    net, reader = load(options.ckpt_path)
    printer = _Printer(net.to(device_of(options.device)), reader, sampling, options)
    if options.interactive:
        return printer.converse()
    if options.prompts:
        return printer.answer(lines)
    return printer.show([Request(p, options.seed, n) for p in prompts for n in range(options.samples)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("aunet generate", description="Generate text from a checkpoint.")
    add = partial(add_option, parser)
    parser.add_argument(
        "ckpt_path", metavar="CKPT", help="a checkpoint of a run (file or folder), or what aunet export wrote"
    )
    add("--prompt", action="append", help="beginning of the text (-: standard input); may be repeated")
    add("--file", action="append", metavar="FILE", help="a file with the beginning of a text; may be repeated")
    add(
        "--prompts", metavar="FILE",
        help='JSON lines {"prompt": …} (-: standard input); each is written back as a line, with its text',
    )  # fmt: skip
    add("--interactive", action="store_true", help="ask for prompts; an empty one continues the text")
    add("--bytes", type=int, default=200, help="bytes to generate at most (default 200)")
    add("--units", type=int, help="units of stage 2 (words, groups; tokens) to begin at most")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    add("--samples", type=int, default=1, help="texts of each prompt (default 1)")
    add("--temperature", type=float, default=0.8, help="0 picks the most likely byte (default 0.8)")
    add("--top_k", type=int, help="keep only the K most likely bytes")
    add("--top_p", type=float, default=1.0, help="keep the fewest bytes that together have this probability")
    add("--min_p", type=float, default=0.0, help="leave out bytes below this share of the highest probability")
    add("--repetition_penalty", type=float, default=1.0, help="above 1 makes what the text has less likely (default 1)")
    add("--seed", type=int, default=0, help="another seed gives another text, the same one the same text (default 0)")
    add(
        "--valid_utf8", action=argparse.BooleanOptionalAction, default=True,
        help="take only bytes that continue well-formed text (default), and tell how much probability others had",
    )  # fmt: skip
    add("--show_units", action="store_true", help="show the units as they form")
    add("--color", choices=("auto", "always", "never"), default="auto", help="without colour, units are marked │ ║")
    add("--rows", type=int, default=32, help="texts that are continued at once (default 32)")
    add(
        "--draft", type=_draft, default=1, metavar="N",
        help="let stage 1 draft N bytes, which one call of all stages verifies: the same text; auto: as many as are "
        "fastest, or none (default 0: none)",
    )  # fmt: skip
    add_device(parser)
    add(
        "--compile", action="store_true",
        help="compile the steps, which takes a minute; one prompt is then continued several times as fast",
    )  # fmt: skip
    return parser


class _Printer:
    """Continues texts as the options ask, and prints them."""

    def __init__(self, net: AUNet, reader: Reader, sampling: Sampling, options: argparse.Namespace) -> None:
        self.net, self.reader, self.sampling, self.options = net, reader, sampling, options
        self.colours, self.drafts = coloured(options.color), ""

    def show(self, requests: Sequence[Request]) -> int:
        """Prints texts: one as it forms, several one after the other."""
        if len(requests) == 1:
            texts = [self.write(requests[0])]
        else:
            texts = []
            for text in self._in_order(requests):
                shown = self._shown()
                print(f"[{len(texts) + 1} of {len(requests)}]")
                print(shown.begun(text.request.prompt) + shown.more(text.text, text.levels, last=True), flush=True)
                texts.append(text)
        if self.sampling.valid_utf8 and self.sampling.max_bytes:
            share = fmean(text.removed for text in texts)
            what = f"{share:.2%} of the probability was of bytes that are not UTF-8 there, and was left out"
            print(f"aunet: {what}", file=sys.stderr)
        if self.drafts:
            print(self.drafts, file=sys.stderr)
        return 0

    def write(self, request: Request) -> Text:
        """Prints a text as it forms, and returns it."""
        shown = self._shown()
        print(shown.begun(request.prompt), end="", flush=True)
        for piece in self._stream([request]):
            print(shown.more(piece.text, piece.levels, last=piece.done is not None), end="", flush=True)
        print(flush=True)
        return cast("Text", piece.done)

    def answer(self, lines: Sequence[dict[str, Any]]) -> int:
        """Writes each JSON line back, with the text that follows its prompt."""
        from aunet_lightning.generation import Request

        requests, of = [], []
        for line in lines:
            for sample in range(self.options.samples):
                given = {"seed": self.options.seed} | {key: line[key] for key in OF_LINE if key in line}
                given["sample"] = given.get("sample", 0) + sample
                requests.append(Request(line["prompt"].encode("utf-8", "surrogateescape"), **given))
                of.append(line | ({"sample": given["sample"]} if self.options.samples > 1 else {}))
        for line, text in zip(of, self._in_order(requests), strict=True):
            result: dict[str, Any] = {"text": text.text.decode("utf-8", "surrogateescape"), "finish": text.finish}
            result |= {"removed": round(text.removed, 6)} if self.sampling.valid_utf8 else {}
            print(json_line(line | result | ({"levels": text.levels} if self.options.show_units else {})), flush=True)
        return 0

    def converse(self) -> int:
        """Asks for prompts until there is no more input; Ctrl-C ends a text."""
        from aunet_lightning.generation import Request

        with suppress(ImportError):
            import readline  # noqa: F401 (input() then has a history)
        print(
            f"A line is the beginning of a text of {self.sampling.max_bytes} more bytes, an empty one continues it. "
            "Ctrl-C stops a text, Ctrl-D ends.", file=sys.stderr,
        )  # fmt: skip
        text, drawn = b"", 0
        while True:
            try:
                line = input("» ").encode("utf-8", "surrogateescape")
                text, drawn = (line, 0) if line else (text, drawn)
                done = self.write(Request(text, self.options.seed, drawn=drawn))
                text, drawn = done.whole, drawn + len(done.text)
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:  # of a text, or of a line
                print()

    def _stream(self, requests: Sequence[Request]) -> Iterator[Piece]:
        from aunet_lightning.generation import DraftingBatch, batch_of

        options, rows = self.options, min(self.options.rows, len(requests))
        given = options.show_units, options.compile, options.draft
        batch = batch_of(self.net, self.reader, self.sampling, rows, *given)
        yield from batch.run(requests)
        if isinstance(batch, DraftingBatch):
            self.drafts = f"aunet: {batch.drafts}"

    def _in_order(self, requests: Sequence[Request]) -> Iterator[Text]:
        """Yields the texts in the order of their requests, each once it and those before it are finished."""
        done: dict[int, Text] = {}
        next_ = 0
        for piece in self._stream(requests):
            if piece.done is not None:
                done[piece.number] = piece.done
            while next_ in done:
                yield done.pop(next_)
                next_ += 1

    def _shown(self) -> _Shown:
        from aunet_lightning.reader.model_units import units_of

        return _Shown(units_of(self.net, self.reader) if self.options.show_units else None, self.colours)


class _Shown:
    """A text as it is printed: piece by piece, in whole characters, with its units where they are given."""

    def __init__(self, units: Levels | None, colours: bool) -> None:
        self.units, self.colours = units, colours
        self._held, self._begun = b"", [0] * 5
        self._levels: list[int] = []

    def begun(self, prompt: bytes) -> str:
        """Returns what is printed of a prompt."""
        return self.more(prompt, self.units.levels(prompt).tolist() if self.units and prompt else [])

    def more(self, text: bytes, levels: Sequence[int], last: bool = False) -> str:
        """Returns what is printed of some more text. last: nothing follows."""
        from aunet_lightning.generation.utf8 import incomplete

        text, levels = self._held + text, [*self._levels, *levels]
        end = len(text) if last else len(text) - incomplete(text)
        (text, self._held), (levels, self._levels) = (text[:end], text[end:]), (levels[:end], levels[end:])
        if self.units is None:
            return printable(text.decode("utf-8", "replace"))
        from aunet_lightning.reports.pictures import Given, as_colours, as_line

        given = Given(levels, self.units.depth)
        return as_colours(text, given, self._begun) if self.colours else as_line(text, given)


def _draft(given: str) -> int | None:
    """Returns how many bytes are drafted at once; None: as many as are fastest."""
    if given == "auto":
        return None
    try:
        check("--draft", found := int(given), Range(least=0, most=1024))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number from 0 to 1024, nor auto") from None
    return max(found, 1)


def _prompt(given: str) -> bytes:
    """Returns a prompt's bytes, of standard input and files without the last end of line, as a shell's $(…) does."""
    if given == STDIN:
        return _without_end(standard_input())
    return given.encode("utf-8", "surrogateescape")


def _without_end(text: bytes) -> bytes:
    return text.removesuffix(b"\n").removesuffix(b"\r") if text.endswith(b"\n") else text


def _of_file(name: str) -> bytes:
    path = user_path(name, "--file")
    if not path.is_file():
        raise ValueError(f"--file {name} is not a file (looked from {Path.cwd()})")
    return _without_end(path.read_bytes())


def _lines(name: str) -> Iterator[dict[str, Any]]:
    """Yields JSON lines with a prompt. Raises ValueError for a line that is not one."""
    path = user_path(name, "--prompts")
    if name != STDIN and not path.is_file():
        raise ValueError(f"--prompts {name} is not a file (looked from {Path.cwd()})")
    data = standard_input() if name == STDIN else path.read_bytes()
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"--prompts {name}, line {number}"
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f'{where} is not JSON ({error}): write {{"prompt": "…"}} on each line') from None
        if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
            raise ValueError(f'{where} has no prompt that is a text: write {{"prompt": "…"}} on each line')
        if shared := sorted(found.keys() & OPTIONS):
            ignored = f"{', '.join(shared)} is ignored here: give it as an option of the command, for all lines"
            print(f"aunet: warning: {where}: {ignored}", file=sys.stderr)
        for key in OF_LINE:
            check(f"{where}: {key}", found.get(key, 0), SEEDS if key == "seed" else Range(least=0), whole=True)
        yield found
