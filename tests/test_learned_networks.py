"""The networks of learned splitters: every formula beside a plain one, and the errors of a wrong option."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import splitters
from aunet_lightning import AUNet, StageConfig
from aunet_lightning.model.scan import smooth
from aunet_lightning.model.units import deferred
from aunet_lightning.training.by_language import count, groups_of, sums_of
from aunet_lightning.training.calibration import calibrate
from aunet_lightning.training.learning import Learning
from aunet_lightning.vocabulary import BOS
from splitters import Stack
from splitters.laws.check import check_form
from splitters.learned.networks import RouterNetwork, RouterSums, StudentNetwork
from splitters.teachers import Teacher
from tests.helpers import UPPER, detached, tiny


@pytest.mark.parametrize("n", [1, 2, 3, 8, 64, 65, 200, 4200])
def test_smoothing_equals_a_loop(n):
    torch.manual_seed(n)
    x, before = torch.randn(2, n, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    p = torch.rand(2, n, dtype=torch.float64)
    p[0, n // 2] = 1.0  # where a document begins, nothing before it is left
    for start in (None, before):
        inputs = [t.detach().float().requires_grad_() for t in (x, p)]
        h, out = (torch.zeros(2, 5) if start is None else start.float()), []
        for k in range(n):
            h = (1 - inputs[1][:, k, None]) * h + inputs[1][:, k, None] * inputs[0][:, k]
            out.append(h)
        expected, weight = torch.stack(out, 1), torch.randn(2, n, 5)
        wanted = torch.autograd.grad((expected * weight).sum(), inputs)
        again = [t.detach().requires_grad_() for t in inputs]
        got = smooth(again[0], again[1], None if start is None else start.float())
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        found = torch.autograd.grad((got * weight).sum(), again)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def router(dim=8, **options):
    return splitters.build("router", **options).predictor(dim)


def test_the_router_is_the_published_one():
    h, before = torch.randn(2, 9, 8), torch.randn(2, 9, 8)
    p = router()(h, before).sigmoid()
    torch.testing.assert_close(p, (1 - F.cosine_similarity(h, before, dim=-1)) / 2)
    # Strictly above a half: orthogonal neighbours are no boundary.
    one, other = torch.eye(8)[None, :1], torch.eye(8)[None, 1:2]
    assert not (router()(one, other) > 0).any()
    assert (router()(one, -one) > 0).all()


@pytest.mark.parametrize("n", [2.0, 4.0, 6.5])
def test_the_ratio_loss_is_the_published_one(n):
    predictor = router(bytes_per_unit=n, alpha=0.3)
    log_odds = torch.randn(400, requires_grad=True)
    zero = torch.zeros(())
    sums = predictor.sums(log_odds, log_odds > 0, None, zero)
    share, mean = (log_odds > 0).float().mean(), log_odds.sigmoid().mean()
    expected = 0.3 * n / (n - 1) * ((n - 1) * share * mean + (1 - share) * (1 - mean))
    torch.testing.assert_close(predictor.loss(sums, detached(sums), 400), expected)
    # Where the stage below has two bytes a position, N bytes are half as many positions.
    torch.testing.assert_close(
        predictor.loss(sums, detached(sums), 800),
        router(bytes_per_unit=max(n / 2, 1.05), alpha=0.3).loss(sums, detached(sums), 400),
    )
    # Over devices it adds up, in value and gradient.
    parts = [predictor.sums(part, part > 0, None, zero) for part in log_odds.split([150, 250])]
    total = RouterSums(*(sum(part).detach() for part in zip(*parts, strict=True)))
    summed = sum(predictor.loss(part, total, 400) for part in parts)
    torch.testing.assert_close(summed, expected)
    torch.testing.assert_close(torch.autograd.grad(summed, log_odds)[0], torch.autograd.grad(expected, log_odds)[0])


def plain_ratio_loss(p, boundary, n, alpha, one_sided=False):
    """Of the positions of one text, in which N is n."""
    share, mean = boundary.float().mean(), p.mean()
    two_sided = n / (n - 1) * ((n - 1) * share * mean + (1 - share) * (1 - mean))
    return alpha * (two_sided if share > 1 / n or not one_sided else 1.0)


LANGUAGES = {"th": 3.0, "en": 5.0, "default": 8.0}
NAMES = ["de", "en", "th", "yo"]  # of a corpus


def by_language(predictor, log_odds, languages, n_bytes):
    """What `Learning` passes on: sums by group, and bytes."""
    group = groups_of(predictor, NAMES, languages)
    sums = sums_of(predictor, group, log_odds, log_odds > 0, None, torch.zeros(len(LANGUAGES), dtype=torch.long))
    return sums, count(predictor, group, n_bytes)


@pytest.mark.parametrize("one_sided", [False, True])
def test_each_language_has_a_target_of_its_own(one_sided):
    predictor = router(bytes_per_unit=LANGUAGES, alpha=0.3, one_sided=one_sided)
    languages = torch.randint(0, 3, (500,))  # no yo
    offset = torch.tensor([-3.0, 1.0, -2.0, 0.0])  # too few boundaries in German and Thai, too many in English
    log_odds = (torch.randn(500) + offset[languages]).requires_grad_()
    n_bytes = torch.full((500,), 2)  # of each position: N bytes are half as many positions
    sums, read = by_language(predictor, log_odds, languages, n_bytes)
    expected = 0
    for i, n in ((0, 8.0), (1, 5.0), (2, 3.0)):
        mine = log_odds[languages == i]
        expected = expected + plain_ratio_loss(mine.sigmoid(), mine > 0, n / 2, 0.3, one_sided) * len(mine) / 500
    torch.testing.assert_close(predictor.loss(sums, detached(sums), read), expected)
    wanted = sum(int((languages == i).sum()) * 2 / n for i, n in ((0, 8), (1, 5), (2, 3)))
    assert predictor.wanted(sums, read) == pytest.approx(wanted)
    assert predictor.decided(sums) == (500, int((log_odds > 0).sum()))
    # Over devices it adds up, one of them without any English.
    order = languages.sort().indices
    parts = [by_language(predictor, log_odds[o], languages[o], n_bytes[o])[0] for o in order.split([100, 400])]
    total = RouterSums(*(sum(part).detach() for part in zip(*parts, strict=True)))
    summed = sum(predictor.loss(part, total, read) for part in parts)
    torch.testing.assert_close(summed, expected)
    got, plain = (torch.autograd.grad(loss, log_odds, retain_graph=True)[0] for loss in (summed, expected))
    torch.testing.assert_close(got, plain)
    assert got[languages == 1].any()
    assert bool(got[languages == 0].any()) is not one_sided


def test_the_bias_begins_at_the_targets_of_all_languages():
    predictor = router(bytes_per_unit=LANGUAGES)
    languages, log_odds = torch.randint(0, 4, (4000,)), torch.randn(4000)
    sums, read = by_language(predictor, log_odds, languages, torch.ones(4000))
    predictor.place(log_odds, predictor.wanted(sums, read))
    wanted = sum(int((languages == i).sum()) / n for i, n in enumerate((8, 5, 3, 8)))
    assert int((log_odds + predictor.bias > 0).sum()) == pytest.approx(wanted, abs=1)


def test_a_one_sided_bias_only_sinks():
    predictor = router(bytes_per_unit=5, control=0.2, one_sided=True)
    predictor.adjust(RouterSums(*torch.tensor([1000.0, 100.0, 150.0, 0.0])), 1000)
    assert predictor.bias.item() == 0
    predictor.adjust(RouterSums(*torch.tensor([1000.0, 400.0, 450.0, 0.0])), 1000)
    assert predictor.bias.item() == pytest.approx(0.2 * np.log(200 / 400))


def test_a_target_moves_on_a_straight_line():
    moving = router(bytes_per_unit={"th": 9, "default": 5}, bytes_per_unit_from=3, target_steps=10)
    for step, (th, others) in {0: (3, 3), 5: (6, 4), 10: (9, 5), 999: (9, 5), 1: (3.6, 3.2)}.items():
        moving.begin(step)  # of the step alone, in any order: so a run that continues has the same
        assert moving.lengths == pytest.approx([th, others])
    sums = RouterSums(*torch.tensor([[100.0, 300.0], [9.0, 9.0], [9.0, 9.0], [0.0, 0.0]]))
    assert moving.report(sums)["target_bytes_per_unit"] == pytest.approx(0.25 * 3.6 + 0.75 * 3.2)
    sums = RouterSums(*torch.tensor([1000.0, 400.0, 450.0, 0.0]))
    one, still = (router(bytes_per_unit=n, **options) for n, options in ((9, FROM_3), (6, {})))
    one.begin(5)
    assert one.loss(sums, sums, 2000) == still.loss(sums, sums, 2000)
    assert one.wanted(sums, 2000) == still.wanted(sums, 2000)
    assert "target_bytes_per_unit" not in still.report(sums)


FROM_3 = {"bytes_per_unit_from": 3, "target_steps": 10}


def test_the_students_loss_is_a_weighted_mean():
    predictor = splitters.build("distilled", balance=0.5, alpha=2.0).predictor(8)
    log_odds, wanted = torch.randn(300), torch.rand(300) < 0.2
    sums = predictor.sums(log_odds, log_odds > 0, wanted, torch.zeros(()))
    k = int(wanted.sum())
    weight = torch.where(wanted, ((300 - k) / k) ** 0.5, 1.0)
    nats = F.binary_cross_entropy_with_logits(log_odds, wanted.float(), reduction="none")
    torch.testing.assert_close(predictor.loss(sums, sums, 300), 2 * (weight * nats).sum() / weight.sum())
    found = predictor.report(sums)
    hits = int((wanted & (log_odds > 0)).sum())
    assert found["teacher_recall"] == pytest.approx(hits / k)
    assert found["teacher_precision"] == pytest.approx(hits / int((log_odds > 0).sum()))
    nothing = predictor.sums(log_odds[:0], log_odds[:0] > 0, wanted[:0], torch.zeros(()))
    assert predictor.loss(nothing, nothing, 0) == 0  # a batch of beginnings alone
    with pytest.raises(ValueError, match="no boundaries of the teacher"):
        predictor.sums(log_odds, log_odds > 0, None, torch.zeros(()))


@pytest.mark.parametrize("rate", [3, 6, 12])
@pytest.mark.parametrize("below", [[], ["utf8_character"]], ids=["bytes", "characters"])
def test_training_begins_near_the_rate(rate, below):
    stack = Stack([*below, {"name": "router", "bytes_per_unit": rate}])
    torch.manual_seed(0)
    model = AUNet(tiny(stack.depth + 1), stack)
    ids = torch.randint(33, 126, (4, 400))
    ids[:, 0] = BOS
    levels = torch.ones_like(ids) if below else torch.zeros_like(ids)
    calibrate(model, ids, levels, {})
    units = model(ids, levels).units[:, -1].sum().item()
    assert ids.numel() / units == pytest.approx(rate, rel=0.03)


def test_the_bias_follows_the_rate():
    predictor = router(bytes_per_unit=5, control=0.2)
    sums = RouterSums(*torch.tensor([1000.0, 400.0, 450.0, 0.0]))  # 400 boundaries where 200 are wanted
    predictor.adjust(sums, 1000)
    assert predictor.bias.item() == pytest.approx(0.2 * np.log(200 / 400))
    still = router(bytes_per_unit=5, control=0)
    still.adjust(sums, 1000)
    assert still.bias.item() == 0


def test_a_student_is_used_without_its_teacher():
    stack = Stack([{"name": "distilled", "teacher": "gone_since:Teacher"}])
    assert AUNet(tiny(2), stack)(torch.tensor([[BOS, 97, 98]])).logits.shape == (1, 3, 258)
    with pytest.raises(ValueError, match="gone_since"):
        _ = stack.learned[0].teacher


def test_deferring_equals_the_splitters():
    g = np.random.default_rng(0)
    fires, units = g.random(300) < 0.1, g.random(300) < 0.3
    expected = splitters.contract.defer(fires, units)
    at = torch.from_numpy(np.flatnonzero(units))[None]
    got = deferred(torch.from_numpy(fires)[None], at, torch.ones_like(at, dtype=torch.bool))
    assert got[0].tolist() == expected[units].tolist()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("router", {"bytes_per_unit": 1}, "bytes_per_unit is 1, it must be a number above 1"),
        ("router", {"bytes_per_unit": "abc"}, "bytes_per_unit is 'abc'"),
        ("router", {"bytes_per_unit": None}, "bytes_per_unit is None"),
        ("router", {"bytes_per_unit": float("inf")}, "bytes_per_unit is inf"),
        ("router", {"alpha": float("nan")}, "alpha is nan"),
        ("router", {"smoothing": "no"}, "smoothing is 'no', it must be true or false"),
        ("router", {"alpha": -1}, "alpha is -1"),
        ("router", {"control": -1}, "control is -1"),
        ("router", {"bytes_per_unit": {}}, "bytes_per_unit is {}, it must name languages"),
        ("router", {"bytes_per_unit": {"th": 1}}, "bytes_per_unit of th is 1, it must be a number above 1"),
        ("router", {"bytes_per_unit": {3: 4}}, "it must name languages"),
        ("router", {"one_sided": 1}, "one_sided is 1, it must be true or false"),
        ("router", {"bytes_per_unit_from": 3}, "target_steps is 0, they must be set together"),
        ("router", {"target_steps": 3}, "bytes_per_unit_from is None .* they must be set together"),
        ("router", {"target_steps": -1}, "target_steps is -1, it must be a whole number"),
        ("router", {"bytes_per_unit_from": 7, "target_steps": 9}, "bytes_per_unit_from is 7, it must be a number"),
        ("distilled", {"alpha": 0}, "alpha is 0"),
        ("distilled", {"balance": 2}, "balance is 2"),
        ("distilled", {"teacher": "nobody"}, "nobody"),
        ("distilled", {"teacher_steps": -1}, "teacher_steps is -1"),
        ("union", {"of": ["router"]}, "stands alone between two stages"),
        ("distilled", {"teacher": "router"}, "stands alone between two stages"),
    ],
)
def test_wrong_options_are_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        _ = getattr(splitters.build(name, **options), "teacher", None)  # looked up when it is needed: to train


def test_a_learned_splitter_is_nothing_without_its_model():
    with pytest.raises(TypeError, match="tests of a model cover its laws"):
        splitters.check("router")
    assert Stack(["whitespace", "router"]).levels(b"a b").tolist() == [0, 1, 0]
    splitters.check(Stack(["whitespace", UPPER, "router"]))
    with pytest.raises(ValueError, match="takes 1"):
        AUNet(tiny(2), ["router", "every"])
    for splitters_, stack in (([], "router"), (["router"], "fixed")):
        with pytest.raises(ValueError, match="make the model with the same splitters"):
            AUNet(tiny(2), splitters_).initial_state(1, Stack([stack]))


class NotANetwork(splitters.LearnedSplitter):
    def predictor(self, dim):
        return torch.nn.Linear(dim, 1)


class CountsCharacters(Teacher):
    def split(self, data):
        return np.zeros(len(data.decode("utf-8", "replace")), bool)


class Lists(Teacher):
    def split(self, data):
        return [False] * len(data)


class Raises(Teacher):
    def split(self, data):
        raise RuntimeError("boo")


def test_mistakes_in_ones_own_are_named():
    with pytest.raises(ValueError, match="predictor returned a Linear, not a"):
        AUNet(tiny(2), [NotANetwork()])
    for teacher, words in (
        (CountsCharacters(), r"returned bool \["),
        (Lists(), "returned list"),
        (Raises(), "raised RuntimeError on .*: boo"),
    ):
        with pytest.raises(ValueError, match=words):
            check_form(teacher)
    check_form(splitters.build("distilled").teacher)


def test_units_of_one_position_are_told():
    model = AUNet(tiny(3), ["utf8_character", {"name": "router", "bytes_per_unit": 1.5}])
    sums = {1: RouterSums(*torch.tensor([500.0, 490.0, 400.0, 0.0]))}
    learning = Learning(model)
    with pytest.warns(UserWarning, match="becomes its own unit: ask for longer units"):
        learning.loss(sums, sums, 1000)
    assert learning.logged["collapsed_stage3"] == 0


def test_networks_are_what_the_names_say():
    assert isinstance(router(), RouterNetwork)
    assert isinstance(splitters.build("distilled").predictor(8), StudentNetwork)
    with pytest.raises(ValueError, match="conv is 0"):
        StageConfig(16, 1, 8, conv=0)
