"""The command aunet export."""

import argparse

from aunet_lightning.paths import user_path


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
