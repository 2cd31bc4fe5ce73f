"""What drafts save: text of a trained model with and without them, by language.

    python -m benchmarks.drafts CKPT FILE…    prints a JSON line per file (JSON lines of text) and length of drafts

Texts go on after the first bytes of documents. Lengths alternate; times are ratios to none, medians over documents.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from aunet_lightning.checkpoints.load import load
from aunet_lightning.data.documents import Report
from aunet_lightning.data.sources import Source
from aunet_lightning.generation import DraftingBatch, Request, Sampling

LENGTHS = (1, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--bytes", type=int, default=600)
    parser.add_argument("--prompt_bytes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5, help="documents of each file")
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net, reader = load(options.ckpt)
    sampling = Sampling(options.bytes, temperature=options.temperature)
    for file in options.files:
        documents = [one.text for one in Source(Path(file), Path(file).stem).documents(Report())]
        prompts = [text[: options.prompt_bytes] for text in documents if len(text) >= options.prompt_bytes]
        seconds: dict[int, list[float]] = {length: [] for length in LENGTHS}
        drafts = {}
        for number, prompt in enumerate(prompts[: options.rounds]):
            texts = set()
            for length in LENGTHS:
                batch = DraftingBatch(net, reader, sampling, 1, draft=length)
                batch.join(0, Request(prompt, number))
                pieces = batch.step()  # reads the prompt
                begin = time.perf_counter()
                while not batch.empty:
                    pieces += batch.step()
                seconds[length].append(time.perf_counter() - begin)
                texts.add(b"".join(piece.text for piece in pieces))
                drafts.setdefault(length, []).append(batch.drafts)
            assert len(texts) == 1, "drafts changed a text"
        for length in LENGTHS:
            of = drafts[length]
            passes = [*zip(*(one.passes for one in of), strict=True)]
            made, ids = sum(one.made for one in of), sum(one.ids for one in of)
            line = {
                "file": Path(file).name, "draft": length, "bytes": ids,
                "time": round(median(a / b for a, b in zip(seconds[length], seconds[1], strict=True)), 3),
                "accepted": round(sum(one.accepted for one in of) / made, 3) if made else None,
                "calls_per_100_bytes": [round(100 * sum(n) / ids, 1) for n in passes],
            }  # fmt: skip
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
