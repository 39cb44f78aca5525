"""How likely is loss? Pure arithmetic for `init` and `status`; the assumptions are its arguments.

Two models, because the truth lies between: windows (more than m of n locations die within one repair window) and a
Markov chain with one repair at a time (the pessimistic one, printed). Neither knows what all locations have in common -
a provider, a defect, the key - so that is a floor of its own, and no figure promises more than it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

DAYS_PER_YEAR: Final = 365.0

_DEFAULTS: Final = (
    (14, 10, 4),
    (12, 8, 4),
    (9, 6, 3),
    (7, 4, 3),
    (6, 4, 2),
    (5, 3, 2),
    (4, 2, 2),
    (3, 2, 1),
    (2, 1, 1),
)
"""(at least so many locations, k, m)."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    mttf_years: float = 10.0  # mean time until a location loses what it holds
    repair_days: float = 7.0  # from the loss of a shard until it is somewhere again
    common_mode: float = 1e-5  # chance in a year of losing everything at once, whatever k and m


@dataclass(frozen=True, slots=True)
class Durability:
    """Chances of losing a segment within a year, and of not being able to read one at a moment."""

    k: int
    m: int
    windows: float
    markov: float
    total: float  # markov and common mode together: the figure to print

    @property
    def overhead(self) -> float:
        """Bytes stored for each byte of content."""
        return (self.k + self.m) / self.k

    @property
    def nines(self) -> float:
        return nines(self.total)


def nines(chance_of_loss: float) -> float:
    """0.001 → 3.0."""
    return math.inf if chance_of_loss <= 0 else -math.log10(chance_of_loss)


def default_code(locations: int) -> tuple[int, int]:
    """(k, m) for a number of locations, at least 1."""
    assert locations >= 1
    return next(((k, m) for least, k, m in _DEFAULTS if locations >= least), (1, 0))


def durability(k: int, m: int, assumptions: Assumptions | None = None) -> Durability:
    given = assumptions or Assumptions()
    failures_per_year = 1.0 / given.mttf_years
    window_years = given.repair_days / DAYS_PER_YEAR
    windows = _windows(k, m, failures_per_year, window_years)
    markov = _markov(k, m, failures_per_year, 1.0 / window_years)
    total = 1.0 - (1.0 - markov) * (1.0 - given.common_mode)
    return Durability(k, m, windows, markov, max(total, given.common_mode))


def unavailability(k: int, m: int, location_up: float) -> float:
    """Chance that fewer than k of k+m locations are up at a moment, each being up with chance `location_up`."""
    return sum(
        math.comb(k + m, down) * (1.0 - location_up) ** down * location_up ** (k + m - down)
        for down in range(m + 1, k + m + 1)
    )


def _windows(k: int, m: int, failures_per_year: float, window_years: float) -> float:
    dies = -math.expm1(-failures_per_year * window_years)
    lost_in_window = unavailability(k, m, 1.0 - dies)
    return -math.expm1(math.log1p(-min(lost_in_window, 1.0 - 1e-16)) / window_years)


def _markov(k: int, m: int, failures_per_year: float, repairs_per_year: float) -> float:
    """Mean time from all there to more than m lost, of a birth-death chain: state i = shards lost, up with rate
    (n-i) * failures, down with rate `repairs` (one at a time). Time to get from i to i+1 (Karlin and Taylor):
    t_i = 1/up_i + (down_i/up_i) * t_(i-1)."""
    total_years, step_years = 0.0, 0.0
    for lost in range(m + 1):
        up = (k + m - lost) * failures_per_year
        down = repairs_per_year if lost else 0.0
        step_years = (1.0 + down * step_years) / up
        total_years += step_years
    return -math.expm1(-1.0 / total_years)
