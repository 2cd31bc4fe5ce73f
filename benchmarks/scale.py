"""Computes memory and communication of FSDP2: the tables of docs/scale.md.    python benchmarks/scale.py

Per device and step, for the published models on rows of 8192 bytes with the units that docs/plan.md measures.
"""

import argparse
from pathlib import Path

import yaml

from aunet_lightning.costs import Cost, memory
from aunet_lightning.model.config import AUNetConfig

MODELS = Path(__file__).parent.parent / "experiments" / "models"
RATES = [5.09, 8.38, 12.37]  # bytes per unit of stages 2, 3 and 4
ROW = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flops", type=float, default=400e12, help="FLOP/s of a device (an H100 at 40 %%)")
    parser.add_argument("--between", type=float, default=50e9, help="bytes/s per device between hosts (400 Gbit/s)")
    parser.add_argument("--within", type=float, default=300e9, help="bytes/s per device within a host (NVLink)")
    parser.add_argument("--per_host", type=int, default=8)
    options = parser.parse_args()
    print("| model | devices | rows each | weights, gradients, moments | gathered | activations | recomputed | "
          "gets per step | computes | waits at least |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    ends = []
    for name in ("aunet2_1b", "aunet3_1b", "aunet4_1b", "aunet2_8b"):
        settings = yaml.safe_load((MODELS / f"{name}.yaml").read_text(encoding="utf-8"))
        rules = [settings["splitter"], *settings["upper_splitters"]]
        config = AUNetConfig(**settings["model"]["net"])
        cost, rates = Cost.of(config, rules), RATES[: len(rules)]
        positions = cost.positions(ROW, rates)
        parts = cost.parts(positions)
        of_stage = [sum(v for k, v in parts.items() if k.startswith(f"stage{s + 1}/")) for s in range(len(rates) + 1)]
        again = [True] * len(of_stage)
        for devices in (8, 64, 512):
            rows = max(settings["data"]["batch_rows"] // devices, 1)
            usual, less = (
                memory(config, positions.tolist(), rows, rules, "bf16-mixed", devices, r) for r in ([], again)
            )
            bandwidth = options.within if devices <= options.per_host else options.between
            traffic = cost.traffic(devices, "bf16-mixed")
            computes = [rows * flops / options.flops for flops in of_stage]
            waits = sum(max(t / bandwidth - c, 0) for t, c in zip(traffic, computes, strict=True))
            held = usual.parameters + usual.gradients + usual.optimizer
            print(
                f"| {name} | {devices} | {rows} | {held / 1e9:.1f} GB | {usual.gathered / 1e9:.1f} | "
                f"{usual.activations / 1e9:.0f} | {less.activations / 1e9:.0f} | {sum(traffic) / 1e9:.1f} GB | "
                f"{sum(computes):.2f} s | {waits:.2f} s |"
            )
        traffic = cost.traffic(10**9, "bf16-mixed")
        ends.append(
            (name, [t / options.between / (flops / options.flops) for t, flops in zip(traffic, of_stage, strict=True)])
        )
    print("\nRows that a device must read at once for a stage to compute as long as its weights take to arrive:\n")
    print("| model | stage 1 | stage 2 | stage 3 | stage 4 |\n|---|---:|---:|---:|---:|")
    for name, rows in ends:
        print(f"| {name} | " + " | ".join(f"{n:.2f}" for n in rows) + " |" + " |" * (4 - len(rows)))


if __name__ == "__main__":
    main()
