"""The calculator against figures worked out beside it, and against sense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.offload.durability import Assumptions, default_code, durability, nines, unavailability


@pytest.mark.parametrize(
    ("k", "m", "windows", "markov", "total", "up99", "up95"),
    [
        (1, 1, 3.7, 3.4, 3.4, 4.0, 2.6),
        (2, 1, 3.2, 2.9, 2.9, 3.5, 2.1),
        (4, 2, 5.1, 4.4, 4.3, 4.7, 2.7),
        (6, 3, 7.1, 5.7, 4.9, 5.9, 3.2),
        (10, 4, 8.6, 6.5, 5.0, 6.7, 3.4),
    ],
)
def test_figures(k: int, m: int, windows: float, markov: float, total: float, up99: float, up95: float) -> None:
    """From the study of 2026-11-21: MTTF 10 years, repair in 7 days, common mode 1e-5."""
    result = durability(k, m)
    assert round(nines(result.windows), 1) == windows
    assert round(nines(result.markov), 1) == markov
    assert round(result.nines, 1) == total
    assert round(nines(unavailability(k, m, 0.99)), 1) == up99
    assert round(nines(unavailability(k, m, 0.95)), 1) == up95


def test_without_redundancy_it_is_the_exponential() -> None:
    assert durability(1, 0).markov == pytest.approx(-math.expm1(-0.1))
    assert durability(4, 0).markov == pytest.approx(-math.expm1(-0.4))


def test_the_worse_the_assumptions_the_worse_the_figure() -> None:
    usual = durability(4, 2).total
    assert durability(4, 2, Assumptions(mttf_years=3)).total > usual
    assert durability(4, 2, Assumptions(repair_days=90)).total > usual
    assert durability(4, 2, Assumptions(common_mode=1e-2)).total > usual


@given(st.integers(1, 100), st.integers(0, 60), st.floats(0.5, 100), st.floats(0.01, 200), st.floats(0, 0.5))
def test_any_case_is_a_chance(k: int, m: int, mttf: float, repair: float, common: float) -> None:
    result = durability(k, m, Assumptions(mttf, repair, common))
    assert 0 <= result.windows <= 1
    assert 0 <= result.markov <= 1
    assert common <= result.total <= 1
    assert result.overhead == (k + m) / k


@pytest.mark.parametrize(
    ("locations", "code"),
    [(1, (1, 0)), (2, (1, 1)), (3, (2, 1)), (4, (2, 2)), (5, (3, 2)), (6, (4, 2)), (7, (4, 3)), (8, (4, 3)),
     (9, (6, 3)), (12, (8, 4)), (14, (10, 4)), (100, (10, 4))],
)  # fmt: skip
def test_default_codes(locations: int, code: tuple[int, int]) -> None:
    assert default_code(locations) == code
    assert sum(code) <= locations


def test_nines() -> None:
    assert nines(0.001) == pytest.approx(3)
    assert nines(0.0) == math.inf
