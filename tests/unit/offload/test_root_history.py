"""Roots that stay for a time."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qss.host import Host
from qss.ids import SegmentId
from qss.offload.presence import every_root
from qss.offload.root_history import SLOTS, HistoryBook, kept
from qss.offload.roots import HISTORY_KEPT, Roots
from qss.segments import RestorePoint
from tests.harness.crash_disk import FixedClock
from tests.harness.vault import World

MINUTE = 60 * 10**9


class At(FixedClock):
    """A clock that stands where it was put."""

    def now_ns(self) -> int:
        return self.ns


@given(st.dictionaries(st.integers(1, 10**6), st.integers(0, 10**13)), st.integers(0, 10**13), st.floats(1.0, 10**5))
def test_what_stays_is_young_bounded_and_stays_when_others_go(cuts, now_ns, history_s) -> None:
    stay = kept(cuts, now_ns, history_s)
    assert stay <= cuts.keys()
    assert all(cuts[generation] >= now_ns - history_s * 1e9 for generation in stay)
    young = [generation for generation, cut in cuts.items() if cut >= now_ns - history_s * 1e9]
    assert bool(stay) == bool(young)
    if all(cut <= now_ns for cut in cuts.values()):
        assert len(stay) <= SLOTS + 2
    assert kept({generation: cuts[generation] for generation in stay}, now_ns, history_s) == stay


async def test_roots_of_the_last_half_hour(tmp_path: Path) -> None:
    world, clock = World.of(2, 1), At(ns=1_700_000_000 * 10**9)
    machine = world.machine(tmp_path)
    host = Host(Host().disk, clock, Host().entropy)

    def writer() -> Roots:
        book = HistoryBook(machine.nodes, machine.keys, host, 30 * 60.0)
        return Roots(book, machine.keys, host, tmp_path / "offload", (2, 1))

    async def generations() -> list[int]:
        return [root.generation for root in await every_root(machine.nodes, machine.keys, machine.book)][::-1]

    roots = writer()
    await roots.catch_up()
    for number in range(1, 51):
        clock.ns += MINUTE
        await roots.publish(RestorePoint((), (SegmentId(number),), clock.ns, SegmentId(number + 1)))
    assert await generations() == list(range(20, 51)), "one a minute, 30 minutes and the newest 16"
    clock.ns += 60 * MINUTE
    await roots.publish(RestorePoint((), (SegmentId(51),), clock.ns, SegmentId(52)))
    assert await generations() == list(range(52 - HISTORY_KEPT, 52)), "time has passed"


async def test_many_in_a_short_time_are_thinned(tmp_path: Path) -> None:
    world, clock = World.of(2, 1), At(ns=1_700_000_000 * 10**9)
    machine = world.machine(tmp_path)
    host = Host(Host().disk, clock, Host().entropy)
    book = HistoryBook(machine.nodes, machine.keys, host, float(SLOTS * 100))  # one in 100 s
    roots = Roots(book, machine.keys, host, tmp_path / "offload", (2, 1))
    await roots.catch_up()
    for number in range(1, 81):
        clock.ns += 10 * 10**9
        await roots.publish(RestorePoint((), (SegmentId(number),), clock.ns, SegmentId(number + 1)))
    found = await every_root(machine.nodes, machine.keys, machine.book)
    old = [root for root in found if root.generation <= 80 - HISTORY_KEPT]
    assert 6 <= len(old) <= 8
    assert len({root.point.cut_ns // (100 * 10**9) for root in old}) == len(old)
