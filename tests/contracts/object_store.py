"""What every ObjectStore must do, whoever it is. Subclass it in a test module and give it a `store` fixture that
yields a fresh, empty store:

    class TestS3Client(ObjectStoreContract):
        many = 1005  # more than one page of a listing

        @pytest.fixture
        async def store(self):
            ...
            yield client
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from qss.errors import CorruptData, ObjectMissing, PreconditionFailed
from qss.s3.store import Body, ObjectInfo, ObjectStore, get_into
from tests.harness.memory_store import body_of

ODD_KEYS = [
    "a", "a b", "a+b", "a%20b", "a/b/c", "a//b", "a&b=c?d#e", "a;b:c,d", "a'b\"c<d>", "a~b*c(d)!", "ä/ß", "日本語",
    "x" * 900, "é" * 400,
]  # fmt: skip
"""Keys that a careless client or server spoils."""

BYTE_ORDER = ["A", "a", "a!", "a/", "a/b", "a0", "aa", "b", "é", "\uffee", "\U0001f600"]
"""In UTF-8 byte order. UTF-16 order would swap the last two."""


class SourceFailed(Exception):
    """A body that cannot be read to its end."""


async def listed(store: ObjectStore, prefix: str = "", after: str = "") -> list[ObjectInfo]:
    return [info async for info in store.list(prefix, after)]


async def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [info.key for info in await listed(store, prefix, after)]


class ObjectStoreContract:
    many = 25
    """Objects of the long listing; more than the page size of the store under test."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError("give the contract a fresh, empty store")

    # -- put and get
    @pytest.mark.parametrize("size", [0, 1, 65_536, 300_001])
    async def test_put_then_get_gives_the_same_bytes(self, store: ObjectStore, size: int) -> None:
        data = bytes(i * 7 % 251 for i in range(size))
        await store.put("k", body_of(data))
        assert await store.get("k") == data

    async def test_put_replaces(self, store: ObjectStore) -> None:
        await store.put("k", body_of(b"first and longer"))
        await store.put("k", body_of(b"second"))
        assert await store.get("k") == b"second"
        assert (await store.head("k")).size == 6

    async def test_a_body_may_come_in_many_chunks_of_bytes_and_views(self, store: ObjectStore) -> None:
        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield b"abc"
            yield b""
            yield memoryview(bytearray(b"defg"))[1:]
            yield memoryview(b"hi")

        await store.put("k", Body(8, chunks))
        assert await store.get("k") == b"abcefghi"

    async def test_a_body_that_fails_leaves_nothing(self, store: ObjectStore) -> None:
        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield b"x" * 1000
            raise SourceFailed

        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the store makes of it
            await store.put("k", Body(2000, chunks))
        with pytest.raises(ObjectMissing):
            await store.head("k")

    async def test_a_body_that_fails_leaves_the_old_object(self, store: ObjectStore) -> None:
        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield b"x" * 1000
            raise SourceFailed

        await store.put("k", body_of(b"old"))
        with pytest.raises(Exception):  # noqa: B017, PT011
            await store.put("k", Body(2000, chunks))
        assert await store.get("k") == b"old"

    async def test_if_absent_lets_only_the_first_win(self, store: ObjectStore) -> None:
        await store.put("k", body_of(b"first"), if_absent=True)
        with pytest.raises(PreconditionFailed):
            await store.put("k", body_of(b"second"), if_absent=True)
        assert await store.get("k") == b"first"

    async def test_if_absent_after_delete(self, store: ObjectStore) -> None:
        await store.put("k", body_of(b"first"))
        await store.delete("k")
        await store.put("k", body_of(b"second"), if_absent=True)
        assert await store.get("k") == b"second"

    @pytest.mark.parametrize(
        ("start", "stop"), [(0, None), (0, 100), (0, 1), (99, 100), (99, None), (40, 60), (40, None), (0, 99)]
    )
    async def test_ranges(self, store: ObjectStore, start: int, stop: int | None) -> None:
        data = bytes(range(100))
        await store.put("k", body_of(data))
        assert await store.get("k", start, stop) == data[start:stop]

    @pytest.mark.parametrize(("start", "stop"), [(0, 100), (0, 1), (99, 100), (40, 60), (100, 100)])
    async def test_ranges_into_memory_of_ours(self, store: ObjectStore, start: int, stop: int) -> None:
        data = bytes(range(100))
        await store.put("k", body_of(data))
        memory = bytearray(b"\xff" * 110)
        await get_into(store, "k", start, memoryview(memory)[5 : 5 + stop - start])
        assert memory == b"\xff" * 5 + data[start:stop] + b"\xff" * (105 - stop + start), "and not a byte beside it"

    async def test_a_large_range_into_memory_of_ours(self, store: ObjectStore) -> None:
        data = random.Random(3).randbytes(3_000_001)
        await store.put("k", body_of(data))
        memory = bytearray(2_000_000)
        await get_into(store, "k", 7, memoryview(memory))
        assert memory == data[7:2_000_007]

    async def test_no_memory_is_filled_from_too_little_or_nothing(self, store: ObjectStore) -> None:
        await store.put("k", body_of(bytes(100)))
        for start, count in [(0, 101), (90, 20), (100, 1), (101, 0)]:
            with pytest.raises(CorruptData):
                await get_into(store, "k", start, memoryview(bytearray(count)))
        with pytest.raises(ObjectMissing):
            await get_into(store, "other", 0, memoryview(bytearray(1)))

    @pytest.mark.parametrize(("start", "stop"), [(0, 101), (90, 110), (100, 101), (500, 600)])
    async def test_an_answer_shorter_than_asked_is_corrupt(self, store: ObjectStore, start: int, stop: int) -> None:
        await store.put("k", body_of(bytes(100)))
        with pytest.raises(CorruptData):
            await store.get("k", start, stop)

    # -- missing
    async def test_get_of_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectMissing):
            await store.get("k")

    async def test_ranged_get_of_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectMissing):
            await store.get("k", 3, 5)

    async def test_head_of_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectMissing):
            await store.head("k")

    async def test_delete_of_nothing_is_no_error(self, store: ObjectStore) -> None:
        await store.delete("k")

    async def test_deleted_is_gone(self, store: ObjectStore) -> None:
        await store.put("k", body_of(b"x"))
        await store.put("kk", body_of(b"y"))
        await store.delete("k")
        with pytest.raises(ObjectMissing):
            await store.get("k")
        assert await keys(store) == ["kk"]

    # -- head
    async def test_head_tells_size_and_changes_of_content(self, store: ObjectStore) -> None:
        await store.put("k", body_of(b"one"))
        first = await store.head("k")
        await store.put("k", body_of(b"three"))
        second = await store.head("k")
        assert (first.key, first.size, second.size) == ("k", 3, 5)
        assert first.etag != second.etag
        assert second.etag
        assert '"' not in second.etag
        assert second.modified_ns >= first.modified_ns

    # -- list
    async def test_list_of_an_empty_store(self, store: ObjectStore) -> None:
        assert await listed(store) == []

    async def test_list_is_whole_in_order_and_without_repeats(self, store: ObjectStore) -> None:
        names = [f"{number:06d}" for number in range(self.many)]
        for name in reversed(names):
            await store.put(name, body_of(name.encode()[: int(name) % 6]))
        infos = await listed(store)
        assert [info.key for info in infos] == names
        assert [info.size for info in infos] == [int(name) % 6 for name in names]
        assert all(info.etag and '"' not in info.etag for info in infos)
        middle = names[self.many // 2]
        assert await keys(store, after=middle) == names[self.many // 2 + 1 :]
        assert await keys(store, after=middle + "x") == names[self.many // 2 + 1 :]

    async def test_list_by_prefix(self, store: ObjectStore) -> None:
        for key in ["a", "a/1", "a/2", "ab", "b/1"]:
            await store.put(key, body_of(b""))
        assert await keys(store, "a/") == ["a/1", "a/2"]
        assert await keys(store, "a") == ["a", "a/1", "a/2", "ab"]
        assert await keys(store, "a", after="a/1") == ["a/2", "ab"]
        assert await keys(store, "c") == []

    async def test_list_is_in_byte_order(self, store: ObjectStore) -> None:
        for key in reversed(BYTE_ORDER):
            await store.put(key, body_of(b""))
        assert await keys(store) == BYTE_ORDER

    # -- keys
    async def test_odd_keys_survive(self, store: ObjectStore) -> None:
        for key in ODD_KEYS:
            await store.put(key, body_of(key.encode()))
        for key in ODD_KEYS:
            assert await store.get(key) == key.encode()
            assert (await store.head(key)).key == key
        assert sorted(await keys(store)) == sorted(ODD_KEYS)
        for key in ODD_KEYS:
            await store.delete(key)
        assert await keys(store) == []
