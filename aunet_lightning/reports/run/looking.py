"""Looks at a model: what it makes of the same prompts and sentences at each validation, for the page of its run."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.generation import generate
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.reports.pictures import one_per_script
from aunet_lightning.reports.run.kept import Look, Reading
from aunet_lightning.terminal import printable
from aunet_lightning.training.boundaries import BoundaryMetric
from aunet_lightning.training.report_config import ReportConfig
from aunet_lightning.vocabulary import BOS

SENTENCES, CHARACTERS = 4, 80
LONG = 160  # characters of the text whose attention is shown
FIRST = ("Latin", "Thai", "Han", "Arabic", "Japanese", "Devanagari", "Cyrillic", "Hangul")  # where there are more


def sentences(data: ByteDataModule, most: int = SENTENCES, characters: int = CHARACTERS) -> list[tuple[str, bytes]]:
    """Returns (script, beginning of a held-out document), so many in all: one per script as far as there are some."""
    part = "val" if "val" in data.corpora else "train"
    n_scripts = len(one_per_script(data.first_texts(part)))
    each = max(most // n_scripts, 1)
    texts = one_per_script(data.first_texts(part, each), each, characters)
    rank = {script: place for place, script in enumerate(FIRST)}
    chosen = sorted(texts, key=lambda text: rank.get(text[0].split()[0], len(rank)))[:most]
    return [(script, text) for script, text in chosen if text]


def look(net: AUNet, reader: Reader, step: int, config: ReportConfig, readings: Sequence[Reading]) -> Look:
    """Returns the samples of the report's prompts, and where learned boundaries fall now."""
    prompts = [prompt.encode() for prompt in config.sample_prompts]
    sampled = config.sample_bytes, config.sample_temperature
    made = generate(net, reader, prompts, *sampled, valid_utf8=False) if prompts else []
    samples = [
        (printable(prompt), printable(text.decode("utf-8", "replace")))
        for prompt, text in zip(config.sample_prompts, made, strict=True)
    ]
    learned = readings if net.predictors else ()
    return Look(step, samples, {reading.text: reading.levels for reading in learned})


@torch.no_grad()
def read(net: AUNet, reader: Reader, name: str, text: bytes) -> Reading:
    """Reads a text as a document of its own."""
    ids = reader.encode([text])[0].astype(np.int64)
    row = torch.from_numpy(np.concatenate([[BOS], ids])).to(net.head.weight.device)
    output = net(row[None], state=net.initial_state(1, reader.stack))
    nats = F.cross_entropy(output.logits[0, :-1].double(), row[1:], reduction="none").cpu().numpy()
    sizes = reader.sizes[ids].astype(np.int64)
    bits = np.repeat(nats / math.log(2) / np.maximum(sizes, 1), sizes)
    bits = np.concatenate([bits, np.zeros(len(text))])[: len(text)]  # a vocabulary may lose bytes
    levels = output.levels[0, 1:].cpu().numpy() if reader.tokenizer is None else reader.levels(text)
    return Reading(name, text.decode("utf-8", "replace"), levels.tolist(), [round(bit, 3) for bit in bits.tolist()])


def unit_lengths(metric: BoundaryMetric) -> dict[str, dict[str, list[int]]]:
    """Returns stage → language → units of 0, 1, … bytes on the held-out text that a metric has read last."""
    found: dict[str, dict[str, list[int]]] = {}
    for stage, counts in zip(metric.names, metric.all_lengths, strict=False):
        by_language = {
            language: np.trim_zeros(of.astype(int), "b").tolist()
            for language, of in zip(metric.languages, counts, strict=False)
        }
        found[stage] = {language: of for language, of in by_language.items() if of}
    return found
