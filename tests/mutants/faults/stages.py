"""Faults of stages and the model that they make, and of its costs."""

from tests.mutants.faults.fault import LEARNED, MODEL, Fault

STAGES = [
    Fault(
        "a BOS begins no document",
        "aunet_lightning/model/aunet.py",
        "forced = begins if masked or self.predictors else torch.zeros_like(begins)",
        "forced = torch.zeros_like(begins)",
        (
            MODEL + "test_a_cap_counts_each_masked_document_for_itself",
            LEARNED + "test_a_masked_document_does_not_see_the_one_before",
        ),
    ),
    Fault(
        "documents of a stream are those of a row",
        "aunet_lightning/model/aunet.py",
        "(0 if state is None else state.document[:, None])",
        "0",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "a stage forgets its skip connection",
        "aunet_lightning/model/stage.py",
        "x = up + way.h if self.config.skip else up",
        "x = up",
        (MODEL + "test_equals_the_plain_form",),
    ),
    Fault(
        "positions of a call begin at 0",
        "aunet_lightning/model/stage.py",
        "positions = cache.count[:, None] + positions  # [B, N]",
        "positions = cache.count[:, None] * 0 + positions + cache.size",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "the decoder steps on the encoder's cache",
        "aunet_lightning/model/stage.py",
        "past.cache.layers[self.config.layers :] if past else ()",
        "past.cache.layers[: self.config.layers] if past else ()",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "a cap per row in place of per document",
        "aunet_lightning/model/transition.py",
        "counted = counted_in_documents(boundary, stream.begins, before)",
        "counted = counted_in_documents(boundary, torch.zeros_like(stream.begins), before)",
        (MODEL + "test_a_cap_counts_each_masked_document_for_itself",),
    ),
    Fault(
        "a cap that drops one more",
        "aunet_lightning/model/transition.py",
        "boundary = boundary & (counted <= cap)",
        "boundary = boundary & (counted < cap)",
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "a smoothed vector of a new document remembers",
        "aunet_lightning/model/transition.py",
        "p = decision.log_odds.sigmoid().masked_fill(decision.forced, 1.0)",
        "p = decision.log_odds.sigmoid()",
        (LEARNED + "test_a_masked_document_does_not_see_the_one_before", LEARNED + "test_equals_the_plain_form"),
    ),
    Fault(
        "a router reads the position itself twice",
        "aunet_lightning/model/deciders.py",
        "return self.predictor(h, torch.cat([first, h[:, :-1]], 1))",
        "return self.predictor(h, h)",
        (LEARNED + "test_equals_the_plain_form",),
    ),
    Fault(
        "the cache forgets a position that the window sees",
        "aunet_lightning/model/state.py",
        "kept = valid & (positions >= (count - size)[:, None])",
        "kept = valid & (positions >= (count - size + 2)[:, None])",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "EOS moves a stepper",
        "aunet_lightning/model/state.py",
        "elif byte < N_BYTES:\n                    levels[row, position] = steppers[row].push(byte)",
        "else:\n                    levels[row, position] = steppers[row].push(byte % 256)",
        (LEARNED + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "the ids of another published name",
        "aunet_lightning/model/layers.py",
        "return self.down(F.silu(self.gate(x)) * self.up(x))",
        "return self.down(F.silu(self.up(x)) * self.gate(x))",
        ("tests/test_golden.py::test_logits_loss_and_every_gradient",),
    ),
    Fault(
        "FLOPs without attention",
        "aunet_lightning/costs/flops.py",
        "flops = linear * n + attention * self._attended(n)",
        "flops = linear * n",
        ("tests/test_costs.py::test_wrong_coefficients_are_found_by_that",),
    ),
    Fault(
        "units cost what bytes cost",
        "aunet_lightning/costs/flops.py",
        "self.weights[s + 1] += linear_weights(transition.pooling)",
        "self.weights[s] += linear_weights(transition.pooling)",
        ("tests/test_costs.py::test_wrong_coefficients_are_found_by_that",),
    ),
]
