"""BPB against a plain sum, whatever the batches, the padding and the devices."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aunet_lightning import AUNet
from aunet_lightning.data import words
from aunet_lightning.data.packing import REFERENCE
from aunet_lightning.data.words import LETTERS, WORDS, Letters
from aunet_lightning.reports.generated import as_metrics, valid_bytes
from aunet_lightning.training.boundaries import BoundaryMetric, kappa
from aunet_lightning.training.metrics import BitsPerByte, UnitMetric
from aunet_lightning.training.optimizer import OptimizerConfig, build_optimizer
from aunet_lightning.vocabulary import BOS, EOS, IGNORE
from splitters import DEFAULT, Stack, build
from splitters.contract import defer
from splitters.registry import resolve_teacher as build_teacher
from tests.helpers import MIXED, UPPER, data_of, stepped_levels, tiny, tiny_model, write

LANGUAGES = ["en", "th", "zh"]


def draw(seed, shape=(3, 20)):
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 258, shape, generator=g)
    targets[torch.rand(shape, generator=g) < 0.3] = IGNORE
    targets[0, :3] = torch.tensor([BOS, EOS, 65])
    return torch.rand(shape, generator=g) * 5, targets, torch.randint(0, 2, shape, generator=g)  # no zh


def scored(nats, targets, languages):
    """The batch of these targets, as PackedBatches makes it, and its nats."""
    return {"targets": targets, "languages": languages, "sizes": ((targets >= 0) & (targets < 256)).short()}, nats


def plain(batches):
    bits, n_bytes = {}, {}
    for nll, targets, languages in batches:
        for nats, target, language in zip(
            nll.flatten().tolist(), targets.flatten().tolist(), languages.flatten().tolist(), strict=True
        ):
            if 0 <= target < 256:
                for key in ("all", LANGUAGES[language]):
                    bits[key] = bits.get(key, 0) + nats / math.log(2)
                    n_bytes[key] = n_bytes.get(key, 0) + 1
    return {key: bits[key] / n_bytes[key] for key in bits}


def test_equals_the_plain_sum():
    metric, batches = BitsPerByte(LANGUAGES), [draw(seed) for seed in range(4)]
    for batch in batches:
        metric.update(*scored(*batch))
    expected = plain(batches)
    assert metric.compute()["bpb"] == pytest.approx(expected.pop("all"), rel=1e-9)
    assert metric.by_language() == pytest.approx(expected, rel=1e-9)
    assert metric.compute().keys() == {"bpb", "bpb_en", "bpb_th"}


def test_bos_eos_and_padding_do_not_count():
    metric = BitsPerByte(["en"])
    nats, targets = torch.tensor([[1.0, 99.0, 99.0, 99.0]]), torch.tensor([[65, BOS, EOS, IGNORE]])
    metric.update(*scored(nats, targets, torch.tensor([[0, 0, 0, 0]])))
    assert metric.compute()["bpb"] == pytest.approx(1 / math.log(2))


def _rank(rank, world, path, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    metric = BitsPerByte(LANGUAGES)
    for seed in range(rank, 5, world):  # ranks have different numbers of batches, and of bytes
        metric.update(*scored(*draw(seed, (3, 20 + rank))))
    results[rank] = metric.compute()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_devices_give_the_mean_over_bytes_not_the_mean_of_means(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_rank, (2, tmp_path / "store", results), nprocs=2)
        found = dict(results)
    expected = plain([draw(seed, (3, 20 + rank)) for rank in range(2) for seed in range(rank, 5, 2)])
    for rank in range(2):
        assert found[rank]["bpb"] == pytest.approx(expected["all"], rel=1e-9)
        assert found[rank]["bpb_th"] == pytest.approx(expected["th"], rel=1e-9)


def batches_of_documents():
    """Two batches, each with a row of two documents and a short one with padding; languages and marks by document."""
    texts = [MIXED, b"one two. three four five", "人人生而自由 ok".encode(), b"x", b" "]
    batches = []
    for first in (0, 2):
        rows = [[BOS, *texts[first], EOS, BOS, *texts[first + 1], EOS], [BOS, *texts[-1], EOS]]
        width = max(map(len, rows))
        ids = torch.tensor([row + [EOS] * (width - len(row)) for row in rows])
        languages = torch.full_like(ids, -1)
        marks = torch.zeros_like(ids)
        for r, row in enumerate(rows):
            starts = [t for t, byte in enumerate(row) if byte == BOS]
            for i, start in enumerate(starts):
                end = row.index(EOS, start)
                languages[r, start:end] = (first + i) % 2 if r == 0 else 2
                text = bytes(row[start + 1 : end])
                for bit, rule in ((REFERENCE, build(DEFAULT)), (1, build("grapheme"))):
                    marks[r, start + 1 : end] |= torch.from_numpy(rule.split(text)).long() << bit
        targets = torch.where(languages >= 0, F.pad(ids[:, 1:], (0, 1), value=EOS), IGNORE)
        batches.append({"ids": ids, "languages": languages, "marks": marks, "targets": targets})
    return batches


def count_plainly(plain, batch, levels, s, r, max_offset):
    """Counts the units of transition s in row r, position by position."""
    offset = length = 0
    pending = False
    for t, byte in enumerate(batch["ids"][r].tolist()):
        language = int(batch["languages"][r, t])
        if language < 0:
            continue
        count, level = plain[s, language], int(levels[r, t])
        is_text, forced = byte < 256, byte == BOS
        target = int(batch["targets"][r, t])
        count["bytes"] += 0 <= target < 256
        begins = level > s
        length = (length if not begins else 0) + is_text
        count["longest"] = max(count["longest"], length)
        reference = bool(batch["marks"][r, t] >> REFERENCE & 1)
        pending = (pending and not forced) or bool(batch["marks"][r, t] >> 1 & 1)
        count["reference"] += reference
        if level < s:  # no position of the lower stage
            continue
        offset = 0 if begins else offset + 1
        count["units"] += begins
        count["text_units"] += begins and not forced
        count["positions"] += 1
        count["past"] += offset >= max_offset
        count["open"] += not forced
        count["found"] += begins and not forced
        count["hits"] += begins and not forced and reference
        count["taught"] += pending and not forced
        count["taught_hits"] += pending and begins and not forced
        pending = False


@pytest.mark.parametrize(
    "rules",
    [["router", UPPER], ["whitespace", {"name": "distilled", "teacher": "grapheme"}], [DEFAULT, UPPER]],
    ids=str,
)
def test_units_equal_plain_counting(rules):
    """Byte by byte and position by position, for rows of several documents, with padding, in any number of batches."""
    stack, max_offset = Stack(rules), 3
    net = AUNet(tiny(3), stack).eval()
    metric = UnitMetric(["a", "b", "c"], 2, max_offset, {1} if stack.learned.keys() == {1} else set())
    plain = {(s, language): Counter() for s in range(2) for language in range(3)}
    for batch in batches_of_documents():
        levels = torch.tensor([stepped_levels(stack, row) for row in batch["ids"].tolist()])
        with torch.no_grad():
            output = net(batch["ids"], levels)
        metric.update(batch, None, output)
        for s, r in itertools.product(range(2), range(2)):
            count_plainly(plain, batch, output.levels, s, r, max_offset)
    found = metric.compute()
    for (s, language), n in plain.items():
        begin, end = f"stage{s + 2}/", f"_{'abc'[language]}"
        names = [name for name in found if name.startswith(begin) and name.endswith(end)]
        got = {name[len(begin) : -len(end)]: found[name] for name in names}
        assert got["bytes_per_unit"] == pytest.approx(n["bytes"] / n["units"])
        assert got["bytes_per_text_unit"] == pytest.approx(n["bytes"] / max(n["text_units"], 1))
        assert got["longest_unit"] == n["longest"]
        assert got["past_last_offset"] == pytest.approx(n["past"] / n["positions"])
        assert got["boundary_share"] == pytest.approx(n["found"] / max(n["open"], 1))
        agreement = 2 * n["hits"] / (n["found"] + n["reference"]) if n["found"] + n["reference"] else 1
        assert got["agreement_script_aware"] == pytest.approx(agreement)
        if "teacher_f1" in got:
            assert s == 1
            assert got["teacher_f1"] == pytest.approx(2 * n["taught_hits"] / (n["found"] + n["taught"]))
    for s in range(2):  # over all languages: what is of none, EOS and padding, is not counted
        total = sum((n for (of, _), n in plain.items() if of == s), Counter())
        assert found[f"bytes_per_unit_stage{s + 2}"] == pytest.approx(total["bytes"] / total["units"])
        assert found[f"past_last_offset_stage{s + 2}"] == pytest.approx(total["past"] / total["positions"])
        assert found[f"boundary_share_stage{s + 2}"] == pytest.approx(total["found"] / max(total["open"], 1))
    assert (found["agreement_script_aware_stage2"] == 1) == (rules[0] == DEFAULT)
    assert ("teacher_f1_stage3" in found) == (1 in stack.learned)
    assert ("mean_p_stage2" in found) == (0 in stack.learned)
    assert found["longest_unit_stage2"] == max(n["longest"] for (s, _), n in plain.items() if s == 0)


def test_every_stage_has_its_learning_rate():
    model = AUNet(tiny(3), ["router", "distilled"])
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, stage_lr=[1.0, 2.0, 4.0], splitter_lr=10.0))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        stage = 2 if name.startswith("trunk") else int("1." in name.partition(".")[2][:2])
        expected = [1.0, 2.0, 4.0][stage] * (10.0 if name.startswith("predictors") else 1.0)
        assert rates[id(parameter)] == expected, name
    assert len(rates) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="stage_lr has 2 numbers, the model has 3"):
        build_optimizer(model, OptimizerConfig(stage_lr=[1.0, 2.0]))


def test_weight_decay_is_on_matrices_only():
    model = tiny_model(tiny(3))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == ("norm" not in name), name
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_learning_rate_warms_up_and_ends_where_it_says():
    config = OptimizerConfig(warmup_steps=10, final_lr_ratio=0.1)
    factors = [config.lr_factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[9] == factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def plain_boundaries(batch, nats, levels, s, language):
    """The measures of boundaries at transition s for one language, position by position: their definitions."""
    starts, by_place, lengths, table = [], {}, [], Counter()

    def close(letters, length, ended):  # of what a row has of a document
        table.update(letters[1:])
        lengths.extend([length] if length and ended else [])
        units, words = ([i for i, letter in enumerate(letters) if i and letter[kind]] for kind in (0, 1))
        for begin in units:
            ends = [next((i for i in some if i > begin), len(letters) if ended else None) for some in (units, words)]
            if begin not in words or ends != [None, None]:
                table["whole"] += 1
                table["one"] += begin in words and ends[0] == ends[1]

    for r, row in enumerate(batch["ids"].tolist()):
        since, place, letters, length = False, 0, [], None
        for t, byte in enumerate(row):
            following, mine = int(batch["targets"][r, t]), int(batch["languages"][r, t]) == language
            begins = bool(t) and byte < 256 and mine and int(levels[r, t]) > s
            if t == 0 or byte == BOS:
                since, letters, length = False, [], None
            if byte < 256 and mine:
                lengths += [length] if begins and length else []
                since, length = since or begins, 0 if begins else length
                length = None if length is None else length + 1
                if batch["marks"][r, t] >> LETTERS & 1:
                    letters.append((since, bool(batch["marks"][r, t] >> WORDS & 1)))
                    since = False
            place = place + 1 if 0x80 <= following < 0xC0 else 0
            if mine and 0 <= following < 256:
                bits = float(nats[r, t]) / math.log(2)
                by_place.setdefault(place, []).append(bits)
                starts += [(place, bits)] if begins else []
            if mine and (following == EOS or t == len(row) - 1):
                close(letters, length, following == EOS)
    return starts, by_place, lengths, table


def boundary_batch(rule, seed=0, cut=None):
    """Documents of two languages in rows with padding, or cut at a position. Returns the batch, nats and levels."""
    texts = ["สวัสดี ครับ 12 x", "All human beings, are born free.", "人人生而自由 ok", "don't stop (now)"]
    words, letters, split = build_teacher("words"), Letters(), build(*rule[:1], **rule[1]).split
    rows = [[0, 1], [2], [3]]
    width = max(sum(len(texts[d].encode()) + 2 for d in row) for row in rows)
    ids = torch.full((3, width + 1), EOS)
    marks, levels = torch.zeros_like(ids), torch.zeros_like(ids)
    languages = torch.full_like(ids, -1)
    for r, row in enumerate(rows):
        at = 0
        for d in row:
            data = texts[d].encode()
            end = at + len(data) + 1
            ids[r, at : end + 1] = torch.tensor([BOS, *data, EOS])
            languages[r, at:end] = d % 2
            found = letters.split(data)
            marks[r, at + 1 : end] = torch.from_numpy(
                found.astype(int) << LETTERS | defer(words.split(data), found).astype(int) << WORDS
            )
            levels[r, at], levels[r, at + 1 : end] = 1, torch.from_numpy(split(data).astype(int))
            at = end + 1
    targets = torch.where(languages[:, :-1] >= 0, ids[:, 1:], IGNORE)
    sizes = ((targets >= 0) & (targets < 256)).short()
    batch = {
        "ids": ids[:, :-1],
        "targets": targets,
        "languages": languages[:, :-1],
        "marks": marks[:, :-1],
        "sizes": sizes,
    }
    nats = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed)) * 5 * (targets >= 0)
    return {key: some[:, :cut] for key, some in batch.items()}, nats[:, :cut], levels[:, :-1][:, :cut]


def measured(*batches):
    metric = BoundaryMetric(["a", "b"], 1)
    for batch, nats, levels in batches:
        metric.update(batch, nats, SimpleNamespace(levels=levels))
    return metric.compute()


RULES = [("whitespace", {}), ("fixed", {"n": 3}), ("trie", {"align": "byte"}), ("cjk_character", {}), ("spacelike", {})]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_measures_of_boundaries_equal_plain_ones(rule):
    pytest.importorskip("icu4py")
    batches = [boundary_batch(rule), boundary_batch(rule, 1, cut=26), boundary_batch(rule, 2, cut=40)]
    found = measured(*batches)
    for i, language in enumerate("ab"):
        starts, by_place, lengths, table = [], {}, [], Counter()
        for batch in batches:
            for old, new in zip((starts, by_place, lengths, table), plain_boundaries(*batch, 0, i), strict=True):
                if old is by_place:
                    for place, bits in new.items():
                        old.setdefault(place, []).extend(bits)
                else:
                    old += new
        mean = {place: np.mean(bits) for place, bits in by_place.items()}
        of = {
            name: found[f"stage2/{name}_{language}"]
            for name in ("start_surprisal", "word_kappa", "one_word", "length_cv")
        }
        assert of["start_surprisal"] == pytest.approx(np.mean([bits - mean[place] for place, bits in starts]))
        assert of["one_word"] == pytest.approx(table["one"] / table["whole"])
        assert of["length_cv"] == pytest.approx(np.std(lengths) / np.mean(lengths))
        for q in (50, 90, 99):
            assert found[f"stage2/length_p{q}_{language}"] == np.percentile(lengths, q, method="inverted_cdf")
        cells = {(unit, word): table[unit, word] for unit in (True, False) for word in (True, False)}
        n = sum(cells.values())
        agree = (cells[True, True] + cells[False, False]) / n
        units, words = ((cells[True, True] + cells[one]) / n for one in ((True, False), (False, True)))
        chance = units * words + (1 - units) * (1 - words)
        assert of["word_kappa"] == pytest.approx((agree - chance) / (1 - chance))
        f1 = 2 * cells[True, True] / (n * (units + words))
        by_chance = 2 * n * units * words / (n * (units + words))
        assert of["word_kappa"] == pytest.approx((f1 - by_chance) / (1 - by_chance))  # F1, corrected in the same way


def test_words_agree_fully_and_random_places_not_at_all():
    pytest.importorskip("icu4py")
    batch, nats, _ = boundary_batch(RULES[0])
    words = (batch["marks"] >> WORDS & 1).long()
    found = measured((batch, nats, torch.where(batch["ids"] == BOS, 1, words)))
    assert found["word_kappa_stage2"] == found["one_word_stage2"] == 1
    generator, drawn, letters = torch.Generator().manual_seed(0), [], batch["marks"] >> LETTERS & 1
    for _ in range(300):
        nats, places = (torch.rand(nats.shape, generator=generator) for _ in range(2))
        drawn.append((batch, nats, (places < 0.3).long() * letters))
    of_random = measured(*drawn)
    assert of_random["word_kappa_stage2"] == pytest.approx(0, abs=0.02)
    assert of_random["start_surprisal_stage2"] == pytest.approx(0, abs=0.02)
    assert kappa(10, 10, 10, 10) == 1


def test_a_character_rule_gains_nothing_from_where_bytes_stand_in_characters():
    """Every character's first byte is a unit start: so starts are no random places, but the mean of their kind."""
    pytest.importorskip("icu4py")
    batch, nats, levels = boundary_batch(("utf8_character", {}))
    first = (batch["targets"] >= 0x80) & (batch["targets"] < 0xC0)
    assert measured((batch, nats + 3 * first, levels))["start_surprisal_stage2"] == pytest.approx(
        measured((batch, nats, levels))["start_surprisal_stage2"]
    )


