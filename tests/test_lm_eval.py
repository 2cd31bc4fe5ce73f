"""The model `aunet` of EleutherAI's evaluation harness: its command finds it, and its numbers are those of our own."""

import importlib
import json
import math
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest

pytest.importorskip("lm_eval")
import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from aunet_lightning.generation import Request, Sampling, texts
from aunet_lightning.harness import AUNetLM
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.scoring import Continuation, score
from tests.helpers import MIXED, ROOT, UDHR, UPPER, aunet, sentences
from tests.test_carried import saved

pytestmark = pytest.mark.slow
TASKS = ROOT / "experiments" / "lm_eval"
LANGUAGES = {"en": "en", "th": "th", "zh": "zh-Hans"}
ROWS = {"row_ids": 200, "context_ids": 60}  # articles are longer
KINDS = ("bytes", "tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("harness")
    saved(folder / "bytes.ckpt", ["whitespace", UPPER])
    learned_of = [MIXED, *((UDHR / f"{language}.jsonl").read_bytes()[:3000] for language in LANGUAGES.values())]
    saved(folder / "tokens.ckpt", (), train_bpe(learned_of, 400))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def evaluated(request, folder):
    """A kind, the results of the tasks, and of each task its documents."""
    found = {"bytes": by_command, "tokens": in_python}[request.param](folder / f"{request.param}.ckpt")
    return request.param, *found


def by_command(path):
    """Results of the command lm_eval, which has no network, of a checkpoint."""
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1") | {"HF_HOME": str(path.parent / "hf")}
    rows = ",".join(f"{name}={value}" for name, value in ROWS.items())
    command = [
        sys.executable, "-m", "lm_eval", "--model", "aunet", "--model_args", f"pretrained={path},device=cpu,{rows}",
        "--include_path", TASKS, "--tasks", f"udhr,{TASKS / 'aunet.yaml'}", "--output_path", path.parent, "--log_samples",
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=os.environ | offline, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (results,) = path.parent.rglob("results_*.json")
    samples = {
        one.name.removeprefix("samples_").rpartition("_")[0]: [json.loads(line) for line in one.open(encoding="utf-8")]
        for one in path.parent.rglob("samples_*.jsonl")
    }
    return json.loads(results.read_text("utf-8")), samples


def in_python(path):
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=TASKS)
    model = AUNetLM(path, "cpu", **ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path.parent / "datasets")
        found = lm_eval.simple_evaluate(model, tasks=["udhr"], task_manager=manager, bootstrap_iters=0)
    return found, found["samples"]


def scored(folder, kind, lines):
    """What `aunet score` writes of these lines."""
    given, out = folder / "lines.jsonl", folder / "scores.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = [option for name, value in ROWS.items() for option in (f"--{name}", value)]
    assert aunet("score", folder / f"{kind}.ckpt", given, "--device", "cpu", "--out", out, *rows) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_bits_are_those_of_aunet_score(folder, evaluated, language):
    kind, results, samples = evaluated
    lines = [json.loads(line) for line in (UDHR / f"{LANGUAGES[language]}.jsonl").open(encoding="utf-8")]
    ours = scored(folder, kind, lines)
    theirs = samples[f"udhr::bits_{language}"]
    bits = [-float(sample["resps"][0][0]) / math.log(2) for sample in sorted(theirs, key=lambda one: one["doc_id"])]
    assert bits == pytest.approx([line["bits"] for line in ours], rel=1e-5, abs=1e-3)
    assert max(line["bytes"] for line in ours) > 2 * ROWS["row_ids"]
    summary = results["results"][f"udhr::bits_{language}"]
    total, size = sum(line["bits"] for line in ours), sum(line["bytes"] for line in ours)
    assert summary["bits_per_byte,none"] == pytest.approx(total / size, rel=1e-5)
    assert summary["bits,none"] == pytest.approx(total / len(ours), rel=1e-5)
    assert results["config"]["row_ids"] == ROWS["row_ids"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_choices_have_the_bits_of_a_text_given_its_context(folder, evaluated, language):
    kind, results, samples = evaluated
    theirs = samples[f"udhr::halves_{language}"]
    pairs = (
        [sample["doc"]["first"] for sample in theirs for _ in range(4)],
        [t for sample in theirs for t in sample["doc"]["halves"]],
    )
    ours = scored(folder, kind, [{"context": context, "text": text} for context, text in zip(*pairs, strict=True)])
    answers = [answer[0] for sample in theirs for answer in sample["resps"]]
    bits = [-float(nats) / math.log(2) for nats, _ in answers]
    assert bits == pytest.approx([line["bits"] for line in ours], rel=1e-5, abs=1e-3)
    assert [str(greedy) == "True" for _, greedy in answers] == [line["greedy"] for line in ours]
    right = [
        min(range(4), key=lambda choice, at=at: bits[4 * at + choice]) == sample["doc"]["answer"]
        for at, sample in enumerate(theirs)
    ]
    assert results["results"][f"udhr::halves_{language}"]["acc,none"] == pytest.approx(sum(right) / len(right))
    for sample in theirs:
        whole = sample["doc"]["first"] + sample["doc"]["halves"][sample["doc"]["answer"]]
        assert whole == sample["doc"]["text"]


def asked(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=given, idx=0) for given in arguments]


@pytest.fixture(scope="module", params=KINDS)
def model(request, folder):
    return AUNetLM(folder / f"{request.param}.ckpt", "cpu")


PROMPTS = ["All human ", "", "人人生而", "ทุกคน"]


def continued(model, sampling, sample=0):
    requests = [Request(prompt.encode(), 5, sample) for prompt in PROMPTS]
    return [text.text.decode() for text in texts(model.net, model.reader, requests, sampling)]


def test_generation_is_our_own(model):
    model.seed = 5
    greedy = continued(model, Sampling(40, temperature=0))
    stop = next(text[3:5] for text in greedy if len(text) > 8)
    options = [
        ({"until": [], "max_gen_toks": 40}, greedy),
        ({"until": None, "max_gen_toks": 40, "do_sample": False, "temperature": 0.7}, greedy),
        (
            {"until": [stop, ""], "max_new_tokens": 40},
            continued(model, Sampling(40, temperature=0, stop=(stop.encode(),))),
        ),
        ({"until": stop}, continued(model, Sampling(256, temperature=0, stop=(stop.encode(),)))),
        (
            {"until": [], "max_gen_toks": 30, "do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.9},
            continued(model, Sampling(30, temperature=0.9, top_k=50, top_p=0.9)),
        ),
    ]
    requests = [(prompt, given) for prompt in PROMPTS for given, _ in options]
    found = model.generate_until(asked("generate_until", *requests))
    for i, (given, expected) in enumerate(options):
        assert found[i :: len(options)] == expected, given
    assert all(stop not in text for text in found[2 :: len(options)])


def test_a_request_that_comes_again_is_drawn_anew(model):
    model.seed = 5
    given = {"until": [], "max_gen_toks": 20, "temperature": 1.0}
    found = model.generate_until(asked("generate_until", *[(prompt, given) for prompt in PROMPTS for _ in range(2)]))
    for sample in (0, 1):
        assert found[sample::2] == continued(model, Sampling(20, temperature=1.0), sample)


def test_greedy_texts_are_those_that_are_generated(model):
    found = model.generate_until(
        asked("generate_until", *[(prompt, {"until": [], "max_gen_toks": 12}) for prompt in PROMPTS])
    )
    pairs = [(prompt, text) for prompt, text in zip(PROMPTS, found, strict=True)]
    likely = model.loglikelihood(asked("loglikelihood", *pairs))
    ours = [*score(model.net, model.reader, [Continuation(a.encode(), b.encode()) for a, b in pairs])]
    assert likely == [(-one.bits * math.log(2), bool(one.greedy.all())) for one in ours]
    other = model.loglikelihood(asked("loglikelihood", *[(prompt, text + "✗") for prompt, text in pairs]))
    assert not any(greedy for _, greedy in other)


def test_a_text_without_a_context_is_a_rolling_text(model):
    lines = ["", "a", *sentences(1, 3)]
    rolling = model.loglikelihood_rolling(asked("loglikelihood_rolling", *[(line,) for line in lines]))
    assert [nats for nats, _ in model.loglikelihood(asked("loglikelihood", *[("", line) for line in lines]))] == rolling
    assert rolling[0] == 0
    assert max(rolling[1:]) < 0


def test_what_is_not_used_is_said(folder, caplog, model):
    AUNetLM.create_from_arg_obj({"pretrained": str(folder / "bytes.ckpt")}, {"batch_size": 8, "device": "cuda:0"})
    model.generate_until(asked("generate_until", ("a", {"until": [], "max_gen_toks": 2, "num_beams": 4})))
    model.loglikelihood(asked("loglikelihood", ("long " * model.row_ids, "text")))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("aunet")]
    for start in ("batch_size is not used", "generation_kwargs: num_beams", "1 contexts do not fit"):
        assert any(line.startswith(start) for line in said), start


@pytest.mark.parametrize(
    ("options", "words"), [({"rows": 0}, "rows is 0"), ({"row_ids": 0}, "row_ids is 0"), ({"row_ids": 8, "context_ids": 8}, "no new ids")]
)  # fmt: skip
def test_numbers_are_checked(folder, options, words):
    with pytest.raises(ValueError, match=words):
        AUNetLM(str(folder / "bytes.ckpt"), "cpu", **options)


def test_our_command_is_theirs_and_knows_the_model():
    code = (
        "import runpy, lm_eval.__main__ as theirs\n"
        "from lm_eval.api.registry import get_model\n"
        "theirs.cli_evaluate = lambda: print(get_model('aunet').__name__, get_model('dummy').__name__)\n"
        "runpy.run_module('aunet_lightning.harness', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=300)
    assert done.stdout.split() == ["AUNetLM", "DummyLM"], done.stderr


def test_without_lm_eval_an_error_says_what_to_install(monkeypatch):
    for name in ("aunet_lightning.harness", "aunet_lightning.harness.model"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ModuleNotFoundError, match=r"aunet-lightning\[lm-eval\]"):
        importlib.import_module("aunet_lightning.harness")


def test_later_versions_find_the_model_by_its_entry_point():
    group = "lm_eval.models"
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    ((name, value),) = named.items()
    assert EntryPoint(name, value, group).load() is get_model(name) is AUNetLM
    assert get_model("dummy") is not None  # the harness's own


def test_tasks_of_public_data_have_these_names():
    public = ("belebele", "global_piqa", "multiblimp", "xstorycloze")
    (own,) = lm_eval.tasks.__path__
    paths = [*(f"{own}/{name}" for name in public), TASKS]
    index = lm_eval.tasks.TaskManager(include_defaults=False, include_path=paths).task_index
    for name in public:
        names = index[f"aunet_{name}"].cfg["task"]
        assert len(names) > 7
        assert set(names) <= index.keys()


def test_flores_is_read_by_language(model, monkeypatch):
    """(The data set could not be fetched: this is its form, with texts of ours.)"""
    lines = sentences(3, 2)
    loaded = []

    def load_dataset(path, name=None, **_):
        loaded.append((path, name))
        return datasets.DatasetDict({"devtest": datasets.Dataset.from_dict({"id": [0, 1], "text": lines})})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=TASKS)
    found = lm_eval.simple_evaluate(model, tasks=["aunet_flores"], task_manager=manager, bootstrap_iters=0)
    assert ("openlanguagedata/flores_plus", "tha_Thai") in loaded
    bits = sum(one.bits for one in score(model.net, model.reader, [line.encode() for line in lines]))
    for name in ("flores_amh_Ethi", "flores_yor_Latn"):
        of = found["results"][f"aunet_flores::{name}"]
        assert of["bits,none"] == pytest.approx(bits / 2)
        assert of["bits_per_byte,none"] == pytest.approx(bits / sum(map(len, lines)))
