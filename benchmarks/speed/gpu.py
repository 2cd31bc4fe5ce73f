"""The speed of training and of generation on one GPU: the published configurations, and the networks of `make bench`.

make bench-gpu        or: python -m benchmarks.speed.gpu [--model experiments/models/aunet3_1b.yaml] [--device cuda]

The paper names 225, 180 and 155 kB a second per H100 for AU-Net 2, 3 and 4 with 1 B parameters; utilisation is the
FLOPs that `Cost` counts, forward and backward, of those that the device can do in bfloat16. `--device cpu` tries the
command itself, on a model that a CPU can hold.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml

from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.costs import Cost
from aunet_lightning.generation import generate
from aunet_lightning.reader.reader import ByteReader
from benchmarks.speed.__main__ import HERE, ROOT, description
from benchmarks.speed.bar import Bar
from benchmarks.speed.worker import CASES, text

MODELS = {"aunet2_1b": 225e3, "aunet3_1b": 180e3, "aunet4_1b": 155e3}  # bytes a second per H100, as published
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}  # dense bfloat16 FLOPs a second
UTILISED = 0.5
STEPS, FIRST = 12, 4  # steps of a measurement, and those before it counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", help="a model's YAML; none: all that were published")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no GPU that PyTorch can use; --device cpu tries the command on a small model")
    machine = description("none") | device_description(options.device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    found = list[Bar]()
    for path in options.model or [ROOT / "experiments" / "models" / f"{name}.yaml" for name in MODELS]:
        found += show(model_bars(path, options.device, not options.no_compile))
    found += show(generation_bars(options.device))
    out = HERE / f"bench-gpu-{machine['commit']}.json"
    out.parent.mkdir(exist_ok=True)
    bars = [asdict(bar) | {"met": bar.met} for bar in found]
    out.write_text(json.dumps({**machine, "bars": bars}, indent=1), encoding="utf-8")
    print(f"{sum(bar.met for bar in found)} of {len(found)} bars are met; all figures are in {out}")


def show(bars: list[Bar]) -> list[Bar]:
    for bar in bars:
        print(f"{'met ' if bar.met else 'MISS'}  {bar.name:<60} {bar.value:>10.4g} {bar.unit}   bound {bar.bound:.4g}")
    return bars


def device_description(device: str) -> dict[str, str]:
    if device == "cpu":
        return {"device": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {"device": properties.name, "memory": f"{properties.total_memory / 1e9:.0f} GB", "cuda": torch.version.cuda}


def model_bars(path: Path, device: str, compiled: bool) -> list[Bar]:
    """Trains a model on as many rows as fit, compiled, in bfloat16 with float32 weights."""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = 32
    while True:
        try:
            detail = train(settings, rows, device, compiled)
            break
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if rows == 1:
                raise
            rows //= 2
    name = path.stem
    peak = next(
        (peak for kind, peak in PEAKS.items() if device == "cuda" and kind in torch.cuda.get_device_name()), None
    )
    bars = [
        Bar(f"{name}, bytes a second", detail["bytes_per_second"], MODELS.get(name, 0.0), unit="B/s", detail=detail)
    ]
    if peak is not None:
        bars.append(Bar(f"{name}, utilisation", detail["flops_per_second"] / peak, UTILISED, unit=""))
    return bars


def train(settings: dict[str, Any], rows: int, device: str, compiled: bool) -> dict[str, float]:
    """Returns bytes, FLOPs and seconds of a step."""
    reader = ByteReader([settings["splitter"], *settings["upper_splitters"]])
    config, length = AUNetConfig(**settings["model"]["net"]), settings["data"]["row_bytes"]
    data = text(STEPS * rows * (length + 1))
    ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(STEPS, rows, length + 1).long()
    levels = torch.from_numpy(reader.stack.levels(data).copy()).view(STEPS, rows, length + 1)
    with torch.device(device):
        net = AUNet(config, reader.stack)
    if compiled:
        net.compile()
    cost, optimizer = Cost(net), torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    seconds, flops = [], []
    for k in range(STEPS):
        split = levels[k, :, :-1]
        units = [[1 + int((row[1:] > s).sum()) for row in split] for s in range(config.depth)]
        here, split, following = (x.to(device) for x in (ids[k, :, :-1], split, ids[k, :, 1:]))
        wait(device)
        begin = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            logits = net(here, split, rooms=net.rooms_for(units)).logits
        F.cross_entropy(logits.flatten(0, 1).float(), following.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait(device)
        seconds.append(time.perf_counter() - begin)
        flops.append(float(cost.step_flops(torch.tensor([[length] * rows, *units]).T)))
    second = statistics.median(seconds[FIRST:])
    return {
        "seconds": second,
        "rows": rows,
        "bytes_per_second": rows * length / second,
        "flops_per_second": statistics.median(flops[FIRST:]) / second,
        "peak_memory": float(torch.cuda.max_memory_allocated()) if device == "cuda" else 0.0,
    }


def generation_bars(device: str) -> list[Bar]:
    """Bytes a second of the networks of `make bench`, alone and 32 at once."""
    bars = []
    for case in ("two", "three"):
        with torch.device(device):
            net = AUNet(AUNetConfig(CASES[case]["stages"])).eval()
        rates = []
        for batch in (1, 32):
            prompts = [text(200)] * batch
            generate(net, ByteReader(CASES[case]["rules"]), prompts, 10)
            begin = time.perf_counter()
            made = generate(net, ByteReader(CASES[case]["rules"]), prompts, 200)
            rates.append(sum(len(one) - 200 for one in made) / (time.perf_counter() - begin))
        detail = {"batch 1, bytes a second": rates[0], "batch 32": rates[1]}
        bars.append(Bar(f"generation, {case} stages, batch 32 to batch 1", rates[1] / rates[0], 10.0, detail=detail))
    return bars


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
