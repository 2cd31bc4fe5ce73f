"""The command aunet export."""

import argparse

from aunet_lightning.paths import user_path


def export(arguments: list[str]) -> int:
    """aunet export: writes a checkpoint's weights to one safetensors file, or to a folder to carry away."""
    parser = argparse.ArgumentParser(
        "aunet export",
        description="Write the weights of a checkpoint to one file, or to a folder with its configuration, vocabulary "
        "and model card.",
    )
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a run, a file or a folder")
    parser.add_argument(
        "--out", help="a FILE.safetensors, or the folder (default: MODEL.safetensors beside the run's config.yaml)"
    )
    options = parser.parse_args(arguments)
    from aunet_lightning.checkpoints import forms

    checkpoint = user_path(options.ckpt_path, "the checkpoint")
    beside = checkpoint.resolve().parent.parent / f"{checkpoint.stem}.safetensors"
    out = user_path(options.out, "--out") if options.out else beside
    if out.suffix and not out.is_dir() and not (options.out or "").endswith("/"):  # a file
        n_parameters = forms.export(checkpoint, out)
    else:
        from aunet_lightning.checkpoints.carried import export_folder
        from aunet_lightning.reports.model_card import model_card

        forms.check_complete(checkpoint)
        n_parameters = export_folder(checkpoint, out, model_card(checkpoint, out.resolve().name))
    print(f"{n_parameters:,} parameters: {out}")
    return 0
