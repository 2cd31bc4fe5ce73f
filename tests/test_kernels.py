"""Fast forms against the plain forms they equal, and shapes that are known before a forward."""

import time
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.model import grouped, kernels
from aunet_lightning.model.units import Room
from aunet_lightning.training import compiling

STAGES = [
    StageConfig(16, 1, 8, window=33, conv=3), StageConfig(24, 1, 8, window=5), StageConfig(32, 2, 16, conv=2)
]  # fmt: skip


def batch(rows, n, seed, every=(2, 9)):
    """Ids, levels and the units of each row at both transitions; units of different rows differ in length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (rows, n), generator=generator)
    ids[:, n // 2] = 256
    levels = torch.zeros_like(ids)
    for r in range(rows):
        levels[r, :: every[r % 2]] = 1
        levels[r, :: 3 * every[r % 2]] = 2
    levels[:, 0] = levels[:, n // 2] = 2
    return ids, levels, [[int((row > s).sum()) for row in levels] for s in range(2)]


def results(net, ids, levels, rooms=()):
    output = net(ids, levels, rooms=rooms)
    loss = F.cross_entropy(output.logits.flatten(0, 1), ids.flatten())
    gradients = torch.autograd.grad(loss, [*net.parameters()], materialize_grads=True)
    return output.logits, output.units, gradients


@pytest.mark.parametrize("upsampling", ["multi_linear", "repeat"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(1, 5), (3, 130), (4, 300)])
def test_fast_forms_equal_the_plain_forms(upsampling, masked, shape, monkeypatch):
    torch.manual_seed(1)
    net = AUNet(AUNetConfig(STAGES, upsampling=upsampling, document_masking=masked)).double()
    ids, levels, n_units = batch(*shape, seed=shape[1])
    fast = results(net, ids, levels, net.rooms_for(n_units))
    monkeypatch.setattr(kernels, "PLAIN", True)
    torch.testing.assert_close(fast, results(net, ids, levels), atol=1e-9, rtol=1e-7)


def operations(node, found):
    """Names of all operations of an autograd graph."""
    if node is not None and node not in found:
        found[node] = node.name()
        for before, _ in node.next_functions:
            operations(before, found)
    return {*found.values()}


def test_each_fast_form_is_taken(monkeypatch):
    """Else the test above would compare the plain form with itself."""
    ids, levels, n_units = batch(3, 130, seed=0)
    net = AUNet(AUNetConfig(STAGES))
    fast = operations(net(ids, levels, rooms=net.rooms_for(n_units)).logits.grad_fn, {})
    monkeypatch.setattr(kernels, "PLAIN", True)
    plain = operations(net(ids, levels).logits.grad_fn, {})
    names = ("_NormedLinearBackward", "_NormedSwiGLUBackward", "_InBlocksBackward", "_ConvolvedBackward")
    for name in (*names, "aunet_sorted_linear"):
        assert any(name in one for one in fast), name
        assert not any(name in one for one in plain), name


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 20), st.integers(0, 2**31))
def test_products_by_group_equal_a_loop(n, n_groups, seed):
    """Also as an accelerator computes them, in tiles, and with groups that have no row."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(0, n_groups, (n,), generator=generator) // 2
    x, weights = (torch.randn(*shape, generator=generator).double() for shape in ((n, 3), (n_groups, 5, 3)))
    x.requires_grad_(), weights.requires_grad_()
    expected = torch.stack([weights[g] @ row for g, row in zip(groups, x, strict=True)])
    got = grouped.grouped_linear(x, groups, weights)
    torch.testing.assert_close(got, expected)
    grad = torch.randn(n, 5, generator=generator).double()
    gradients = torch.autograd.grad(expected, (x, weights), grad)
    torch.testing.assert_close(torch.autograd.grad(got, (x, weights), grad), gradients)

    order, sizes = groups.argsort(stable=True), groups.bincount(minlength=n_groups)
    tiled = grouped._tiled_linear(x[order], sizes, weights)
    torch.testing.assert_close(tiled, expected[order])
    torch.testing.assert_close(grouped._tiled_outer(grad[order], x[order], sizes), gradients[1])


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.75])
def test_dropout_leaves_out_a_share_and_keeps_the_mean(share, plain, monkeypatch):
    monkeypatch.setattr(kernels, "PLAIN", plain)
    torch.manual_seed(0)
    x, update = torch.randn(1, 600, 200), torch.full((1, 600, 200), 3.0, requires_grad=True)
    found = kernels.added(x, update, share)
    (gradient,) = torch.autograd.grad(found.sum(), update)
    part = (found - x).detach()
    left_out = (part.abs() < 1e-5).float().mean((0, 1))  # of each channel
    assert left_out.mean() == pytest.approx(share, abs=0.004)
    assert left_out.std() == pytest.approx((share * (1 - share) / 600) ** 0.5, rel=0.2, abs=1e-4)
    torch.testing.assert_close(part, 3 * gradient, atol=1e-5, rtol=1e-5)
    assert part.mean() == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("rows_differ", [False, True])
