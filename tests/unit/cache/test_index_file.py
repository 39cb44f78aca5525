"""LMDB's file overwritten in places, cut short, replaced or deleted, at the start and in use: the rows come back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from qss.cache.index import Index
from qss.cache.index_file import DATA_FILE, digest_of, last_txnid, verify_tree
from qss.cache.marker import MARKER, read_marker
from qss.cache.options import CacheOptions
from qss.cache.recovery import STARTS_MAX
from qss.cache.store import SegmentCache
from qss.errors import CorruptData
from qss.formats.journal import Op
from qss.formats.tables import Table, u64_key
from qss.host import Host
from tests.harness.crash_index import PAGE, overwrite_pages
from tests.harness.mounted import ROOT

OPTIONS = CacheOptions(index_map_bytes=1 << 28, free_bytes_hard=0, free_bytes_soft=1)
ROWS = 3000

KILLED = """
import os, sys, trio
from pathlib import Path
from tests.unit.cache.test_index_file import fill, opened
async def main():
    cache = await opened(Path(sys.argv[1]))
    await fill(cache, int(sys.argv[2]), int(sys.argv[3]))
    os._exit(9)
trio.run(main)
"""

IN_USE = """
import os, sys, trio
from pathlib import Path
from qss.errors import QssError
from qss.formats.tables import Table, u64_key
from tests.unit.cache.test_index_file import damage, fill, opened, row_of, ROWS
async def main():
    root, seed = Path(sys.argv[1]), int(sys.argv[2])
    cache = await opened(root)
    await fill(cache, 0, ROWS)
    damage(root, seed)
    wrong = 0
    for number in range(ROWS):
        try:
            found = cache.get(Table.XATTRS, u64_key(number))
        except QssError:
            continue  # said, not answered wrongly
        wrong += found not in (None, row_of(number))
    await fill(cache, ROWS, ROWS + 100)
    os._exit(0)
