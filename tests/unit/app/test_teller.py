"""Events of the offload process: told in order, once, and never waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from qss.app import teller as module
from qss.app.teller import Teller
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, serve
from qss.errors import Unreachable
from qss.ids import LocationId, SegmentId
from qss.segments import Receipt
from tests.harness.vault import PlainShelf, World


def receipt(segment: int, missing: int) -> Receipt:
    places = (*(LocationId(f"t{number}") for number in range(3 - missing)), *(None,) * missing)
    return Receipt(SegmentId(segment), bytes(16), 2, 1, places, 10)


async def heard(folder: Path, teller: Teller, count: int) -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []

    async def hook(call: Call) -> Json:
        found.append((call.params["event"], call.params["facts"]))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, folder / "mount.sock", {"hook": hook})
            nursery.start_soon(teller.run)
            while len(found) < count:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    return found


async def test_a_degraded_segment_is_told_of_once_and_again_when_it_gets_worse(tmp_path: Path) -> None:
    teller = Teller(ControlClient(tmp_path / "mount.sock"))
    for missing in (1, 1, 2, 1):
        teller.short(SegmentId(7), missing)
    await teller.stored(receipt(7, 0))
    await teller.stored(receipt(7, 1))
    teller.tell("location-up", {"location": "t1"})
    assert await heard(tmp_path, teller, 4) == [
        ("degraded", {"segment": 7, "missing": 1}),
        ("degraded", {"segment": 7, "missing": 2}),
        ("degraded", {"segment": 7, "missing": 1}),
        ("location-up", {"location": "t1"}),
    ]


async def test_telling_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    teller = Teller(ControlClient(tmp_path / "mount.sock"))
    for number in range(5):
        teller.tell("location-up", {"location": str(number)})
    assert "is not told" in caplog.text
    assert [facts["location"] for _, facts in await heard(tmp_path, teller, 2)] == ["0", "1"]


async def test_a_vault_that_places_too_few_shards_says_so(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    shelf = PlainShelf(tmp_path / "shelf")
    sealed = shelf.add(1, b"data" * 1000)
    short: list[tuple[SegmentId, int]] = []
    machine.vault.on_short = lambda segment, missing: short.append((segment, missing))
    next(iter(world.stores.values())).down = True
    with pytest.raises(Unreachable):
        await machine.vault.store(sealed, await shelf.path_of(sealed.id))
    assert short == [(SegmentId(1), 1)]
