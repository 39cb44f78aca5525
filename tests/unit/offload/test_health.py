"""The breaker, step by step and at random."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qss.offload.bandwidth import BURST_S, TokenBucket
from qss.offload.health import Breaker, Health, HealthOptions, backoff_s

OPTIONS = HealthOptions(failures=3, busies=5, open_first_s=1.0, open_max_s=8.0)


def opened(at_s: float = 0.0) -> Health:
    health = Health(OPTIONS)
    for _ in range(3):
        assert health.allow(at_s)
        health.failed(at_s, 0.0, "refused")
    return health


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    health = Health(OPTIONS)
    for _ in range(2):
        health.failed(0.0, 0.0, "refused")
    health.answered(0.1)
    for _ in range(2):
        health.failed(0.0, 0.0, "refused")
    assert health.up
    health.failed(0.0, 0.0, "refused")
    assert not health.up
    assert health.facts.last_error == "refused"
    assert not health.allow(0.5)
    assert health.try_in_s(0.25) == 0.75


def test_one_trial_at_a_time() -> None:
    health = opened()
    assert health.allow(1.0)
    assert health.facts.breaker is Breaker.HALF_OPEN
    assert not health.allow(1.0)
    assert not health.allow(100.0)
    health.answered(0.1)
    assert health.up
    assert health.facts.last_error == ""


def test_failed_trials_wait_longer_up_to_a_limit() -> None:
    health, now_s, waits = opened(), 0.0, []
    for _ in range(6):
        waits.append(health.try_in_s(now_s))
        now_s += waits[-1]
        assert health.allow(now_s)
        health.failed(now_s, 0.0, "refused")
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_after_an_answer_it_starts_small_again() -> None:
    health = opened()
    health.allow(1.0)
    health.failed(1.0, 0.0, "refused")
    health.answered(0.1)
    for _ in range(3):
        health.failed(10.0, 0.0, "refused")
    assert health.try_in_s(10.0) == 1.0


def test_late_failures_of_old_requests_do_not_prolong() -> None:
    health = opened()
    health.failed(0.9, 0.0, "reset")
    assert health.allow(1.0)


def test_a_given_up_trial_frees_the_place() -> None:
    health = opened()
    assert health.allow(1.0)
    health.abandoned(1.5, 0.5)
    assert not health.up
    assert health.allow(1.5)


def test_busy_counts_only_when_it_goes_on() -> None:
    health = Health(OPTIONS)
    for _ in range(4):
        health.busy(0.0, 0.0, "slow down")
    assert health.up
    assert health.facts.error_rate > 0.5
    health.busy(0.0, 0.0, "slow down")
    assert not health.up
    health.allow(1.0)
    health.busy(1.0, 0.0, "slow down")
    assert health.try_in_s(1.0) == 2.0


def test_averages() -> None:
    health = Health(OPTIONS)
    assert health.latency_s is None
    health.answered(1.0)
    assert health.latency_s == 1.0
    health.answered(None)
    assert health.latency_s == 1.0
    for _ in range(50):
        health.answered(0.1)
    assert health.latency_s == pytest.approx(0.1, abs=0.01)
    health.abandoned(0.0, 0.05)  # gave up sooner than it usually answers: says nothing
    assert health.latency_s == pytest.approx(0.1, abs=0.01)
    health.abandoned(0.0, 5.0)
    assert health.latency_s == pytest.approx(1.08, abs=0.01)


def test_a_complaint_is_shown_but_is_an_answer() -> None:
    health = opened()
    health.answered(0.1, "the credentials are refused")
    assert health.up
    assert health.facts.last_error == "the credentials are refused"


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(attempt: int, jitter: float) -> None:
    pause_s = backoff_s(attempt, 0.1, 5.0, jitter)
    assert 0.05 <= pause_s <= 5.0
    assert pause_s <= backoff_s(attempt + 1, 0.1, 5.0, jitter)
    assert pause_s >= backoff_s(attempt, 0.1, 5.0, 1.0)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 1000)), min_size=1))
def test_a_bucket_never_lets_more_through(steps: list[tuple[float, int]]) -> None:
    bucket, now_s, passed = TokenBucket(1000, 0.0), 0.0, 0
    for pause_s, count in steps:
        now_s += pause_s
        now_s += bucket.take(count, now_s)
        passed += count
        assert passed - count <= 1000 * (now_s + BURST_S) + 1e-6


class AnyOrder(RuleBasedStateMachine):
    """Whatever order requests and answers come in, a location that answers again is up again."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health(OPTIONS)
        self.now_s = 0.0
        self.out = 0
        self.trials = 0

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def send(self) -> None:
        refused = self.health.refuses(self.now_s)
        was = self.health.facts.breaker
        assert self.health.allow(self.now_s) is not refused
        if not refused:
            self.out += 1
            assert was is not Breaker.OPEN or self.health.facts.breaker is Breaker.HALF_OPEN

    @precondition(lambda self: self.out)
    @rule()
    def answer(self) -> None:
        self.out -= 1
        self.health.answered(0.01)
        assert self.health.up

    @precondition(lambda self: self.out)
    @rule(jitter=st.floats(0, 1, exclude_max=True), busy=st.booleans())
    def fail(self, jitter: float, busy: bool) -> None:
        self.out -= 1
        (self.health.busy if busy else self.health.failed)(self.now_s, jitter, "no")

    @precondition(lambda self: self.out)
    @rule()
    def abandon(self) -> None:
        self.out -= 1
        self.health.abandoned(self.now_s, 1.0)

    @invariant()
    def a_trial_comes_in_time(self) -> None:
        assert 0 <= self.health.try_in_s(self.now_s) <= OPTIONS.open_max_s
        if self.health.facts.breaker is Breaker.HALF_OPEN:
            assert self.out > 0  # else nobody would ever close or open it
        else:
            assert not self.health.refuses(self.now_s + OPTIONS.open_max_s)


TestAnyOrder = AnyOrder.TestCase