def test_tokens_have_a_spread_alone():
    metric = BoundaryMetric(["a", "b"], 0, of_tokens=True)
    sizes, languages = torch.tensor([[1, 3, 0, 4]]).short(), torch.tensor([[0, 0, -1, 1]])
    metric.update({"sizes": sizes, "languages": languages}, torch.zeros(1, 4), None)
    found = metric.compute()
    assert found["length_cv_token"] == pytest.approx(np.std([1, 3, 4]) / np.mean([1, 3, 4]))
    assert (found["length_p50_token_a"], found["length_p99_token_a"]) == (1, 3)
    assert not any("surprisal" in name or "kappa" in name for name in found)
    assert BoundaryMetric(["a"], 0).compute() == {}


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        (b"", True, (0, 0)), (b"ab", True, (2, 2)), ("é".encode()[:1], True, (0, 0)), ("é".encode()[:1], False, (0, 1)),
        ("a中".encode()[:3], True, (1, 1)), (b"\xff" + "中".encode(), True, (3, 4)), (b"\xe4a", False, (1, 2)), (b"\xed\xa0\x80x", True, (1, 4)),
    ],
)  # fmt: skip
def test_generated_bytes_are_valid_or_not(text, cut, expected):
    assert valid_bytes(text, cut) == expected
    counts = {"en": expected, "x@y": (1, 2)}
    found = as_metrics(counts)
    assert found["generated/valid_utf8"] == (expected[0] + 1) / (expected[1] + 2)
    assert found["generated/bytes_x:40:y"] == 2
    assert ("generated/valid_utf8_en" in found) == (expected[1] > 0)


def test_words_are_marked_in_the_beginning_of_each_language(tmp_path, monkeypatch):
    pytest.importorskip("icu4py")
    monkeypatch.setattr(words, "WORD_BYTES", 30)
    texts = {"en": ["one two three", "x", "four five six seven eight"], "th": ["ทุกคนมีสิทธิ", "คน"]}
    data = data_of(
        *(write(tmp_path / f"{language}.jsonl", some) for language, some in texts.items()), holdout_every=None
    )
    made = words.WordMarks(data.corpora["train"], data.documents["train"], words.word_teacher())
    for _ in range(2):  # found, and kept
        marks = [made.marks(d, n) for d, n in enumerate(data.corpora["train"].lengths.tolist())]
        assert [np.flatnonzero(of >> WORDS & 1).tolist() for of in marks[:3]] == [[0, 4, 8], [0], [0, 5, 10, 14]]
        assert [int((of >> LETTERS & 1).sum()) for of in marks] == [11, 1, 13, 10, 0]
    assert data.batches("train").words is None
