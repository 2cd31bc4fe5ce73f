"""Runs begun by an earlier version, with a default it had: documents not masked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aunet_lightning.paths import user_path
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.definition import folder_of, kept_settings


def began_unmasked(settings: Mapping[str, Any], arguments: Sequence[str]) -> bool:
    """Returns whether these settings are those of a run begun when documents were not masked by default.

    Masking that `arguments`, or files of settings they name, mention is a choice and not a default.
    """
    net = settings["model"]["net"]
    if not net["document_masking"] or _mentions(arguments, "document_masking"):
        return False
    before = {**settings, "model": settings["model"] | {"net": net | {"document_masking": False}}}
    folders = [folder_of(before)]
    if settings.get("ckpt_path") not in (None, "last", "best"):
        folders.append(RunFolder.around(user_path(settings["ckpt_path"], "ckpt_path")))
    kept = [kept_settings(folder)["model"]["net"] for folder in folders if folder.config.exists()]
    return any(not of_run["document_masking"] for of_run in kept)


def _mentions(arguments: Sequence[str], word: str) -> bool:
    values = [argument.partition("=")[2] or argument for argument in arguments]
    files = [Path(value) for value in values if value.endswith((".yaml", ".yml"))]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return any(word in text for text in (*arguments, *texts))
