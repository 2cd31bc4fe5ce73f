"""The model card of an export: what the model is, what it was trained on, how good it is, and how to use it."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import read_metadata
from aunet_lightning.data.json_lines import licences
from aunet_lightning.tracking.run_folder import TABLE, RunFolder

USE = """## Use
```python
from aunet_lightning import AUNet
from aunet_lightning.generation import generate

net = AUNet.from_pretrained("{name}")  # this folder
print(generate(net, net.reader, ["All human ".encode()], 100)[0].decode())
```
It needs the package aunet-lightning. On the command line: `aunet generate {name} --prompt "All human "`.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
```"""


def model_card(checkpoint: Path, name: str) -> str:
    """Returns a checkpoint's card as Markdown with metadata, from what its run folder has; name: of the export."""
    contents, run = Contents.from_dict(read_metadata(checkpoint)), RunFolder.around(checkpoint)
    data = _json(run.data).get("train", {})
    files = list(map(str, data.get("files", [])))
    of_files = {file: sorted(licences(Path(file))) for file in files}
    named = sorted({licence for of in of_files.values() for licence in of})
    metadata = {
        "library_name": "aunet-lightning",
        "pipeline_tag": "text-generation",
        "tags": ["byte-level", "autoregressive-unet"],
        "language": data.get("languages", []),
    } | ({"license": named[0].lower() if len(named) == 1 else "other"} if named else {})
    parts = [f"---\n{yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False)}---", f"# {name}", _what(contents)]
    parts.append(USE.format(name=name))
    if data:
        rows = [f"| {language} | {n:,} |" for language, n in data.get("bytes_by_language", {}).items()]
        total = f"{data.get('documents', 0):,} documents, {data.get('bytes', 0):,} bytes."
        parts.append("\n".join(["## Training text", total, "", "| language | bytes |", "|---|---:|", *rows]))
        said = [f"- `{file}`: {', '.join(of_files[file])}" for file in files if of_files[file]]
        none = f"{len(files) - len(said)} of {len(files)} files name no licence in their lines (`license`)"
        where = sorted({os.path.dirname(file) or "." for file in files if not of_files[file]})
        none += f": see {', '.join(f'`{folder}`' for folder in where)}." if where else "."
        parts.append("\n".join([*(["Licences that lines name:", *said, ""] if said else []), none]))
    table = run.path / TABLE
    if table.is_file():
        held_out = _json(run.data).get("val", {})
        parts.append("## Bits per byte of validation text")
        if held_out:
            parts.append(f"Of {held_out.get('documents', 0):,} documents, {held_out.get('bytes', 0):,} bytes.")
        parts.append(table.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _what(contents: Contents) -> str:
    net, stages = contents.net, contents.net.stages
    widths = ", ".join(str(stage.dim) for stage in stages)
    read = f"tokens of a BPE with {net.vocabulary:,} entries" if contents.tokenizer is not None else "bytes"
    lines = [
        f"An autoregressive U-Net (AU-Net, arXiv 2506.14761) with {len(stages)} stages of width {widths}"
        if len(stages) > 1
        else f"A transformer of width {widths}",
        f" that reads {read}",
        f", trained for {contents.global_step:,} steps",
        f" ({contents.spent['flops']:.3g} FLOPs)" if contents.spent.get("flops") else "",
        ".",
    ]
    shown = enumerate((json.dumps(rule, ensure_ascii=False) for rule in contents.splitters), 1)
    rules = "".join(f"\n- stage {s} → {s + 1}: `{rule}`" for s, rule in shown)
    return "".join(lines) + (f"\n\nSplitters, which place its units:{rules}" if rules else "")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
