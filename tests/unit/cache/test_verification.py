"""Every byte that is read is verified: what is damaged here heals from the locations, or is EIO for just these bytes.

On a real vault over memory stores (k = 2, m = 1).
"""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from pathlib import Path

import pytest

from qss.cache.damage import files_hit
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.formats.record import head_bytes
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.host import Host
from qss.ids import Ino, SegmentId
from qss.limits import BLOCK_BYTES, MIB
from tests.harness.vault import World

OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=1 << 28, fetch_deadline_s=0.4, free_bytes_hard=0)
SIZES = (300_000, 64 * 1024, 1, 5000, 200, 130_000)
SMALL_READ = 4096


class Files:
    """A cache with six files, each one record of one segment, and the locations it may be stored at."""

    async def fill(self, root: Path, *, store: bool = True) -> None:
        self.world = World.of(k=2, m=1, fetch_deadline_s=0.2)
        self.machine = self.world.machine(root / "state")
        self.cache = await SegmentCache.open(root / "cache", Host(), OPTIONS, self.machine.vault)
        self.content: dict[int, bytes] = {}
        self.extents: dict[int, ExtentRow] = {}
        change = self.cache.begin()
        for ino, size in enumerate(SIZES, 10):
            self.content[ino] = random.Random(ino).randbytes(size)
            ((_, self.extents[ino]),) = self.cache.append(Ino(ino), 0, self.content[ino])
            change.put(Table.EXTENTS, pair_key(ino, 0), self.extents[ino].pack())
        self.cache.commit(change)
        await self.cache.cut()
        self.segment = self.extents[10].segment
        self.path = root / "cache" / "data" / f"{self.segment:016x}.log"
        self.stripe = root / "cache" / "stripes" / f"{self.segment:016x}-0.stripe"
        if store:
            await self.store()

    async def store(self, *, missing: int = 0) -> None:
        for sealed in await self.cache.unsafe_segments():
            receipt = await self.machine.vault.store(sealed, await self.cache.path_of(sealed.id))
            receipt = replace(receipt, placed=(*receipt.placed[missing:], *[None] * missing))
            await self.cache.mark_offloaded(receipt)

    def flip(self, position: int, path: Path | None = None) -> None:
        path = path or self.path
        with path.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 0x20]))

    def all_down(self, down: bool) -> None:
        for store in self.world.stores.values():
            store.down = down

    async def read(self, ino: int, start: int = 0, stop: int | None = None) -> bytes:
        extent = self.extents[ino]
        return bytes(await self.cache.read(extent, start, extent.length if stop is None else stop))

    async def unreadable(self, ino: int) -> set[int]:
        """Where small reads fail, as block numbers; what does not fail is right."""
        found = set()
        for start in range(0, len(self.content[ino]), SMALL_READ):
            stop = min(start + SMALL_READ, len(self.content[ino]))
            try:
                assert await self.read(ino, start, stop) == self.content[ino][start:stop]
            except FsError as error:
                assert error.errno == errno.EIO  # noqa: PT017
                found.add(start // BLOCK_BYTES)
        return found

    async def all_right(self) -> None:
        for ino, content in self.content.items():
            assert await self.read(ino) == content


@pytest.fixture
async def files(tmp_path):
    files = Files()
    await files.fill(tmp_path)
    yield files
    await files.cache.close()


@pytest.fixture
async def local(tmp_path):
    """Not stored anywhere else."""
    files = Files()
    await files.fill(tmp_path, store=False)
    yield files
    await files.cache.close()


def places(extent: ExtentRow) -> list[int]:
    """Of one record: head, its check, table, first, middle and last byte of the payload."""
    payload = extent.record_position + head_bytes(extent.record_length)
    return [extent.record_position + at for at in (0, 5, 33, 41)] + [
        payload, payload + extent.record_length // 2, payload + extent.record_length - 1,
    ]  # fmt: skip


@pytest.mark.parametrize("ino", range(10, 10 + len(SIZES)))
async def test_damage_anywhere_in_a_record_heals_while_the_reader_waits(files, ino) -> None:
    for position in places(files.extents[ino]):
        if not files.path.exists():  # dropped with the damage before
            return
        files.flip(position)
        assert await files.read(ino) == files.content[ino]
        assert not files.path.exists(), "the damaged copy was dropped"
        assert files.stripe.exists()
    facts = files.cache.facts()
    assert (facts.damage_healed, facts.damage_open) == (1, 0)
    assert files.cache.damage.open == []
    await files.all_right()


async def test_the_only_copy_fails_for_just_the_bytes_concerned(local) -> None:
    payload = local.extents[10].record_position + head_bytes(300_000)
    local.flip(payload + 2 * BLOCK_BYTES + 77)
    assert await local.unreadable(10) == {2}
    for ino in range(11, 10 + len(SIZES)):
        assert await local.read(ino) == local.content[ino]
    (damage,) = local.cache.damage.open
    assert (damage.segment, damage.record) == (local.segment, local.extents[10].record_position)
    assert local.cache.facts().damage_open == 1
    hit = list(files_hit(local.cache.scan(Table.EXTENTS, b""), local.cache.damage.open))
    assert hit == [(10, damage.start, damage.stop - damage.start)]
    assert 2 * BLOCK_BYTES <= damage.start < damage.stop <= 3 * BLOCK_BYTES


async def test_a_damaged_head_is_the_whole_record_and_nothing_else(local) -> None:
    local.flip(local.extents[10].record_position + 9)
    assert await local.unreadable(10) == set(range(5))
    for ino in range(11, 10 + len(SIZES)):
        assert await local.read(ino) == local.content[ino]


async def test_while_the_locations_are_away_only_the_damaged_bytes_are(files) -> None:
    files.all_down(True)
    payload = files.extents[10].record_position + head_bytes(300_000)
    files.flip(payload + 1 * BLOCK_BYTES)
    with pytest.raises(FsError) as failure:
        await files.read(10)
    assert failure.value.errno == errno.EIO
    assert files.path.exists(), "the good blocks are still wanted"
    assert await files.read(10, 0, BLOCK_BYTES) == files.content[10][:BLOCK_BYTES]
    assert await files.read(10, 2 * BLOCK_BYTES) == files.content[10][2 * BLOCK_BYTES :]
    assert await files.read(15) == files.content[15]
    assert len(files.cache.damage.open) == 1
    files.all_down(False)
    assert await files.read(10) == files.content[10]
    assert files.cache.damage.open == []
    assert not files.path.exists()


async def test_a_copy_that_is_not_safe_elsewhere_is_kept(tmp_path) -> None:
    """One shard is missing: enough to heal, not enough to do without the rest of this copy."""
    files = Files()
    await files.fill(tmp_path, store=False)
    await files.store(missing=1)
    files.flip(files.extents[13].record_position + 50)
    assert await files.read(13) == files.content[13]
    assert files.path.exists()
    assert files.cache.facts().damage_healed == 1
    await files.all_right()
    await files.cache.close()


async def test_a_fetched_stripe_that_rots_is_fetched_again(files) -> None:
    await files.cache.evict(all_=True)
    await files.all_right()
    for ino in (10, 12, 13):
        files.flip(files.extents[ino].record_position + head_bytes(files.extents[ino].record_length), files.stripe)
        await files.all_right()
    files.stripe.write_bytes(files.stripe.read_bytes()[:1000])
    await files.all_right()
    assert files.cache.facts().damage_healed == 4


async def test_both_copies_here_are_damaged(files) -> None:
    await files.cache.evict(all_=True)
    await files.all_right()
    content = files.stripe.read_bytes()
    files.path.write_bytes(content)
    files.cache._reads.add_segment(SegmentId(files.segment), files.path, len(content), 0.0)
    files.flip(files.extents[11].record_position + 60)
    files.flip(files.extents[11].record_position + 60, files.stripe)
    await files.all_right()
    assert files.cache.damage.open == []


@pytest.mark.parametrize(("damaged", "heals"), [(1, True), (2, False)])
async def test_as_many_damaged_locations_as_the_code_bears(files, damaged, heals) -> None:
    for name in list(files.world.stores)[:damaged]:
        objects = files.world.objects(name)
        key = files.machine.keys.shard_name(files.segment, 0, name)
        body = bytearray(objects[key])
        for at in range(200, len(body) - 200, 1000):
            body[at] ^= 1
        objects[key] = bytes(body)
    files.flip(files.extents[10].record_position + head_bytes(300_000))
    if heals:
        assert await files.read(10) == files.content[10]
        return
    assert await files.unreadable(10) == {0}
    assert await files.read(11) == files.content[11]
    assert len(files.cache.damage.open) == 1


async def test_a_hole_or_a_shorter_file_is_damage_too(files) -> None:
    with files.path.open("r+b") as file:
        file.truncate(files.extents[12].record_position)
    await files.all_right()
    assert files.cache.facts().damage_healed >= 1


@pytest.mark.parametrize("seed", range(5))
async def test_any_damage_of_the_only_copy_never_gives_wrong_bytes(tmp_path, seed) -> None:
    files, rng = Files(), random.Random(seed)
    await files.fill(tmp_path, store=False)
    size = files.path.stat().st_size
    with files.path.open("r+b") as file:
        for _ in range(rng.randint(1, 12)):
            file.seek(rng.randrange(40, size))
            file.write(rng.choice((bytes(1), bytes(4096), rng.randbytes(70_000), rng.randbytes(3))))
        file.truncate(size)
    bad = {ino: await files.unreadable(ino) for ino in files.content}  # asserts that the rest is right
    assert bool(files.cache.damage.open) == any(bad.values())
    await files.cache.close()
