"""The pure retention policy: what must hold of every plan, and traces that show what it is for."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qss.cache.access import AGAIN, VISIT_S, CachedFile, FileKey, Ghosts
from qss.cache.options import PathPolicy, RetentionOptions
from qss.cache.retention import (
    GENERAL,
    NO_PROTECTION,
    Candidate,
    Protection,
    Reason,
    eviction_order,
    most_protective,
    plan,
)
from qss.ids import SegmentId

HOUR = 3600.0
PATHS = (PathPolicy("/videos", HOUR, None), PathPolicy("/scratch", None, 300))

protections = st.sampled_from([NO_PROTECTION, Protection("/pinned"), Protection(None, 0), Protection(None, 1)])
copies = st.lists(st.tuples(st.integers(1, 200), st.floats(0, 10 * HOUR), st.booleans(), protections), max_size=30).map(
    lambda rows: [
        Candidate(SegmentId(number), None, size, idle_s, again, protection)
        for number, (size, idle_s, again, protection) in enumerate(rows, start=1)
    ]
)
limits = st.builds(
    RetentionOptions,
    size_bytes_max=st.integers(0, 3000),
    age_s_max=st.one_of(st.none(), st.floats(0, 10 * HOUR)),
    free_bytes_min=st.integers(0, 3000),
    paths=st.just(PATHS),
)


@given(copies, limits, st.integers(0, 2000), st.integers(0, 3000))
def test_a_plan_frees_what_it_must_and_no_more(
    candidates: list[Candidate], options: RetentionOptions, must_stay: int, free: int
) -> None:
    kept = must_stay + sum(copy.size for copy in candidates)
    victims = plan(candidates, options, kept, free)
    gone = [victim.copy for victim in victims]
    assert len({copy.segment for copy in gone}) == len(gone)
    assert all(copy.protection.pin is None for copy in gone)
    freed = sum(copy.size for copy in gone)
    left = [copy for copy in candidates if copy not in gone]
    loose = [copy for copy in left if copy.protection.pin is None]
    fits = kept - freed <= options.size_bytes_max and free + freed >= options.free_bytes_min
    assert fits or not loose, "what may go has gone, or there is room"
    for_room = [victim for victim in victims if victim.reason in (Reason.SIZE, Reason.FREE)]
    if for_room:
        less = freed - for_room[-1].copy.size
        assert kept - less > options.size_bytes_max or free + less < options.free_bytes_min, "one less is too few"
    for copy in loose:
        limit = {GENERAL: options.age_s_max, 0: HOUR, 1: None}[copy.protection.policy]
        assert limit is None or copy.idle_s <= limit
    assert sum(copy.size for copy in loose if copy.protection.policy == 1) <= 300
    assert plan(left, options, kept - freed, free + freed) == [], "a plan carried out leaves nothing to do"


@given(copies)
def test_each_queue_goes_least_recently_used_first(candidates: list[Candidate]) -> None:
    order = eviction_order(candidates)
    assert {copy.segment for copy in order} == {c.segment for c in candidates if c.protection.pin is None}
    for again in (False, True):
        idle = [copy.idle_s for copy in order if copy.again is again]
        assert idle == sorted(idle, reverse=True)


@given(copies)
def test_everything_asked_for_is_everything_but_pins(candidates: list[Candidate]) -> None:
    victims = plan(candidates, RetentionOptions(), 0, 2**60, all_=True)
    assert {victim.copy for victim in victims} == {copy for copy in candidates if copy.protection.pin is None}


def test_what_holds_longest_is_most_protective() -> None:
    general = RetentionOptions(age_s_max=2 * HOUR, paths=PATHS)
    assert most_protective([GENERAL, 0], general) == GENERAL
    assert most_protective([GENERAL, 0, 1], general) == 1
    assert most_protective([0], general) == 0
    assert most_protective([GENERAL, 1], RetentionOptions(paths=PATHS)) == GENERAL, "no size is more than some size"


# -- visits


def touched(*touches: tuple[float, int]) -> int:
    file = CachedFile(Path("x"), 1, 0.0)
    for now_s, position in touches:
        file.touch(now_s, position)
    return file.visits


def test_a_pass_is_one_visit_however_slow() -> None:
    assert touched() == 0
    assert touched(*((100 + n / 10, n * 1000) for n in range(50))) == 1
    assert touched(*((100 + n * VISIT_S, n * 1000) for n in range(50))) == 1


def test_coming_back_later_is_another_visit() -> None:
    assert touched((100, 500), (101, 0)) == 1
    assert touched((100, 500), (100 + VISIT_S, 0)) == 2
    assert touched((100, 500), (100 + VISIT_S, 500)) == 2


def test_ghosts_are_bounded_by_bytes_and_forget_the_oldest() -> None:
    ghosts = Ghosts()
    for number in range(10):
        ghosts.add((SegmentId(number), 0), 100, 300)
    assert [key[0] for key, _ in ghosts.all()] == [7, 8, 9]
    assert not ghosts.came_back((SegmentId(6), 0))
    assert ghosts.came_back((SegmentId(7), 0))
    assert not ghosts.came_back((SegmentId(7), 0)), "once"


# -- traces


@dataclass
class Cached:
    """A cache of stripes of one size, run by the policy: what the parts do together, without disk and clock."""

    room: int
    now_s: float = 0.0
    files: OrderedDict[FileKey, CachedFile] = field(default_factory=OrderedDict)
    ghosts: Ghosts = field(default_factory=Ghosts)
    misses: int = 0

    def read(self, number: int) -> None:
        """One stripe from its beginning to its end; it is fetched if it is not there."""
        key = (SegmentId(number), 0)
        file = self.files.get(key)
        if file is None:
            self.misses += 1
            file = self.files[key] = CachedFile(Path("x"), 1, self.now_s)
            if self.ghosts.came_back(key):
                file.visits = AGAIN
            self._evict()
        for position in range(4):
            self.now_s += 0.01
            file.touch(self.now_s, position)

    def _evict(self) -> None:
        candidates = [
            Candidate(segment, None, 1, self.now_s - file.used_s, file.visits >= AGAIN)
            for (segment, _), file in self.files.items()
        ]
        for victim in plan(candidates, RetentionOptions(self.room, None, 0), len(candidates), 0):
            key = (victim.copy.segment, 0)
            if self.files.pop(key).visits:
                self.ghosts.add(key, 1, self.room // 2)

    def misses_of(self, numbers: range) -> int:
        before = self.misses
        for number in numbers:
            self.read(number)
        return self.misses - before


def test_a_scan_of_ten_times_the_cache_leaves_the_working_set_alone() -> None:
    cache = Cached(room=100)
    working_set = range(60)
    for _ in range(3):
        cache.misses_of(working_set)
        cache.now_s += 2 * VISIT_S
    for _ in range(2):  # the second finds none of its first traces
        assert cache.misses_of(range(1000, 2000)) == 1000
        assert cache.misses_of(working_set) == 0


def test_a_working_set_that_was_evicted_is_kept_once_it_came_back() -> None:
    cache = Cached(room=100)
    cache.misses_of(range(40))
    cache.misses_of(range(1000, 1080))  # pushes some of it out
    assert cache.misses_of(range(40)) > 0
    cache.misses_of(range(2000, 3000))
    assert cache.misses_of(range(20)) < 20, "what came back soon after it went is held"


def test_a_new_working_set_takes_the_place_of_the_old_one() -> None:
    cache = Cached(room=100)
    old, new = range(70), range(500, 570)
    for _ in range(4):
        cache.misses_of(old)
        cache.now_s += 2 * VISIT_S
    for _ in range(12):
        cache.misses_of(new)
        cache.now_s += 2 * VISIT_S
    assert cache.misses_of(new) == 0