def test_forward_and_backward_read_nothing_from_the_device(rows_differ):
    """Fake tensors have no data to read."""
    ids, levels, n_units = batch(4, 300, seed=0, every=(2, 9) if rows_differ else (4, 4))
    with torch.device("meta"):
        net = AUNet(AUNetConfig(STAGES))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        net.to_empty(device="cpu")
        fake = [mode.from_tensor(tensor) for tensor in (ids, levels)]
        logits, _, gradients = results(net, *fake, net.rooms_for(n_units))
        assert logits.shape == (4, 300, 258)
        assert all(gradient.shape == p.shape for gradient, p in zip(gradients, net.parameters(), strict=True))
        with pytest.raises(Exception, match="_local_scalar_dense"):
            results(net, *fake)  # it is read where nobody counted


def test_too_little_room_is_an_error():
    net, (ids, levels, n_units) = AUNet(AUNetConfig(STAGES)), batch(2, 40, seed=0)
    net(ids, levels, rooms=net.rooms_for(n_units))
    for lacking in (1, 5):
        with pytest.raises((IndexError, RuntimeError), match="index"):
            net(ids, levels, rooms=[Room(max(n_units[0]) - lacking, sum(n_units[0]))])


def test_few_compilations_for_many_shapes():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    net = AUNet(AUNetConfig([StageConfig(16, 1, 8, window=33), StageConfig(24, 1, 8, window=40)]))
    net.compile(backend=count, fullgraph=True)
    for seed in range(50):
        ids, levels, n_units = batch(4, 256, seed, every=(2 + seed % 4, 2 + seed % 5))
        net(ids, levels, rooms=net.rooms_for(n_units[:1])).logits.sum().backward()
    assert 1 <= len(graphs) <= 8
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("left", "speed", "said"),
    [
        (100, 2.0, "not compiled: 85 s"),
        (10**4, 2.0, "compiled: a batch takes 0.5 s"),
        (10**4, 1.0, "not compiled: a batch"),
    ],
)
def test_auto_compiles_where_it_pays(left, speed, said, monkeypatch, capsys):
    compiled, clock = [], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    stances = []
    monkeypatch.setattr(torch.compiler, "set_stance", stances.append)
    net = SimpleNamespace(compile=lambda: compiled.append(True))
    module = SimpleNamespace(net=net, device=torch.device("cpu"), total_steps=lambda step: left, _device_mesh=None)
    trainer = SimpleNamespace(global_step=0, accumulate_grad_batches=1)
    auto = compiling.AutoCompile()
    for step in range(60):
        trainer.global_step = step + 1
        auto.on_train_batch_start(trainer, module, None, step)
        clock[0] += 1 / speed if compiled else 1.0
        auto.on_train_batch_end(trainer, module, None, None, step)
    assert f"the network is {said}" in capsys.readouterr().out
    assert len(compiled) == (left > 100)
    assert stances == (["force_eager"] if compiled and speed == 1 else [])
