"""The commands aunet generate and aunet export."""

import argparse

from aunet_lightning.cli.texts import STDIN, standard_input
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import printable


def generate(arguments: list[str]) -> int:
    """aunet generate: prints continuations of prompts."""
    parser = argparse.ArgumentParser("aunet generate", description="Generate text from a checkpoint.")
    parser.add_argument(
        "ckpt_path", metavar="CKPT", help="a checkpoint of a run (file or folder), or what aunet export wrote"
    )
    parser.add_argument("--prompt", action="append", help="beginning of the text (-: standard input); may be repeated")
    parser.add_argument("--bytes", type=int, default=200, help="bytes to generate (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 picks the most likely byte (default 0.8)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text")
    parser.add_argument(
        "--compile", action="store_true",
        help="compile the steps: a minute, after which one prompt is continued several times as fast",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    from aunet_lightning import generation
    from aunet_lightning.checkpoints.load import load
    from aunet_lightning.numbers import Range, check

    check("--seed", options.seed, Range(least=-(2**63), most=2**63 - 1))

    prompts = [_prompt(prompt) for prompt in options.prompt or [""]]
    net, reader = load(options.ckpt_path)
    given = options.bytes, options.temperature, options.seed, options.compile
    for text in generation.generate(net, reader, prompts, *given):
        print(printable(text.decode("utf-8", "replace")))
    return 0


def _prompt(given: str) -> bytes:
    """Returns a prompt's bytes. Of standard input the last end of line is left out, as a shell's $(…) does."""
    if given == STDIN:
        text = standard_input()
        return text.removesuffix(b"\n").removesuffix(b"\r") if text.endswith(b"\n") else text
    return given.encode("utf-8", "surrogateescape")


def export(arguments: list[str]) -> int:
    """aunet export: writes a checkpoint's weights to one safetensors file."""
    parser = argparse.ArgumentParser("aunet export", description="Write the weights of a checkpoint to one file.")
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a run, a file or a folder")
    parser.add_argument("--out", help="the file (default: MODEL.safetensors beside the run's config.yaml)")
    options = parser.parse_args(arguments)
    from aunet_lightning.checkpoints import forms

    checkpoint = user_path(options.ckpt_path, "the checkpoint")
    beside = checkpoint.resolve().parent.parent / f"{checkpoint.stem}.safetensors"
    out = user_path(options.out, "--out") if options.out else beside
    print(f"{forms.export(checkpoint, out):,} parameters: {out}")
    return 0
