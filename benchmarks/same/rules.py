"""Records the golden logits, splitters, teachers and networks."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from same.recorder import Recorder, sha
from same.settings import EVERY, LANGUAGES, NETS, OPTIONS, SENTENCE, STACKS, TEACHERS, Record
from same.tree import aunet, config_class, edge_texts, lines


def record_golden(to: Recorder) -> None:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    from aunet_lightning.interop import load_reference

    tests = Path(os.environ["SAME_TREE"]) / "tests"
    path = next(tests.rglob("three_stage.safetensors"))
    case, config = load_file(path), json.loads((path.parent / "cases.json").read_text())["three_stage"]
    model = load_reference(path, config)
    ids, levels = case["bytes"].long(), case["levels"]
    output = model(ids[:, :-1], levels[:, :-1])
    loss = F.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    to.add("golden/logits", output.logits)
    to.add("golden/loss", loss.item())
    to.add("golden/units", output.units)
    for name, parameter in model.named_parameters():
        to.add(f"golden/parameter/{name}", parameter)
        to.add(f"golden/gradient/{name}", parameter.grad)
    with torch.no_grad():
        to.add("golden/logits of whole bytes, later half masked", model(ids[:, :64], levels[:, :64]).logits)


def record_splitters(to: Recorder) -> None:
    import numpy as np

    from splitters import Stack, available, build

    to.add("splitters/available", available())
    to.add("splitters/rules", available("rule"))
    groups = edge_texts()
    texts = {f"{group}/{name}": text for group, found in groups.items() for name, text in found.items()}
    for name, text in texts.items():
        to.add(f"texts/{name}", f"{len(text)} bytes, {sha(text)}")

    def stepped(stepper: Any, text: bytes) -> np.ndarray:
        return np.array([stepper.push(byte) for byte in text], dtype=np.uint8)

    def at_once_and_stepped(key: str, name: str, whole: np.ndarray, stepper: Callable[[], Any], text: bytes) -> None:
        to.add(f"{key}/{name}", whole)
        if len(text) <= 12_000:
            steps = stepped(stepper(), text)
            if not np.array_equal(steps, whole):
                to.add(f"{key}, stepped/{name}", steps)
        to.found[key] = f"{int(whole.sum()) + int((to.found.get(key) or '0').split()[0])} boundaries"

    specs: dict[str, Record] = {name: {"name": name} for name in available("rule")} | OPTIONS
    vocabulary = "vocabulary.json"
    to.add("vocabulary/printed", lines(aunet("vocabulary", *LANGUAGES, "--size", 300, "--out", vocabulary)))
    to.add("vocabulary/file", sha(Path(vocabulary).read_bytes()))
    specs["trie of a file"] = {"name": "trie", "vocabulary": vocabulary}
    for key, spec in specs.items():
        with to.part(f"splitter {key}"):
            rule = build(**spec)
            for name, text in texts.items():
                at_once_and_stepped(f"splitter/{key}", name, rule.split(text), rule.stepper, text)
    others = [[name, EVERY] for name in available("rule")]
    for rules in [*STACKS, *(rules for rules in others if rules not in STACKS)]:
        with to.part(f"stack {rules}"):
            stack, key = Stack(rules), f"stack/{json.dumps(rules)}"
            to.add(f"{key}/fingerprint", stack.fingerprint())
            for name, text in groups["short"].items() if rules in STACKS else [("all", SENTENCE.encode())]:
                at_once_and_stepped(key, name, stack.levels(text), stack.stepper, text)
    for key, spec in TEACHERS.items():
        with to.part(f"teacher {key}"):
            teacher = build("distilled", teacher=spec).teacher
            for name, text in groups["short"].items():
                to.add(f"teacher/{key}/{name}", teacher.split(text))


def record_nets(to: Recorder) -> None:
    import torch
    import torch.nn.functional as F

    from aunet_lightning import AUNet
    from splitters import Stack

    config_of = config_class()
    texts = [SENTENCE.encode(), "All human beings are born free.\nคน 人々は、ABC. ".encode() * 2]
    for key, (config, rules, known) in NETS.items():
        with to.part(f"net {key}"):
            stack = Stack(rules)
            torch.manual_seed(11)
            model = AUNet(config_of(**config), stack if rules else ())
            for name, tensor in model.state_dict().items():
                to.add(f"net/{key}/initial/{name}", tensor)
            to.add(f"net/{key}/parameters", [name for name, _ in model.named_parameters()])
            rows = []
            for text in texts:  # BOS text EOS BOS text
                levels = stack.levels(text).tolist()
                ids = [256, *text, 257, 256, *text]
                rows.append((ids[:200], [known, *levels, 0, known, *levels][:200]))
            length = min(len(ids) for ids, _ in rows)
            ids = torch.tensor([ids[:length] for ids, _ in rows])
            levels = torch.tensor([levels[:length] for _, levels in rows], dtype=torch.uint8)
            output = model(ids[:, :-1], levels[:, :-1])
            loss = F.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            to.add(f"net/{key}/loss", loss.item())
            for name in ("logits", "units", "dropped", "levels"):
                to.add(f"net/{key}/{name}", getattr(output, name))
            for name, parameter in model.named_parameters():
                to.add(f"net/{key}/gradient/{name}", parameter.grad)
            model.eval()
            with torch.no_grad():
                state, steps = model.initial_state(1, stack if rules else None), []
                for byte in texts[0][:60]:
                    output = model(torch.tensor([[byte]]), state=state)
                    state = output.state
                    steps.append(output.logits)
                to.add(f"net/{key}/stepped logits", torch.cat(steps, 1))
                state = model.initial_state(1, stack if rules else None)
                output = model(torch.tensor([[*texts[0][:40]]]), state=state)
                to.add(f"net/{key}/prefilled logits", output.logits)
