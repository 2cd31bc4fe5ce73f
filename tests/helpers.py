"""What several test files use: paths, small models, small runs and what they have logged."""

import itertools
import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from aunet_lightning import AUNet, AUNetConfig, ByteDataModule, StageConfig
from aunet_lightning.cli.main import main
from aunet_lightning.model.embedding import Table
from aunet_lightning.study.results import CellResult, StudyResult
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack

ROOT = Path(__file__).parent.parent
UDHR = ROOT / "experiments" / "data" / "udhr"
GOLDEN = Path(__file__).parent / "golden"
UPPER = {"name": "every", "n": 2}
N_STAGES = (1, 2, 3, 4)
MIXED = "All human: 12345.\nคน 人々は、ABC. मनुष्य é̂ 자유 🤝🏽 x\r\n".encode()

SETTINGS = {
    "seed_everything": 3,
    "splitter": "whitespace",
    "upper_splitters": [{"name": "every", "n": 2}],
    "data": {
        "train_files": [str(UDHR / "en.jsonl"), str(UDHR / "th.jsonl")],
        "holdout_every": 10,
        "row_bytes": 128,
        "batch_rows": 16,
        "workers": 1,
    },
    "model": {
        "net": {
            "stages": [
                {"dim": 16, "layers": 1, "head_dim": 8, "window": 16},
                {"dim": 16, "layers": 1, "head_dim": 8},
                {"dim": 16, "layers": 1, "head_dim": 8},
            ]
        },
        "optimizer": {"lr": 0.01, "warmup_steps": 5},
    },
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 40,
        "log_every_n_steps": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 20,
        "enable_progress_bar": False,
        "deterministic": True,
    },
    "run": {"experiment": "tests", "checkpoint_every": 7, "log_model": False},  # which takes a second
    "report": {"ngrams": [3], "sample_prompts": ["All "], "sample_bytes": 10, "generated_bytes": 8},
}

WORDS = ["river", "bread", "salt", "mill", "garden", "rain", "people", "small", "while", "past", "spoke", "the", "of"]
TINY = {
    "seed_everything": 1,
    "splitter": "whitespace",
    "upper_splitters": [],
    "data": {"train_files": ["en.jsonl"], "holdout_every": 4, "row_bytes": 64, "batch_rows": 2, "workers": 0},
    "model": {
        "net": {"stages": [{"dim": 16, "layers": 1, "head_dim": 8, "window": 16}, {"dim": 16, "layers": 1, "head_dim": 8}]},
        "optimizer": {"lr": 0.003, "warmup_steps": 2},
    },
    "trainer": {
        "accelerator": "cpu", "max_steps": 6, "check_val_every_n_epoch": None, "val_check_interval": 3,
        "log_every_n_steps": 1, "enable_progress_bar": False,
    },
    "run": {"experiment": "t", "checkpoint_every": 2, "log_model": False},
    "report": {"ngrams": [], "generated_bytes": 0, "page": False},  # which takes longer than such a run
}  # fmt: skip

# Of rows of 80 whose second document begins at 37: single bytes at the beginning, and where that begins.
MIXED_CHUNKS = [*[1] * 12, 7, 17, *[1] * 8, 36]
BYTES = st.one_of(st.binary(max_size=60), st.text(max_size=30).map(str.encode))


def stack_of(splitter: str, stages: int) -> Stack:
    """The splitter with `every` above it, for a model of so many stages."""
    return Stack([splitter, UPPER, UPPER][: stages - 1])


def tiny(stages: int = 3, **options) -> AUNetConfig:
    """A model that a test can afford: windows shorter than the row, every stage of another width."""
    shapes = [(16, 2, 4), (24, 1, 3), (16, 1, 2), (8, 2, None)]
    made = [
        StageConfig(dim=dim, layers=layers, head_dim=8, window=window) for dim, layers, window in shapes[: stages - 1]
    ]
    deepest = shapes[stages - 1]
    return AUNetConfig(stages=[*made, StageConfig(dim=deepest[0], layers=2, head_dim=8)], **options)


