"""The command `aunet calibrate`: sets how often a trained learned splitter cuts, so that text gets a wanted rate."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from aunet_lightning.checkpoints.forms import read, write_export
from aunet_lightning.checkpoints.load import load
from aunet_lightning.cli.texts import FORMATS, MEGABYTES_RANGE, Text, add_texts, by_language, measured_texts
from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.deciders import Learned
from aunet_lightning.model.state import StageState
from aunet_lightning.model.units import Stream
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reports.table import aligned
from splitters.learned.predictor import Predictor


class Noting(Learned):
    """Decides as the predictor does, and notes the log-odds by which it decides."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.noted: list[Tensor] = []

    def log_odds(self, h: Tensor, stream: Stream, past: StageState | None) -> Tensor:
        found = super().log_odds(h, stream, past)
        self.noted.append(found[stream.open & stream.valid])
        return found


def calibrate(arguments: list[str]) -> int:
    """`aunet calibrate`: writes the weights with another bias, and prints the rates before and after."""
    options = _parser().parse_args(arguments)
    check("--bytes_per_unit", options.bytes_per_unit, Range(above=1, most=1e6))
    check("--megabytes", options.megabytes, MEGABYTES_RANGE)
    path = user_path(options.ckpt_path, "the checkpoint")
    out = user_path(options.out, "--out")
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}: its name must end in .safetensors")
    net, reader = load(path)
    learned = [(stage.s, stage.predictor) for stage in net.stages if stage.predictor is not None]
    if not learned:
        raise UserError(f"{path} has no learned splitter, and rules cut where they cut: aunet rate finds their options")
    s, predictor = learned[0]
    texts = measured_texts(options.text, options.megabytes)
    others = measured_texts(options.check, options.megabytes, must_exist=True) if options.check else []
    noting, units = Noting(predictor), ModelUnits(net, reader)
    before = [_units(ModelUnits(net, reader, {s: noting}), s, texts), _units(units, s, others)]
    _place(predictor, torch.cat(noting.noted), sum(len(text.data) for text in texts), options.bytes_per_unit)
    for title, of, found in zip(("text", "other text"), (texts, others), before, strict=True):
        if of:
            print("\n".join([*_table(title, of, found, _units(units, s, of)), ""]))
    print(f"{_write(path, net, predictor, out):,} parameters, bias {predictor.bias.item():.3f}: {out}")
    return 0


def _place(predictor: Predictor, log_odds: Tensor, n_bytes: int, bytes_per_unit: float) -> None:
    """Sets the bias so that n_bytes have `bytes_per_unit` bytes to a unit that begins inside them, by the log-odds
    [M] of a boundary in them. Raises UserError where that takes none of these places, or more of them."""
    wanted = round(n_bytes / bytes_per_unit)
    if not 1 <= wanted < len(log_odds):
        raise UserError(
            f"--bytes_per_unit is {bytes_per_unit:g}, {wanted} units of this text, in which the splitter decides at "
            f"{len(log_odds)} places: give more text, or another length"
        )
    predictor.calibrates = True  # whatever training asked for
    predictor.place(log_odds, wanted)


def _units(units: ModelUnits, s: int, texts: Sequence[Text]) -> list[int]:
    return [int((units.levels(text.data) > s).sum()) for text in texts]


def _table(title: str, texts: Sequence[Text], *found: Sequence[int]) -> list[str]:
    """Returns bytes per unit of all text and of each language, before and after, a line each."""
    rows = [[title, "bytes", "bytes/unit before", "after"]]
    for language, mine in by_language(texts):
        n_bytes = sum(len(texts[i].data) for i in mine)
        rates = [n_bytes / max(sum(units[i] for i in mine), 1) for units in found]
        rows.append([language, str(n_bytes), *(f"{rate:.2f}" for rate in rates)])
    return aligned(rows, left=(title,))


def _write(path: Path, net: AUNet, predictor: Predictor, out: Path) -> int:
    made = read(path, optimizer=False)
    name = next(name for name, buffer in net.named_buffers() if buffer is predictor.bias)
    made["state_dict"][f"net.{name}"] = predictor.bias
    return write_export(made, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet calibrate",
        description="Set how often a trained router (or another learned splitter) cuts, so that text gets units of a "
        "wanted mean length. The weights are those of the checkpoint but for one number, the splitter's bias.",
        epilog=f"{FORMATS}, as for aunet split.",
    )
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint with a learned splitter; of several the lowest")
    add_texts(parser)
    parser.add_argument("--bytes_per_unit", type=float, required=True, help="the wanted rate, above 1")
    parser.add_argument("--check", nargs="+", metavar="FILE", help="other text, whose rate is shown too")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="where the weights go")
    return parser
