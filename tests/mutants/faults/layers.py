"""Faults of attention, convolutions, scans and upsampling."""

from tests.mutants.faults.fault import LEARNED, LEARNED_NETWORKS, MODEL, Fault

LAYERS = [
    Fault(
        "a window one position too wide",
        "aunet_lightning/model/attention.py",
        "sees &= distance < window",
        "sees &= distance <= window",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "attention that peeks",
        "aunet_lightning/model/attention.py",
        "sees = (distance >= 0)",
        "sees = (distance >= -1)",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "the mask of documents is ignored in blocks",
        "aunet_lightning/model/attention.py",
        "mask = _sees(query, key, of_query, of_key, window)",
        "mask = _sees(query, key, None, None, window).expand(batch, -1, -1, -1)",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "an empty slot of the cache is seen",
        "aunet_lightning/model/attention.py",
        " & (key[..., None, :] >= 0)",
        "",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "stepping ignores the window",
        "aunet_lightning/model/attention.py",
        "query_documents, documents, window)[:, None])",
        "query_documents, documents, None)[:, None])",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "angles of positions in float32",
        "aunet_lightning/model/layers.py",
        "angles = positions[:, None, :, None].double() * theta**-exponents",
        "angles = positions[:, None, :, None].float() * theta**-exponents.float()",
        (MODEL + "test_a_place_far_into_a_stream_is_like_one_at_its_beginning",),
    ),
    Fault(
        "channels turn in halves, not in pairs",
        "aunet_lightning/model/layers.py",
        "a, b = x.to(self.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)",
        "a, b = x.to(self.cos.dtype).unflatten(-1, (2, -1)).unbind(-2)",
        (MODEL + "test_equals_the_plain_form",),
    ),
    Fault(
        "a convolution that sees the next document's past",
        "aunet_lightning/model/layers.py",
        "tap if neighbours.same is None else tap * neighbours.same[..., j - 1 : j]",
        "tap",
        (LEARNED + "test_convolutions_equal_the_plain_form_and_step",),
    ),
    Fault(
        "smoothing leaks over a document",
        "aunet_lightning/model/scan.py",
        "from_begin = a.cumprod(-1)",
        "from_begin = a.clamp(min=1e-3).cumprod(-1)",
        (LEARNED_NETWORKS + "test_smoothing_equals_a_loop",),
    ),
    Fault(
        "an offset that is not clamped",
        "aunet_lightning/model/upsampling.py",
        "offset.clamp(max=self.n_offsets - 1) if",
        "offset.clamp(max=self.n_offsets - 2) if",
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "modulo and clamp are swapped",
        "aunet_lightning/model/upsampling.py",
        'if self.offsets == "clamp" else',
        'if self.offsets != "clamp" else',
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "the open unit's offset is one less",
        "aunet_lightning/model/units.py",
        "past.offset[:, None] + 1 + at",
        "past.offset[:, None] + at",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "insertion at every position",
        "aunet_lightning/model/upsampling.py",
        "* (units.offset == 0)[..., None]",
        "* (units.offset <= 1)[..., None]",
        (MODEL + "test_equals_the_plain_form",),
    ),
]
