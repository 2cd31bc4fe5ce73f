"""The laws of the model, for every splitter and 1–4 stages, and a plain form of it to compare with."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.model.attention import within_row
from aunet_lightning.model.layers import Rotation
from aunet_lightning.vocabulary import BOS, EOS
from tests.helpers import MIXED, MIXED_CHUNKS, N_STAGES, inside, stack_of, stepped_levels, tiny, tiny_model
from tests.plain_aunet import plain_logits

TEXTS = [MIXED, "nothing alike: 人人生而自由".encode() + b" a" * 30, b"x" * 90]


def batch(stack, texts=TEXTS, length=80):
    """Rows [BOS, bytes …] of one length with their levels."""
    ids = torch.tensor([[BOS, *text[: length - 1]] for text in texts])
    levels = torch.tensor([[stack.depth, *stack.levels(bytes(row[1:]))] for row in ids.tolist()])
    return ids, levels


def packed(stack, texts=TEXTS):
    """One row of several documents: BOS bytes EOS BOS bytes EOS …"""
    ids, levels = [], []
    for text in texts:
        ids += [BOS, *text, EOS]
        levels += [stack.depth, *stack.levels(text), 0]
    return torch.tensor([ids]), torch.tensor([levels])


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("upsampling", ["multi_linear", "repeat", "copy", "insert"])
@pytest.mark.parametrize("document_masking", [False, True])
def test_equals_the_plain_form(stages, upsampling, document_masking):
    config = tiny(stages, upsampling=upsampling, document_masking=document_masking, max_offset=5)
    model, stack = tiny_model(config), stack_of("whitespace", stages)
    ids, levels = packed(stack, [MIXED[:40], b"one two. three\nfour"])
    with torch.no_grad():
        got = model(ids, levels).logits[0]
        expected = plain_logits(model, ids[0].tolist(), levels[0].tolist())
    torch.testing.assert_close(got, expected, atol=5e-5, rtol=1e-4)  # some CPUs add up in another order


@pytest.mark.parametrize(
    "options",
    [{"offsets": "modulo"}, {"offsets": "clamp"}, {"skip": False}, {"cap": 3}, {"cap": 3, "offsets": "modulo"}],
    ids=str,
)
def test_options_equal_the_plain_form(options):
    skip, cap = options.pop("skip", True), options.pop("cap", None)
    stages = [
        StageConfig(dim=16, layers=1, head_dim=8, window=8, skip=skip),
        StageConfig(dim=24, layers=1, head_dim=8, skip=skip, max_units=cap and 3 * cap),
        StageConfig(dim=16, layers=1, head_dim=8, max_units=cap),
    ]
    model, stack = tiny_model(AUNetConfig(stages=stages, max_offset=3, **options)), stack_of("cjk_character", 3)
    ids, levels = batch(stack)
    with torch.no_grad():
        output = model(ids, levels)
        for row in range(len(ids)):
            expected = plain_logits(model, ids[row].tolist(), levels[row].tolist())
            torch.testing.assert_close(output.logits[row], expected, atol=2e-5, rtol=1e-4)
    forced = levels.clone()
    forced[:, 0] = 2
    wanted = torch.stack([(forced > 0).sum(1), (forced > 1).sum(1)], 1)
    if cap is None:
        assert torch.equal(output.units, wanted)
        assert not output.dropped.any()
    else:
        assert torch.equal(output.units[:, 0], wanted[:, 0].clamp(max=3 * cap))
        assert torch.equal(output.dropped[:, 0], (wanted[:, 0] - 3 * cap).clamp(min=0))
        assert output.dropped.sum() > 0


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_later_byte_changes_no_earlier_logit(splitter, stages, dtype):
    stack = stack_of(splitter, stages)
    model = tiny_model(tiny(stages), stack=stack).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    text = MIXED[:60]
    places = [(t, byte) for t in (1, 17, 30, 59) for byte in (0x20, 0x61, 0x0A, 0xE4)]
    texts = [text, *(text[:t] + bytes([byte]) + text[t + 1 :] for t, byte in places)]
    with torch.no_grad():
        ids, levels = batch(stack, texts, 61)
        before, *changed = model(ids, levels, refreshes=inside(stack, ids)).logits.float()
    for (t, _), after in zip(places, changed, strict=True):
        torch.testing.assert_close(after[: t + 1], before[: t + 1], atol=tolerance, rtol=tolerance)


def test_the_leak_test_can_fail():
    """Levels that peek (a boundary before the blank, not at it) show as changed logits."""
    stack, model = stack_of("whitespace", 2), tiny_model(tiny(2))

    def peeking(text):
        ids, levels = batch(stack, [text], len(text) + 1)
        return model(ids, torch.cat([levels[:, 1:], levels[:, :1]], 1)).logits

    with torch.no_grad():
        a, b = peeking(b"abcd efgh"), peeking(b"abcde fgh")
    assert (a[:, :5] - b[:, :5]).abs().max() > 1e-3  # they read the same four bytes


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("document_masking", [False, True])
def test_stepping_equals_the_full_forward(splitter, stages, document_masking):
    assert_steps(stack_of(splitter, stages), tiny(stages, document_masking=document_masking), MIXED_CHUNKS)


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("document_masking", [False, True])
@pytest.mark.parametrize("chunks", [[1] * 80, [7, 1, 1, 40, 31], [79, 1]], ids=["bytes", "chunks", "prefill"])
def test_stepping_in_any_chunks(stages, document_masking, chunks):
    assert_steps(stack_of("cjk_character", stages), tiny(stages, document_masking=document_masking), chunks)


def assert_steps(stack, config, chunks):
    model = tiny_model(config, stack=stack)
    ids, _ = batch(stack)
    ids[:, 37] = BOS  # a second document, at which windows and offsets of the rows differ
    levels = torch.tensor([stepped_levels(stack, row) for row in ids.tolist()])
    with torch.no_grad():
        full = model(ids, levels, refreshes=inside(stack, ids))
        state, logits = model.initial_state(len(ids), stack), []
        for part in ids.split(chunks, 1):
            output = model(part, state=state)
            state = output.state
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), full.logits, atol=1e-4, rtol=1e-4)


def test_a_capped_model_steps_as_it_reads():
    stages = [StageConfig(dim=16, layers=1, head_dim=8), StageConfig(dim=16, layers=1, head_dim=8, max_units=4)]
    model, stack = tiny_model(AUNetConfig(stages=stages)), stack_of("whitespace", 2)
    ids, levels = batch(stack)
    with torch.no_grad():
        full, state, dropped, logits = model(ids, levels), model.initial_state(len(ids), stack), 0, []
        for t in range(ids.shape[1]):
            output = model(ids[:, t : t + 1], state=state)
            state, dropped = output.state, dropped + output.dropped
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), full.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(dropped, full.dropped)
    assert dropped.any()


def test_a_state_is_a_value(splitter):
    """Going on twice from one state gives the same twice: nothing is kept anywhere else."""
    stack = stack_of(splitter, 3)
    model = tiny_model(tiny(3), stack=stack)
    ids, _ = batch(stack)
    with torch.no_grad():
        state = model(ids[:, :40], state=model.initial_state(len(ids), stack)).state
        first = model(ids[:, 40:], state=state).logits
        model(ids[:, :13], state=state)
        again = model(ids[:, 40:], state=state).logits
    assert torch.equal(first, again)


def test_a_place_far_into_a_stream_is_like_one_at_its_beginning():
    """Attention sees distances: the same text 2^24 positions on has the same keys up to a turn that cancels."""
    q, k = torch.randn(2, 1, 2, 20, 8, dtype=torch.float64)
    scores = []
    for start in (0, 2**24):
        rotation = Rotation.at(start + torch.arange(20)[None], 8, 500_000.0, torch.float64)
        scores.append(rotation(q) @ rotation(k).transpose(-1, -2))
    torch.testing.assert_close(scores[1], scores[0], atol=1e-7, rtol=1e-7)


def test_training_goes_on_after_stepping():
    stack, model = stack_of("whitespace", 3), tiny_model(tiny(3))
    ids, levels = batch(stack)
    before = model(ids, levels).logits
    with torch.no_grad():
        model(ids, state=model.initial_state(len(ids), stack))
    after = model(ids, levels).logits
    assert torch.equal(before, after)
    after.sum().backward()


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("document_masking", [False, True])
def test_a_row_does_not_see_its_company(splitter, stages, document_masking):
    stack = stack_of(splitter, stages)
    model = tiny_model(tiny(stages, document_masking=document_masking), stack=stack)
    ids, levels = batch(stack)
    padded_ids, padded_levels = F.pad(ids, (0, 23), value=EOS), F.pad(levels, (0, 23))
    with torch.no_grad():
        together = model(padded_ids, padded_levels, refreshes=inside(stack, padded_ids)).logits[:, : ids.shape[1]]
        for row in range(len(ids)):
            own = ids[row : row + 1]
            alone = model(own, levels[row : row + 1], refreshes=inside(stack, own)).logits[0]
            torch.testing.assert_close(together[row], alone, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("stages", N_STAGES)
def test_a_masked_document_does_not_see_those_packed_before_it(splitter, stages):
    stack = stack_of(splitter, stages)
    model = tiny_model(tiny(stages, document_masking=True), stack=stack)
    ids, levels = packed(stack)
    starts = [*(ids[0] == BOS).nonzero()[:, 0].tolist(), ids.shape[1]]
    with torch.no_grad():
        together = model(ids, levels, refreshes=inside(stack, ids)).logits[0]
        for begin, end in itertools.pairwise(starts):
            own = ids[:, begin:end]
            alone = model(own, levels[:, begin:end], refreshes=inside(stack, own)).logits[0]
            torch.testing.assert_close(together[begin:end], alone, atol=5e-5, rtol=1e-4)


def test_a_cap_counts_each_masked_document_for_itself():
    stages = [
        StageConfig(dim=16, layers=1, head_dim=8),
        StageConfig(16, 1, 8, max_units=4),
        StageConfig(16, 1, 8, max_units=1),
    ]
    model, stack = tiny_model(AUNetConfig(stages=stages, document_masking=True)), stack_of("whitespace", 3)
    ids, levels = packed(stack, [b"a b c d e f g", b"hello you there. and so on and on", b"x"])
    starts = [*(ids[0] == BOS).nonzero()[:, 0].tolist(), ids.shape[1]]
    with torch.no_grad():
        together = model(ids, levels)
        dropped = torch.zeros_like(together.dropped)
        for begin, end in itertools.pairwise(starts):
            alone = model(ids[:, begin:end], levels[:, begin:end])
            torch.testing.assert_close(together.logits[:, begin:end], alone.logits, atol=5e-5, rtol=1e-4)
            dropped += alone.dropped
        state, logits, stepped = model.initial_state(1), [], 0
        for t in range(ids.shape[1]):
            output = model(ids[:, t : t + 1], levels[:, t : t + 1], state)
            state, stepped = output.state, stepped + output.dropped
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), together.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(together.dropped, dropped)
    assert torch.equal(together.dropped, stepped)
    assert dropped.all()


def test_an_unmasked_document_does_see_them():
    stack, model = stack_of("whitespace", 2), tiny_model(tiny(2, document_masking=False))
    ids, levels = packed(stack)
    begin = (ids[0] == BOS).nonzero()[1, 0].item()
    with torch.no_grad():
        together = model(ids, levels).logits[0, begin : begin + 20]
        alone = model(ids[:, begin : begin + 20], levels[:, begin : begin + 20]).logits[0]
    assert (together - alone).abs().max() > 1e-3


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 65, 100, 257])
@pytest.mark.parametrize("window", [1, 2, 5, 31, 32, 33, 64, None])
@pytest.mark.parametrize("n_documents", [None, 1, 7])
def test_windows_equal_a_plain_mask(n, window, n_documents):
    torch.manual_seed(n)
    q, k, v = torch.randn(3, 2, 4, n, 8)
    documents = None if n_documents is None else torch.randint(0, n_documents, (2, n)).sort(1).values
    at = torch.arange(n)
    distance = at[:, None] - at[None]
    mask = (distance >= 0) & (distance < (window or n))
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    got = within_row(documents, 2, n, window, q.device).attend(q, k, v)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_a_window_costs_by_its_width():
    def scores(n):
        visibility = within_row(None, 1, n, 64, torch.device("cpu"))
        return visibility.mask.numel()

    assert scores(8192) <= 2.1 * scores(4096)
    assert scores(4096) < 4096 * 4096 / 16


@pytest.mark.parametrize("stages", N_STAGES)
@pytest.mark.parametrize("upsampling", ["multi_linear", "repeat", "insert"])
def test_initialisation_reaches_everything(stages, upsampling):
    model = AUNet(tiny(stages, upsampling=upsampling))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(torch.nan)
    torch.manual_seed(1)
    model.init_weights()
    assert all(tensor.isfinite().all() for tensor in (*model.parameters(), *model.buffers()))
    again = AUNet(tiny(stages, upsampling=upsampling))
    torch.manual_seed(1)
    again.init_weights()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_blocks_can_begin_as_nothing():
    net = AUNet(tiny(3, residual_init=0))
    for stage in net.stages:
        for block in stage.blocks:
            assert not block.attention.out.weight.any()
            assert not block.ffn.down.weight.any()
            assert block.ffn.up.weight.any()


def test_dropout_is_of_training_alone():
    ids = torch.randint(0, 256, (2, 40))
    plain, net = AUNet(tiny(1)).eval(), AUNet(tiny(1, dropout=0.5)).eval()
    net.load_state_dict(plain.state_dict())
    assert torch.equal(net(ids).logits, plain(ids).logits)
    net.train()
    assert not torch.equal(net(ids).logits, net(ids).logits)
    gradients = []
    for recompute in (False, True):
        for block in net.stages[0].blocks:
            block.recompute = recompute
        torch.manual_seed(5)
        net.zero_grad()
        net(ids).logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("stages", N_STAGES)
def test_every_parameter_learns_even_from_one_unit(stages):
    model = AUNet(tiny(stages, max_offset=2))
    ids = torch.tensor([[BOS, 97, 98, 99]])
    model(ids, torch.zeros_like(ids)).logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 1), (3, 17), (2, 300)])
@pytest.mark.parametrize("stages", N_STAGES)
def test_rows_and_batches_of_any_size(shape, stages):
    model = tiny_model(tiny(stages))
    output = model(torch.randint(0, 256, shape), torch.randint(0, stages, shape))
    assert output.logits.shape == (*shape, 258)
    assert output.state is None
    assert output.units.shape == (shape[0], stages - 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, s: m(torch.zeros(1, 3, dtype=torch.long)), "no levels"),
        (lambda m, s: m(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 4)), r"\[1, 3\].*\[1, 4\]"),
        (lambda m, s: m(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0)), "at least 1"),
        (lambda m, s: m(torch.zeros(1, 1, dtype=torch.long), state=m.initial_state(1)), "levels are missing"),
        (lambda m, s: m.initial_state(1, s), "takes 2"),
    ],
)
def test_wrong_calls_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(tiny_model(tiny(3)), stack_of("whitespace", 4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": []}, "stages is empty"),
        ({"stages": [{"dim": 16, "layers": 0}]}, "layers is 0"),
        ({"stages": [{"dim": 16, "layers": 1, "head_dim": 5}]}, "head_dim is 5"),
        ({"stages": [{"dim": 64, "layers": 1}], "upsampling": "linear"}, "multi_linear, repeat, copy, insert"),
        ({"stages": [{"dim": 64, "layers": 1}], "max_offset": 0}, "max_offset is 0"),
        ({"stages": [{"dim": 64, "layers": 1, "max_units": 5}]}, "max_units"),
    ],
)
def test_wrong_configurations_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        AUNetConfig(**options)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same():
    stack = stack_of("whitespace", 2)
    model = tiny_model(AUNetConfig([{"dim": dim, "layers": 1, "head_dim": 8, "window": 4} for dim in (16, 24)]))
    ids, levels = batch(stack)
    with torch.no_grad():
        plain = model(ids, levels).logits
        keys = list(model.state_dict())
        model.compile()
        torch.testing.assert_close(model(ids, levels).logits, plain, atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == keys


@pytest.mark.gpu
@pytest.mark.parametrize("stages", N_STAGES)
def test_cuda_gives_what_the_cpu_gives(stages):
    stack, model = stack_of("cjk_character", stages), tiny_model(tiny(stages, document_masking=True))
    ids, levels = packed(stack)
    with torch.no_grad():
        cpu = model(ids, levels).logits
        cuda = model.cuda()(ids.cuda(), levels.cuda()).logits.cpu()
    torch.testing.assert_close(cuda, cpu, atol=1e-3, rtol=1e-3)
