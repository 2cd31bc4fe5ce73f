"""Laws over budgets and rates: known ones are found again, and what follows from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning.reports.study.scaling import at_rate, best_rate, crossing, fit_laws, interval, multiplier

BUDGETS = np.array([5e11, 2e12, 8e12])


def law(floor, scale, exponent, budgets=BUDGETS):
    return floor + scale * (np.asarray(budgets) / 8e12) ** -exponent


@settings(max_examples=30, deadline=None)
@given(floor=st.floats(0, 1.5), scale=st.floats(0.2, 1), exponent=st.floats(0.1, 0.6))
def test_a_law_is_found_again_and_followed_beyond(floor, scale, exponent):
    found = fit_laws(BUDGETS, law(floor, scale, exponent)[None])
    assert found.at(BUDGETS[:, None])[:, 0] == pytest.approx(law(floor, scale, exponent), rel=3e-3)
    assert found.at(3.2e13)[0] == pytest.approx(law(floor, scale, exponent, 3.2e13), rel=0.02)
    assert found.needed(found.at(3e12))[0] == pytest.approx(3e12, rel=1e-6)
    assert found.needed(np.array([found.floor[0]])) == np.inf


def test_an_arm_that_needs_less_compute_has_a_multiplier_below_one():
    reference, arm = law(1.0, 1.0, 0.3), law(1.0, 1.0, 0.3, BUDGETS / 0.6)
    laws = [fit_laws(BUDGETS, bpb[None]) for bpb in (arm, reference)]
    assert multiplier(*laws)[0] == pytest.approx(0.6, rel=0.03)
    assert multiplier(*laws[::-1])[0] == pytest.approx(1 / 0.6, rel=0.03)
    assert np.isnan(crossing(*laws, least=5e11)[0])
    two = [fit_laws(BUDGETS[1:], bpb[None, 1:]) for bpb in (arm, reference)]  # a pure power
    assert 0 < multiplier(*two)[0] < 1


@pytest.mark.parametrize("at", [1e12, 3e13])
def test_curves_cross_where_they_do(at):
    steep, flat = 0.4, 0.1
    shares = (BUDGETS / at) ** -np.array([[steep], [flat]])
    one, other = (fit_laws(BUDGETS, 1.0 + 0.5 * share[None]) for share in shares)
    assert crossing(one, other, least=5e11)[0] == pytest.approx(at, rel=0.3)


@settings(max_examples=50, deadline=None)
@given(rates=st.lists(st.floats(1.5, 30), min_size=3, max_size=6, unique=True), best=st.floats(1.5, 30))
def test_the_best_rate_is_the_lowest_of_a_parabola_or_at_the_edge(rates, best):
    x = np.log(np.array(rates))
    if np.diff(np.sort(x)).min() < 0.05:
        return
    found = best_rate(np.array(rates), (1 + 0.1 * (x - np.log(best)) ** 2)[None])
    lowest = rates[int(np.abs(x - np.log(best)).argmin())]
    if lowest in (min(rates), max(rates)):
        assert found.at_edge[0]
        assert found.rate[0] == pytest.approx(lowest)
    else:
        assert not found.at_edge[0]
        assert found.rate[0] == pytest.approx(best, rel=1e-6)
        assert found.bpb[0] == pytest.approx(1.0)


def test_between_rates_bpb_is_on_a_line_and_outside_unknown():
    rates, bpb = np.array([8.0, 2.0, 4.0]), np.array([[1.6, 2.0, 1.0], [1.0, 1.0, 1.0]])
    assert at_rate(rates, bpb, 4.0) == pytest.approx([1.0, 1.0])
    assert at_rate(rates, bpb, 2 * 2**0.5) == pytest.approx([1.5, 1.0])
    assert at_rate(rates, bpb, 9.0) is None
    assert at_rate(rates[:1], bpb[:, :1], 8.0) == pytest.approx([1.6, 1.0])


def test_the_interval_of_draws_leaves_out_five_percent():
    low, high = interval(np.append(np.arange(1001.0), np.nan))
    assert (low, high) == (25, 975)
    assert interval(np.append(np.arange(99.0), np.full(10, np.inf)))[1] == np.inf
