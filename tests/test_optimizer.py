"""Optimizers and schedules: Muon beside its plain form, learning rates over widths, branches of one run."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.training import by_group
from aunet_lightning.training import optimizer as optimizer_module
from aunet_lightning.training.by_group import ByGroup
from aunet_lightning.training.optimizer import OptimizerConfig, build_optimizer
from splitters import Stack
from tests.helpers import UDHR, tiny, tiny_model

SHAPES = [(6, 6), (8, 3), (3, 8), (5, 4, 7), (5, 7, 4)]


def matrices(shapes=SHAPES, dtype=torch.float32):
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def muon_of(parameters, lr=0.1, weight_decay=0.2, **options):
    groups = [{"params": parameters, "lr": lr, "weight_decay": weight_decay, "algorithm": "muon", **options}]
    return ByGroup(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)


@pytest.mark.parametrize("every", [1, 2])
def test_steps_of_muon_are_those_of_its_plain_form(every):
    torch.manual_seed(0)
    parameters = matrices()
    plain = [p.detach().clone() for p in parameters]
    momenta = [torch.zeros_like(p) for p in plain]
    optimizer = muon_of(parameters, **({} if every == 1 else {"every": every}))
    for step in range(1, 6):
        for p, x, m in zip(parameters, plain, momenta, strict=True):
            p.grad = torch.randn_like(p)
            m.copy_(0.95 * m + 0.05 * p.grad)
            update = 0.95 * m + 0.05 * p.grad
            if step % every:
                continue
            for matrix, u in zip(x.view(-1, *x.shape[-2:]), update.view(-1, *x.shape[-2:]), strict=True):
                rows, columns = matrix.shape
                o = u / u.norm()
                for a, b, c in by_group.STEPS:
                    o = a * o + b * (o @ o.T @ o) + c * (o @ o.T @ o @ o.T @ o)
                lr = 0.1 * every
                matrix.mul_(1 - lr * 0.2).sub_(o, alpha=lr * math.sqrt(max(1, rows / columns)))
        optimizer.step()
    for p, x in zip(parameters, plain, strict=True):
        torch.testing.assert_close(p.detach(), x, rtol=1e-4, atol=1e-5)


def test_muon_with_pytorchs_polynomial_is_pytorchs(monkeypatch):
    monkeypatch.setattr(by_group, "STEPS", ((3.4445, -4.7750, 2.0315),) * 5)
    torch.manual_seed(0)
    parameters = matrices([(24, 24), (32, 16), (16, 32)])
    theirs = [nn.Parameter(p.detach().clone()) for p in parameters]
    mine, other = muon_of(parameters), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.2)
    for _ in range(3):
        for p, q in zip(parameters, theirs, strict=True):
            p.grad = q.grad = torch.randn_like(p)
        mine.step()
        other.step()
    for p, q in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0.02)  # theirs is in bfloat16


@given(st.integers(0, 2**30), st.sampled_from([(12, 12), (8, 20), (20, 8)]), st.floats(-6, 6))
def test_steps_are_orthogonal_whatever_the_size_of_gradients(seed, shape, scale):
    update = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)) * 10.0**scale
    (found,) = by_group._orthogonal([update])
    u, s, v = torch.linalg.svd(update, full_matrices=False)
    values = (u.mT @ found @ v.mT).diagonal(dim1=1, dim2=2)
    kept = s > 0.1 * s.amax(1, keepdim=True)
    assert ((values[kept] > 0.4) & (values[kept] < 1.8)).all()


def test_muon_takes_matrices_between_hidden_vectors_and_adamw_the_rest():
    net = tiny_model(tiny(3))
    optimizer = build_optimizer(net, OptimizerConfig(name="muon", lr=0.003, matrix_lr=0.01))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len([*net.parameters()])
    taken = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        other = any(part in name for part in ("norm", "embedding", "head", "conv"))
        assert (taken[id(parameter)]["algorithm"] == "muon") == (not other), name
        of_width = 4 ** (0.5 * ("embedding" in name) + ("head" in name))  # width 16 beside 64
        assert taken[id(parameter)]["lr"] == (0.003 * of_width if other else 0.01), name
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kinds = {"momentum"}, {"step", "exp_avg", "exp_avg_sq"}
    for parameter, state in optimizer.state.items():
        assert state.keys() == kinds[taken[id(parameter)]["algorithm"] != "muon"]


def test_the_rest_steps_as_with_adamw(monkeypatch):
    monkeypatch.setattr(optimizer_module, "WIDTH", 16)  # of these networks
    nets = [tiny_model(tiny(2)), tiny_model(tiny(2))]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [
        build_optimizer(net, OptimizerConfig(name=name)) for net, name in zip(nets, ("adamw", "muon"), strict=True)
    ]
    for _ in range(3):
        for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            p.grad = q.grad = torch.randn_like(p)
        for optimizer in optimizers:
            optimizer.step()
    taken = {id(p) for group in optimizers[1].param_groups if group["algorithm"] == "muon" for p in group["params"]}
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q) == (id(q) not in taken)


@pytest.mark.parametrize("sparse", [True, False])
def test_rows_that_were_read_step_as_with_pytorchs_sparse_adam(sparse):
    torch.manual_seed(0)
    mine, theirs = (nn.Embedding(12, 4, sparse=kind) for kind in (sparse, True))
    theirs.load_state_dict(mine.state_dict())
    groups = [{"params": [mine.weight], "lr": 0.1, "weight_decay": 0.5, "algorithm": "rows"}]
    optimizers = ByGroup(groups, 0.1, (0.9, 0.95), 1e-8), torch.optim.SparseAdam([theirs.weight], 0.1, (0.9, 0.95))
    before = mine.weight.detach().clone()
    for rows in ([1, 3, 3], [3, 5], [1]):
        for table, optimizer in zip((mine, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(mine.weight, theirs.weight)
    assert torch.equal(mine.weight[6:], before[6:])
    assert not torch.equal(mine.weight[5], before[5])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_tables_learn_alike_from_sparse_and_dense_gradients(name):
    ids, found = torch.randint(0, 256, (2, 40)), []
    for sparse in (True, False):
        net = tiny_model(tiny(2, embedding="ngrams", ngram_rows=50)).train()
        optimizer = build_optimizer(net, OptimizerConfig(name=name), sparse=sparse)
        for _ in range(3):
            net(ids, torch.zeros_like(ids)).logits.logsumexp(-1).sum().backward()
            assert net.embedding.ngrams.weight.grad.is_sparse == sparse
            optimizer.step()
            optimizer.zero_grad()
        found.append(net.state_dict())
    for key, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][key])


@pytest.mark.parametrize("total", [50, 400, math.inf])
def test_a_rate_that_stays_falls_in_a_line_at_the_end(total):
    config = OptimizerConfig(warmup_steps=10, final_lr_ratio=0.1, cooldown=0.2)
    assert [config.lr_factor(step, total) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1])
    begins = 0.8 * min(total, 10**6)
    assert all(config.lr_factor(step, total) == 1 for step in range(10, int(begins), 7))
    if total < math.inf:
        falling = [config.lr_factor(step, total) for step in range(int(begins), total + 1)]
        assert falling[0] == 1
        assert falling[-1] == pytest.approx(0.1)
        steps = [a - b for a, b in itertools.pairwise(falling)]
        assert steps == pytest.approx([steps[0]] * len(steps))


def udhr():
    """ids and levels of the text of all languages."""
    lines = [line for path in sorted(UDHR.glob("*.jsonl")) for line in path.read_text().splitlines()]
    text = "\n".join(json.loads(line)["text"] for line in lines).encode()
    return torch.tensor(list(text)), torch.tensor(Stack(["whitespace"]).levels(text).astype(int))


def loss_of(width, rate, text, steps=90, rows=4, length=192):
    """The mean loss of the last fifth of a short run through a part of `text`, with `rate` times the usual rates."""
    stages = [{"dim": dim, "layers": 1, "head_dim": 16, "window": 32, "conv": 4} for dim in (width, width + width // 2)]
    torch.manual_seed(0)
    net = AUNet(AUNetConfig(stages, document_masking=False))
    config = OptimizerConfig(name="muon", lr=0.004 * rate, matrix_lr=0.02 * rate, warmup_steps=9, cooldown=0.5)
    optimizer, losses = build_optimizer(net, config), []
    ids, levels = text
    drawn = torch.Generator().manual_seed(0)
    begins = torch.randint(0, len(ids) - length - 1, (steps, rows, 1), generator=drawn) + torch.arange(length)
    for step, at in enumerate(begins):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * config.lr_factor(step, steps)
        loss = nn.functional.cross_entropy(net(ids[at], levels[at]).logits.flatten(0, 1), ids[at + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return sum(losses[-steps // 5 :]) / (steps // 5)


@pytest.mark.slow
def test_the_best_learning_rate_is_that_of_other_widths():
    found, text = [], udhr()
    for width in (64, 96, 128):
        a, b, c = (loss_of(width, 2**log, text) for log in (0, 0.75, 1.5))
        assert b < min(a, c), (width, a, b, c)
        found.append(2 ** (0.75 + 0.375 * (a - c) / (a - 2 * b + c)))  # the lowest point of the parabola
    assert max(found) < 1.4 * min(found), found  # 1.18
