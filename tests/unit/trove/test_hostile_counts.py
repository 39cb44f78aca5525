"""What clients say must not make what a node keeps in memory grow."""

from __future__ import annotations

from pathlib import Path

from qss.s3.exchange import Exchange
from qss.trove.meters import OPERATIONS_MAX, OTHER, Meters
from tests.harness.trove_fronts import SetClock, World, with_fronts


def test_made_up_operations_are_counted_as_one() -> None:
    meters = Meters(SetClock())
    for number in range(3 * OPERATIONS_MAX):
        meters.count("s3", Exchange(operation=f"operation {number}", status=200))
    families = {family.name: family.samples for family in meters.metrics()}
    counted = families["trove_requests"]
    assert len(counted) == OPERATIONS_MAX + 1
    assert sum(each.value for each in counted) == 3 * OPERATIONS_MAX
    assert {each.labels["operation"] for each in counted} >= {OTHER, "operation 0"}


def test_methods_nobody_knows_have_no_name_of_their_own(tmp_path: Path) -> None:
    """The console called an operation by the client's method, before anybody had signed in."""

    async def work(world: World) -> None:
        for front in ("console", "s3", "files", "admin"):
            async with world.client(front) as client:
                for number in range(20):
                    for path in ("/api/session", "/api/shares", "/own/k", "/users", "/files/own/k"):
                        await client.request(f"BREW{number}", path)
        names = {
            sample.labels["operation"]
            for family in world.meters.metrics()
            for sample in family.samples
            if "operation" in sample.labels
        }
        assert not [name for name in names if "BREW" in name]

    with_fronts(tmp_path / "data", work)