def tiny_model(config: AUNetConfig, seed: int = 0, stack: Stack | tuple = ()) -> AUNet:
    torch.manual_seed(seed)
    return as_trained(AUNet(config, stack))


def as_trained(net: AUNet) -> AUNet:
    """The network with weights drawn that begin as 0 or 1, so that they make a difference."""
    for module in net.modules():
        if isinstance(module, torch.nn.RMSNorm | Table):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def aunet(*arguments):
    """Runs a command in this process; returns its exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as done:
        return done.code


def points(folder):
    """{(step, metric): value}; a point logged twice fails."""
    found = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        for key, value in point["metrics"].items():
            assert (point["step"], key) not in found
            if not key.startswith(("perf/", "cost/")):  # of this machine, of each device
                found[point["step"], key] = value
    return found


def sentences(seed: int, n: int = 40) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choice(WORDS) for _ in range(12)) + "." for _ in range(n)]


def write(path, documents):
    lines = [document if isinstance(document, dict) else {"text": document} for document in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def place_store(template: Path, path: Path) -> str:
    """Puts an empty MLflow store at a path, which MLflow would need seconds to make; returns its URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, path)
    return f"sqlite:///{path}"


def stepped_levels(stack, row):
    """Levels of a row of byte ids, byte by byte; every BOS begins anew and has the highest level, EOS has none."""
    levels, stepper = [], stack.stepper()
    for byte in row:
        if byte == BOS:
            stepper = stack.stepper()
        levels.append(stack.depth if byte == BOS else 0 if byte == EOS else stepper.push(byte))
    return levels


def inside(stack: Stack, ids: torch.Tensor) -> torch.Tensor | None:
    """Where the stack refreshes units in rows of byte ids [B, L], byte by byte; None where it has no such splitter."""
    if stack.refreshes is None:
        return None
    found = torch.zeros_like(ids, dtype=torch.bool)
    for r, row in enumerate(ids.tolist()):
        stepper = stack.refreshes.stepper()
        for t, byte in enumerate(row):
            if byte == BOS:
                stepper = stack.refreshes.stepper()
            elif byte != EOS:
                found[r, t] = bool(stepper.push(byte))
    return found


def fit(*options, command="fit"):
    """Runs the command on tiny.yaml in this process; returns its exit code."""
    return aunet(command, "-c", "tiny.yaml", *options)


def data_of(*files, **options) -> ByteDataModule:
    options = {"workers": 0, "row_bytes": 32, "batch_rows": 2} | options
    made = ByteDataModule([file if isinstance(file, dict) else str(file) for file in files], **options)
    made.prepare_data()
    made.setup()
    return made


def error_of(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def assert_same(a, b):
    assert points(a) == points(b)
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (a, b)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def detached(sums):
    return pytree.tree_map(torch.detach, sums)


def cell(splitter="a", language="en", seed=1, bpb=1.0, status="done", **more):
    return CellResult(
        f"{splitter}-{language}-{seed}", splitter, language, more.pop("stages", 2), seed, status, bpb=bpb, **more
    )


def study(cells, **more):
    splitters, languages = ({getattr(c, name): 0 for c in cells} for name in ("splitter", "language"))
    settings = {"match_by": "flops", "budget": 1e15, "adjust": "bytes", **more}
    return StudyResult("s", "", cells, list(splitters), list(languages), **settings)


def pieces(splitter, text: str) -> list[str]:
    """The text cut after each boundary."""
    return cut(text.encode(), splitter.split(text.encode()))


def cut(data: bytes, boundary: np.ndarray) -> list[str]:
    ends = [*(np.flatnonzero(boundary) + 1).tolist(), len(data)]
    parts = [data[begin:end].decode() for begin, end in itertools.pairwise([0, *ends])]
    return [part for part in parts if part]


class Balance(HTMLParser):
    """Reads a page: what is open, what is wrong, which ids there are, and what is linked."""

    VOID = ("meta", "br", "wbr", "link", "img", "path", "use", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)
