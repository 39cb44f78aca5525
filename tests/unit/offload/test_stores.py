"""The fakes are held to the contract of the port they stand in for."""

from __future__ import annotations

import pytest
import trio

from qss.errors import Busy, ObjectMissing, Unreachable
from qss.s3.store import ObjectStore
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.faulty_store import Faults, FaultyStore
from tests.harness.memory_store import MemoryStore, body_of


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestFaultyStoreWithoutFaults(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return FaultyStore(MemoryStore())


async def test_a_lost_answer_has_taken_place() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, faults=Faults(lost_answer=1.0))
    with pytest.raises(Unreachable):
        await store.put("k", body_of(b"x"))
    assert inner.objects == {"k": b"x"}


async def test_a_cut_body_has_not_taken_place() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, faults=Faults(cut=1.0))
    with pytest.raises(Unreachable):
        await store.put("k", body_of(b"x" * 200_000))
    with pytest.raises(ObjectMissing):
        await inner.head("k")


async def test_wrong_bytes_differ_in_one_bit() -> None:
    inner = MemoryStore()
    await inner.put("k", body_of(bytes(100)))
    got = await FaultyStore(inner, faults=Faults(wrong_bytes=1.0)).get("k")
    assert sum(byte.bit_count() for byte in got) == 1


async def test_a_seed_repeats_its_faults() -> None:
    async def run(seed: int) -> list[str]:
        store = FaultyStore(MemoryStore(), seed, Faults(busy=0.3, reset=0.3))
        said = []
        for _ in range(50):
            try:
                await store.delete("k")
                said.append("done")
            except (Busy, Unreachable) as error:
                said.append(type(error).__name__)
        return said

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)
    assert set(await run(1)) == {"done", "Busy", "Unreachable"}


async def test_hung_never_answers(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.hung = True
    with trio.move_on_after(3600) as scope:
        await store.head("k")
    assert scope.cancelled_caught