trio.run(main)
"""


def row_of(number: int) -> bytes:
    return b"%d " % number * 10


async def opened(root: Path) -> SegmentCache:
    return await SegmentCache.open(root, Host(), OPTIONS, None)


async def fill(cache: SegmentCache, start: int, stop: int) -> None:
    """Rows by the hundred, a checkpoint after each thousand: some only in the journal, if not a multiple."""
    for first in range(start, stop, 100):
        change = cache.begin()
        for number in range(first, min(first + 100, stop)):
            change.put(Table.XATTRS, u64_key(number), row_of(number))
        cache.commit(change)
        if first % 1000 == 900:
            await cache.checkpoint()


def rows(cache: SegmentCache) -> dict[bytes, bytes]:
    return dict(cache.scan(Table.XATTRS, b""))


EXPECTED = {u64_key(number): row_of(number) for number in range(ROWS + 150)}


def damage(root: Path, seed: int) -> None:
    path = root / "index" / DATA_FILE
    content = bytearray(path.read_bytes())
    overwrite_pages(content, random.Random(seed))
    with path.open("r+b") as file:  # in place: whoever has it mapped sees it
        file.write(content)


def run(code: str, *arguments: object) -> int:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, timeout=60, check=False, env={**os.environ}).returncode


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose process was killed between two checkpoints."""
    root = tmp_path_factory.mktemp("killed") / "cache"
    assert run(KILLED, root, 0, ROWS + 150) == 9
    return root


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def cut_short(root: Path) -> None:
    path = root / "index" / DATA_FILE
    os.truncate(path, path.stat().st_size // 3 // PAGE * PAGE)


def of_another_moment(root: Path) -> None:
    """A page that is a good page, of this file, in another place."""
    path = root / "index" / DATA_FILE
    content = bytearray(path.read_bytes())
    content[8 * PAGE : 9 * PAGE] = content[9 * PAGE : 10 * PAGE]
    path.write_bytes(content)


DAMAGES = {
    "deleted": lambda root: (root / "index" / DATA_FILE).unlink(),
    "empty": lambda root: os.truncate(root / "index" / DATA_FILE, 0),
    "cut short": cut_short,
    "a page of another place": of_another_moment,
    **{f"pages overwritten, seed {seed}": (lambda root, seed=seed: damage(root, seed)) for seed in range(12)},
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("clean", [False, True], ids=["killed", "stopped"])
async def test_whatever_happened_to_the_file_the_rows_are_there(tmp_path, killed, what, clean) -> None:
    root = copied(killed, tmp_path / "cache")
    if clean:
        await (await opened(root)).close()
    DAMAGES[what](root)
    cache = await opened(root)
    assert rows(cache) == EXPECTED
    await fill(cache, 5000, 5100)
    await cache.close()
    verify_tree(root / "index" / DATA_FILE)
    cache = await opened(root)
    assert len(rows(cache)) == len(EXPECTED) + 100
    await cache.close()


async def test_one_bit_is_noticed_after_a_clean_stop(tmp_path, killed) -> None:
    root = copied(killed, tmp_path / "cache")
    await (await opened(root)).close()
    path = root / "index" / DATA_FILE
    content = bytearray(path.read_bytes())
    content[content.index(row_of(77))] ^= 1
    path.write_bytes(content)
    cache = await opened(root)
    assert rows(cache) == EXPECTED
    await cache.close()


async def test_a_sound_file_is_used_and_not_rebuilt(tmp_path, killed) -> None:
    root = copied(killed, tmp_path / "cache")
    cache = await opened(root)
    assert cache.facts().replayed_batches < 10
    await cache.close()
    inode = (root / "index" / DATA_FILE).stat().st_ino
    cache = await opened(root)
    assert cache.facts().replayed_batches == 0
    await cache.close()
    assert (root / "index" / DATA_FILE).stat().st_ino == inode


async def test_an_index_that_was_started_in_vain_again_and_again_is_rebuilt(tmp_path, killed) -> None:
    """Whatever it was that ended the process each time."""
    root = copied(killed, tmp_path / "cache")
    inode = (root / "index" / DATA_FILE).stat().st_ino
    for _ in range(STARTS_MAX):
        assert run(KILLED, root, 0, 0) == 9
    marker = read_marker(Host(), root)
    assert marker is not None
    assert marker.starts == STARTS_MAX
    assert (root / "index" / DATA_FILE).stat().st_ino == inode
    with (root / "index" / DATA_FILE).open("rb"):  # so that its number is not given to the next file
        cache = await opened(root)
        assert (root / "index" / DATA_FILE).stat().st_ino != inode
    assert rows(cache) == EXPECTED
    await cache.checkpoint()  # in use for a while
    marker = read_marker(Host(), root)
    assert marker is not None
    assert marker.starts == 0
    await cache.close()


@pytest.mark.parametrize("seed", range(6))
async def test_pages_overwritten_in_use(tmp_path, seed) -> None:
    """The process may end of it (LMDB reads where nothing is); the next start has every row."""
    root = tmp_path / "cache"
    code = run(IN_USE, root, seed)
    assert code <= 0, "it ended as told, or by a signal; never by an exception"
    cache = await opened(root)
    found = rows(cache)
    expected = {u64_key(number): row_of(number) for number in range(ROWS)}
    assert {key: found.get(key) for key in expected} == expected
    assert found.keys() - expected.keys() <= {u64_key(number) for number in range(ROWS, ROWS + 100)}
    await cache.close()


async def test_deleted_in_use(tmp_path) -> None:
    root = tmp_path / "cache"
    cache = await opened(root)
    await fill(cache, 0, 1000)
    (root / "index" / DATA_FILE).unlink()
    await fill(cache, 1000, 2000)
    assert len(rows(cache)) == 2000
    await cache.close()
    cache = await opened(root)
    assert len(rows(cache)) == 2000
    await cache.close()


async def test_when_lmdb_fails_in_use_the_index_is_rebuilt_in_place(tmp_path) -> None:
    cache = await opened(tmp_path / "cache")
    await fill(cache, 0, 500)
    cache._ledger.index._txn.abort()
    assert cache.get(Table.XATTRS, u64_key(7)) == row_of(7)
    cache._ledger.index._txn.abort()
    with pytest.raises(Exception, match="cannot be read"):
        list(cache.scan(Table.XATTRS, b""))
    assert len(list(cache.scan(Table.XATTRS, b""))) == 500
    await fill(cache, 500, 600)
    await cache.close()


async def test_a_marker_that_does_not_verify_is_none(tmp_path) -> None:
    root = tmp_path / "cache"
    await (await opened(root)).close()
    marker = root / MARKER
    assert read_marker(Host(), root) is not None
    marker.write_text(marker.read_text().replace('"starts": 0', '"starts": 1'))
    assert read_marker(Host(), root) is None
    await (await opened(root)).close()


def test_trees_of_every_shape_verify(tmp_path) -> None:
    """Large values on pages of their own, pages freed and used again, tables emptied."""
    index, path, rng = Index(tmp_path, 1 << 28), tmp_path / DATA_FILE, random.Random(3)
    there: set[bytes] = set()
    for turn in range(30):
        for _ in range(300):
            key = rng.randbytes(rng.randint(1, 60))
            index.apply([Op(Table.XATTRS, key, None, rng.randbytes(rng.choice((3, 90, 3000, 9000))))])
            there.add(key)
        for key in rng.sample(sorted(there), len(there) // 2 if turn < 29 else len(there)):
            index.apply([Op(Table.XATTRS, key, b"", None)])
            there.discard(key)
        index.checkpoint(b"m" * 40)
        verify_tree(path)
        assert last_txnid(path) == index.txnid
    index.close()


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 8192, os.urandom(20_000)])
def test_no_index_at_all(tmp_path, content) -> None:
    path = tmp_path / DATA_FILE
    path.write_bytes(content)
    for look in (verify_tree, last_txnid):
        with pytest.raises(CorruptData):
            look(path)
    assert len(digest_of(path)) == 64
    with pytest.raises(CorruptData):
        digest_of(tmp_path / "none")
