"""Faults of the networks of learned splitters."""

from tests.mutants.faults.fault import LEARNED_NETWORKS, Fault

NETWORKS = [
    Fault(
        "F and G of the ratio loss are swapped",
        "splitters/learned/networks.py",
        "share, mean = total.boundaries / n, local.p / n",
        "share, mean = local.p / n, total.boundaries / n",
        (LEARNED_NETWORKS + "test_the_ratio_loss_is_the_published_one",),
    ),
    Fault(
        "the ratio loss forgets N - 1",
        "splitters/learned/networks.py",
        "return (self.alpha * target / (target - 1) * term * weight).sum()",
        "return (self.alpha * term * weight).sum()",
        (LEARNED_NETWORKS + "test_the_ratio_loss_is_the_published_one",),
    ),
    Fault(
        "a router's boundary at orthogonal neighbours is free",
        "splitters/learned/networks.py",
        "return torch.logit((1 - cosine) / 2, eps=_EDGE)",
        "return torch.logit((1 - cosine) / 2, eps=_EDGE) + 1e-3",
        (LEARNED_NETWORKS + "test_the_router_is_the_published_one",),
    ),
    Fault(
        "the bias moves away from the rate",
        "splitters/learned/networks.py",
        "self.bias += max(-1.0, min(step, 0.0 if self.one_sided else 1.0))",
        "self.bias -= max(-1.0, min(step, 0.0 if self.one_sided else 1.0))",
        (LEARNED_NETWORKS + "test_the_bias_follows_the_rate",),
    ),
    Fault(
        "languages weigh the same, however little text there is",
        "splitters/learned/networks.py",
        "weight = total.positions / total.positions.sum()",
        "weight = torch.ones_like(total.positions) / total.positions.numel()",
        (LEARNED_NETWORKS + "test_each_language_has_a_target_of_its_own",),
    ),
    Fault(
        "bounds follow the text away from the rate",
        "aunet_lightning/entropy/threshold.py",
        "shift = follow * (found[group] - read[group] / rates[group])",
        "shift = follow * (read[group] / rates[group] - found[group])",
        ("tests/test_entropy.py::test_bounds_that_follow_hold_the_rate_on_any_text",),
    ),
    Fault(
        "calibration with the wrong sign",
        "splitters/learned/predictor.py",
        "self.bias -= (ordered[k - 1] + ordered[k]) / 2",
        "self.bias += (ordered[k - 1] + ordered[k]) / 2",
        (LEARNED_NETWORKS + "test_training_begins_near_the_rate",),
    ),
    Fault(
        "a student weighs the other positions",
        "splitters/learned/networks.py",
        "nats = weight * local.nats_taught + local.nats_other",
        "nats = local.nats_taught + weight * local.nats_other",
        (LEARNED_NETWORKS + "test_the_students_loss_is_a_weighted_mean",),
    ),
]
