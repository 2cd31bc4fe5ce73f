"""Contexts: a row inside a document reads what comes before it, predicts nothing of it, and counts it as a cost alone."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from aunet_lightning import AUNet
from aunet_lightning.costs import Cost
from aunet_lightning.data.packing import context_of, refreshes_of
from aunet_lightning.data.rates import mean_row
from aunet_lightning.training.boundaries import BoundaryMetric
from aunet_lightning.training.learning import Learning
from aunet_lightning.training.loss import nats_per_target
from aunet_lightning.training.metrics import UnitMetric
from aunet_lightning.training.module import positions
from aunet_lightning.training.sums import StepSums
from aunet_lightning.vocabulary import BOS, EOS, IGNORE
from tests.helpers import as_trained, data_of, fit, points, tiny, write

TEXTS = [
    "one two three. Four five",
    "人人生而自由，" * 9,
    "x",
    "a longer document " * 9,
    "naïve café\n\nline",
    "ทุกคน " * 12,
]
LONG = 400  # bytes, more than the longest
RULES = ["whitespace", {"name": "refresh", "of": "script_aware", "by": {"name": "fixed", "n": 2}}, "router"]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    return write(tmp_path / "a.jsonl", TEXTS)


def data(file, context, **options):
    options = {"row_bytes": 20, "batch_rows": 3, "upper_splitters": [{"name": "every", "n": 2}]} | options
    made = data_of(file, **({"val_files": [str(file)], "context_bytes": context} | options))
    made.keeps_whole = True
    return made


def network(of, **options):
    torch.manual_seed(0)
    return as_trained(AUNet(tiny(of.reader.depth + 1, **options), of.reader.stack))


def batches_of(of, part="val"):
    batches = of.batches(part)
    return [batches[0, k] for k in range(len(batches))]


def read(net, batch):
    rooms = net.rooms_for(batch["n_units"], batch.get("n_refreshes"))
    return net(batch["ids"], batch["levels"], rooms=rooms, refreshes=refreshes_of(batch))


@pytest.mark.parametrize("context", [1, 7, 33, LONG])
@pytest.mark.parametrize("tokens", [False, True], ids=["bytes", "tokens"])
@pytest.mark.parametrize(("part", "rows"), [("train", "stream"), ("train", "documents"), ("val", "stream")])
def test_a_row_is_the_row_without_context_after_ids_of_its_document(file, part, rows, tokens, context):
    options = {"splitter": None, "upper_splitters": None, "tokenizer": {"vocab_size": 280}} if tokens else {}
    plain, other = (data(file, n, rows=rows, **options) for n in (0, context))
    before, batches = plain.batches(part), other.batches(part)
    assert before.n_rows == batches.n_rows
    for epoch in (0, 2):
        np.testing.assert_array_equal(before.drawn(epoch, 2), batches.drawn(epoch, 2))
        for r in range(before.n_rows):
            row, ours = before.row(epoch, r), batches.row(epoch, r)
            n = len(ours["ids"]) - len(row["ids"])
            for key, values in row.items():
                np.testing.assert_array_equal(ours[key][n:], values)
            assert (ours["targets"][:n] == IGNORE).all()
            assert not ours["sizes"][:n].any()
            assert (ours["documents"][:n] == -1).all()
            document, since, until = batches.order.pieces(epoch, r)[0]
            stream = np.concatenate([[BOS], batches.ids.ids(document), [EOS]])
            most = (
                min(other.context_ids, since) if until - since > 1 else 0
            )  # a last EOS is read, and nothing follows it
            assert n == most if tokens else max(most - 3, 0) <= n <= most
            np.testing.assert_array_equal(ours["ids"][:n], stream[since - n : since])
            assert tokens or n in (0, since) or stream[since - n] & 0xC0 != 0x80


@pytest.mark.parametrize("part", ["train", "val"])
def test_batches_say_how_much_of_each_row_is_context_and_pad_after_it(file, part):
    for batch in batches_of(data(file, 7, rows="documents"), part):
        context = context_of(batch)
        nothing = (batch["documents"] < 0) & (batch["ids"] != EOS)
        assert torch.equal(nothing, torch.zeros_like(nothing) if context is None else context)
        assert [int(n) for n in nothing.sum(1)] == batch["n_context"]


def rest(batches):
    return Counter(
        (row[row >= 0].numpy().tobytes(), tuple(at[row >= 0].tolist()))
        for batch in batches
        for row, at in zip(batch["targets"], batch["documents"], strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_same_targets_and_goes_on_where_it_stopped(file, workers):
    options = {"shuffle_buffer_bytes": 300, "workers": workers, "val_files": None}
    plain = list(islice(data(file, 0, **options).train_dataloader(), 12))
    straight = list(islice(data(file, 9, **options).train_dataloader(), 12))
    assert rest(plain) == rest(straight)
    assert any(max(batch["n_context"]) > 5 for batch in straight)
    first = data(file, 9, **options)
    taken = list(islice(first.train_dataloader(), 5))
    second = data(file, 9, **(options | {"workers": 0}))
    second.load_state_dict(first.state_dict())
    for one, two in zip(straight, taken + list(islice(second.train_dataloader(), 7)), strict=True):
        assert torch.equal(one["ids"], two["ids"])
        assert one["n_context"] == two["n_context"]
    first.teardown("")


@pytest.mark.parametrize("rule", RULES, ids=str)
@torch.no_grad()
def test_a_row_after_its_context_reads_as_both_in_one_row(file, rule):
    of = data(file, 11, splitter=rule)
    net, batches, compared = network(of), of.batches("train"), 0
    for batch in batches_of(of, "train"):
        found = read(net, batch).logits
        for i, n in enumerate(batch["n_context"]):
            if n:
                length = n + int((batch["documents"][i, n:] >= 0).nonzero()[-1]) + 1
                alone = {key: batch[key][i : i + 1, :length] for key in ("ids", "levels", "marks")}
                refreshes = refreshes_of(alone | {"n_refreshes": []}) if net.refreshes else None
                longer = net(alone["ids"], alone["levels"], refreshes=refreshes).logits
                torch.testing.assert_close(found[i, n:length], longer[0, n:], rtol=1e-4, atol=1e-5)
                cut = None if refreshes is None else refreshes[:, n:]
                without = net(alone["ids"][:, n:], alone["levels"][:, n:], refreshes=cut)
                assert (found[i, n] - without.logits[0, 0]).abs().max() > 1e-2
                compared += 1
    assert compared > 5
    assert batches.context_ids == 11


def whole_and_cut(file, rule):
    """Batches of whole documents, and of rows of 20 bytes with all that comes before, for one network."""
    whole, cut = data(file, 0, splitter=rule, row_bytes=LONG), data(file, LONG, splitter=rule)
    return network(cut), batches_of(whole), batches_of(cut)


@pytest.mark.parametrize("rule", RULES, ids=str)
@torch.no_grad()
def test_with_all_of_the_document_before_them_rows_measure_what_whole_documents_do(file, rule):
    net, *of = whole_and_cut(file, rule)
    bits, units, starts = [], [], []
    for batches in of:
        metric, boundaries, mine = UnitMetric.of(net, ["a"]), BoundaryMetric.of(net, ["a"]), {}
        for batch in batches:
            output = read(net, batch)
            nats = nats_per_target(output.logits, batch["targets"])
            metric.update(batch, nats, output)
            boundaries.update(batch, nats, output)
            for document in set(batch["documents"].unique().tolist()) - {-1}:
                at = batch["documents"] == document
                mine.setdefault(document, []).append((float(nats[at].sum()), int(batch["sizes"][at].sum())))
        bits.append({d: np.sum(sums, axis=0).tolist() for d, sums in mine.items()})
        units.append(metric.compute())
        starts.append({k: v for k, v in boundaries.compute().items() if k.startswith("start_surprisal")})
    assert bits[0].keys() == bits[1].keys() == set(range(len(TEXTS)))
    for document, sums in bits[0].items():
        assert sums == pytest.approx(bits[1][document], rel=1e-4)
    assert units[0] == pytest.approx(units[1], rel=1e-5)
    assert starts[0]
    assert starts[0] == pytest.approx(starts[1], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("target", [4, {"a": 3, "default": 5}], ids=["all", "by language"])
def test_learned_splitters_count_text_once(file, target):
    rule = {"name": "router", "bytes_per_unit": target}
    found = []
    for of in whole_and_cut(file, rule)[1:]:
        net = whole_and_cut(file, rule)[0]
        learning = Learning(net)
        learning.announce(0, ["a"])
        totals = [learning.sums(batch, read(net, batch))[0] for batch in of]
        flat = [torch.stack([x.detach().double() for x in torch.utils._pytree.tree_leaves(one)]) for one in totals]
        joined = {key: torch.cat([torch.nn.functional.pad(b[key], (0, LONG + 1 - b[key].shape[1]), value=fill) for b in of])
                  for key, fill in (("ids", EOS), ("levels", 0), ("languages", -1), ("documents", -1))}  # fmt: skip
        n_context = [n for batch in of for n in batch.get("n_context", [0] * len(batch["ids"]))]
        learning.calibrate(joined | {"n_context": n_context, "marks": torch.zeros_like(joined["ids"])}, lambda x: x)
        found.append([*torch.stack(flat).sum(0).flatten().tolist(), float(net.predictors["0"].bias)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_context_costs_and_is_no_text(file):
    of = [data(file, n) for n in (0, 15)]
    net, cost = network(of[0]), None
    shapes = [mean_row(one) for one in of]
    assert shapes[0].context == 0 < shapes[1].context
    assert shapes[1].positions[0] - shapes[1].context == pytest.approx(shapes[0].positions[0])
    assert shapes[1].positions[1] > shapes[0].positions[1]
    assert shapes[1].longest > shapes[0].longest == 20
    for name in ("text_bytes", "units"):
        assert getattr(shapes[0], name) == getattr(shapes[1], name)
    sums = []
    for one in of:
        cost = Cost(net)
        for k, batch in enumerate(batches_of(one, "train")):
            output = read(net, batch)
            at = positions(batch, output)
            lengths = [len(one.batches("train").row(0, lane * len(one.batches("train")) + k)["ids"])
                       for lane in range(3) if lane * len(one.batches("train")) + k < one.batches("train").n_rows]  # fmt: skip
            ends = torch.tensor(lengths) - at[: len(lengths), 0]
            assert ends.min() >= 0  # a last EOS is read and not counted
            assert ends.max() <= 1
            nats = nats_per_target(output.logits, batch["targets"])
            of_batch = StepSums.of(batch, nats, output, cost.row_flops(at).sum(), 0.0, [0.0] * 3, {})
            sums.append((one.context_bytes, of_batch.reduced(lambda x: x), sum(batch.get("n_context", ()))))
    totals = {n: [sum(float(getattr(s, key)) for c, s, _ in sums if c == n) for key in ("bytes", "targets", "read", "flops")]
              for n in (0, 15)}  # fmt: skip
    assert totals[0][:2] == totals[15][:2]
    assert totals[15][2] == totals[0][2] + sum(n for c, _, n in sums if c == 15) > totals[0][2]
    assert totals[15][3] > 1.2 * totals[0][3]


@pytest.fixture
def run(here, monkeypatch):
    write(here / "en.jsonl", ["all human beings are born free " * n for n in range(1, 13)])
    return here


def test_a_run_with_contexts_resumes_and_spends_more(run, capsys):
    options = ["--data.holdout_every", "4", "--data.row_bytes", "32"]
    ours = [*options, "--data.context_bytes", "24", "--run.keep_last", "3"]
    assert fit(*options, "--run.folder", "plain") == 0
    assert "of which they do not see what comes before\n" in capsys.readouterr().out
    assert fit(*ours, "--run.folder", "straight") == 0
    assert "do not see what comes before the last 24 bytes of it" in capsys.readouterr().out
    plain, straight = points(run / "plain"), points(run / "straight")
    last = max(step for step, key in plain if key == "bytes_seen")
    assert plain[last, "bytes_seen"] == straight[last, "bytes_seen"]
    assert plain[last, "flops"] < straight[last, "flops"]
    older = next((run / "straight" / "checkpoints").glob("step-*4.ckpt"))
    assert fit(*ours, "--run.folder", "straight", "--ckpt_path", str(older)) == 0
    assert "after step 4" in capsys.readouterr().out
    assert points(run / "straight") == straight
    assert fit(*options, "--data.context_bytes", "8", "--run.folder", "straight") == 1
    assert "data.context_bytes" in capsys.readouterr().err
