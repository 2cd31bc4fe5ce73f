"""One folder to carry away: weights, a configuration, the files that splitters need, and a model card.

Everything in it is text, JSON or safetensors: reading it runs no code of the folder's.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aunet_lightning import __version__
from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import FILES, WEIGHTS, export, read, rename_into_place, write_export
from aunet_lightning.checkpoints.load import load
from aunet_lightning.errors import UserError
from aunet_lightning.paths import PART, remove, user_path
from aunet_lightning.vocabulary import BOS, EOS
from splitters.registry import SPLITTERS

CONFIG, CARD, VOCABULARY = "config.json", "README.md", "vocabulary.json"
CODE = "modeling_aunet"  # what `transformers` imports with trust_remote_code
AUTO = {  # classes of `transformers` → ours
    "AutoConfig": "AUNetHFConfig", "AutoModelForCausalLM": "AUNetForCausalLM", "AutoTokenizer": "AUNetTokenizer"
}  # fmt: skip


def export_folder(checkpoint: Path, out: Path, card: str) -> int:
    """Writes a checkpoint as a folder, with the text of its model card; returns the number of parameters.

    The folder appears complete or not at all. Raises UserError for one that exists and is not an export, and where the
    splitters no longer place the checkpoint's boundaries.
    """
    if out.exists() and not (out / WEIGHTS).is_file():
        raise UserError(f"--out: {out} exists, and aunet export did not write it: name a folder that does not exist")
    made, part = read(checkpoint, optimizer=False), out.with_name(out.name + PART)
    remove(part)
    part.mkdir(parents=True)
    try:
        files = list(_carried(made["splitters"], (), part))
        n_parameters = write_export(made | {FILES: files}, part / WEIGHTS)
        load(part)  # what is carried away can be read, and places the same boundaries
        contents = Contents.from_dict(made)
        (part / CONFIG).write_text(json.dumps(_config(contents), indent=1) + "\n", encoding="utf-8")
        (part / CARD).write_text(card, encoding="utf-8")
        (part / f"{CODE}.py").write_text(f"from aunet_lightning.hf import {', '.join(AUTO.values())}\n")
        tokenizer: dict[str, Any] = {"tokenizer_class": AUTO["AutoTokenizer"]}
        tokenizer |= {"auto_map": {"AutoTokenizer": [_code("AutoTokenizer"), None]}}
        (part / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1) + "\n", encoding="utf-8")
        if contents.tokenizer is not None:
            (part / VOCABULARY).write_text(contents.tokenizer, encoding="utf-8")
        rename_into_place(part, out)
    finally:
        remove(part)
    return n_parameters


def _code(auto: str) -> str:
    return f"{CODE}.{AUTO[auto]}"


def _config(contents: Contents) -> dict[str, Any]:
    return {
        "model_type": "aunet",
        "architectures": [AUTO["AutoModelForCausalLM"]],
        "auto_map": {auto: _code(auto) for auto in AUTO if auto != "AutoTokenizer"},
        "vocab_size": contents.net.vocabulary,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "net": asdict(contents.net),
        "splitters": list(contents.splitters),
        "boundaries": contents.fingerprint,
        "step": contents.global_step,
        "aunet_lightning": __version__,
    }


def _carried(value: Any, place: tuple[str | int, ...], folder: Path) -> Iterator[list[str | int]]:
    """Copies the files that splitters name into the folder, puts their new names in place of their paths, and yields
    where these are."""
    if isinstance(value, Mapping):
        options: Any = value
        for option in _file_options(value.get("name")):
            if options.get(option) is not None:
                source = user_path(options[option], option)
                options[option] = _copied(source, folder / "-".join(["splitter", *map(str, place), option]))
                yield [*place, option]
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(inner, Mapping | list):
            yield from _carried(inner, (*place, key), folder)


def _file_options(name: Any) -> Sequence[str]:
    """Returns the options of a splitter that name files; none where there is no splitter of that name."""
    try:
        return getattr(SPLITTERS.class_of(name), "files", ()) if isinstance(name, str) else ()
    except ValueError:
        return ()


def _copied(source: Path, target: Path) -> str:
    """Copies a file, a checkpoint as its weights, and returns the name of the copy."""
    if source.suffix == ".json":
        target = target.with_name(target.name + ".json")
        shutil.copyfile(source, target)
    else:
        target = target.with_name(target.name + ".safetensors")
        export(source, target)
    return target.name
