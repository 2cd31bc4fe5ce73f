"""Faults of metrics, the optimizer and reports."""

from tests.mutants.faults.fault import METRICS, STATISTICS, Fault

MEASURING = [
    Fault(
        "a metric that counts padding",
        "aunet_lightning/training/metrics.py",
        "scored = sizes > 0",
        "scored = sizes >= 0",
        (METRICS + "test_bos_eos_and_padding_do_not_count", METRICS + "test_equals_the_plain_sum"),
    ),
    Fault(
        "tokens count as bytes",
        "aunet_lightning/training/metrics.py",
        "self.bytes.index_add_(0, index, sizes[scored].double())",
        "self.bytes.index_add_(0, index, torch.ones_like(sizes[scored]).double())",
        ("tests/test_tokens.py::test_bpb_is_all_bits_of_the_text_over_its_bytes",),
    ),
    Fault(
        "the languages of BPB are swapped",
        "aunet_lightning/training/metrics.py",
        'index = batch["languages"][scored]',
        'index = batch["languages"].flip(-1)[scored]',
        (METRICS + "test_equals_the_plain_sum",),
    ),
    Fault(
        "nats for bits",
        "aunet_lightning/training/metrics.py",
        "nats[scored].double() / math.log(2)",
        "nats[scored].double()",
        (METRICS + "test_equals_the_plain_sum",),
    ),
    Fault(
        "EOS has a unit",
        "aunet_lightning/training/metrics.py",
        "valid & (ids.gather(1, at) != EOS)",
        "valid",
        (METRICS + "test_units_equal_plain_counting",),
    ),
    Fault(
        "the share past the last offset is one position short",
        "aunet_lightning/training/metrics.py",
        "decision.offset >= self.max_offset",
        "decision.offset > self.max_offset",
        (METRICS + "test_units_equal_plain_counting",),
    ),
    Fault(
        "weight decay on norms",
        "aunet_lightning/training/optimizer.py",
        '"weight_decay": config.weight_decay if decays else 0.0',
        '"weight_decay": config.weight_decay',
        (METRICS + "test_weight_decay_is_on_matrices_only",),
    ),
    Fault(
        "the warm-up is one step off",
        "aunet_lightning/training/optimizer.py",
        "return (step + 1) / self.warmup_steps",
        "return step / self.warmup_steps",
        (METRICS + "test_learning_rate_warms_up_and_ends_where_it_says",),
    ),
    Fault(
        "the cosine ends at 0",
        "aunet_lightning/training/optimizer.py",
        "return self.final_lr_ratio + (1 - self.final_lr_ratio) *",
        "return",
        (METRICS + "test_learning_rate_warms_up_and_ends_where_it_says",),
    ),
    Fault(
        "n-grams see the document before",
        "aunet_lightning/reports/ngram.py",
        "contexts, first, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)",
        "contexts, first, kinds = np.unique(grams, return_index=True, return_counts=True)",
        ("tests/test_reports.py::test_ngram_equals_the_plain_form",),
    ),
    Fault(
        "a difference is told by one range alone",
        "aunet_lightning/reports/study/statistics.py",
        "(a.range + b.range) / 2",
        "a.range / 2",
        (STATISTICS + "test_spread_is_that_of_the_plain_form",),
    ),
    Fault(
        "a difference is told one-sided",
        "aunet_lightning/reports/study/statistics.py",
        "return abs(a.mean - b.mean) >",
        "return a.mean - b.mean >",
        (STATISTICS + "test_how_often_the_rule_errs", STATISTICS + "test_spread_is_that_of_the_plain_form"),
    ),
    Fault(
        "parallel bits of other documents",
        "aunet_lightning/reports/study/statistics.py",
        "shared = set.intersection(*(set(of) for of in bits.values()))",
        "shared = set.union(*(set(of) for of in bits.values()))",
        (STATISTICS + "test_parallel_bits_are_of_common_documents",),
    ),
]
