"""Reads and hints that go round the page cache give the same bytes as those that do not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.host.disk import ONCE_BYTES, PosixDisk
from qss.host.page_cache import begin_writeback, forget, memory_is_lent, read_once
from qss.limits import KIB

CONTENT = bytes(range(256)) * KIB


@pytest.fixture(params=["disk", "tmpfs"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On tmpfs the kernel refuses RWF_DONTCACHE, whatever its version."""
    with tempfile.TemporaryDirectory(dir=tmp_path if request.param == "disk" else "/dev/shm") as folder:
        path = Path(folder) / "file"
        path.write_bytes(CONTENT)
        yield path


@pytest.mark.parametrize("count", [1, ONCE_BYTES - 1, ONCE_BYTES, ONCE_BYTES + 1, len(CONTENT)])
@pytest.mark.parametrize("position", [0, 4095, len(CONTENT) - ONCE_BYTES, len(CONTENT) - 1, len(CONTENT)])
def test_what_is_read_once_is_what_is_there(file: Path, count: int, position: int) -> None:
    disk = PosixDisk()
    handle = disk.open(file)
    try:
        assert disk.pread_once(handle, count, position) == CONTENT[position : position + count]
        assert disk.pread(handle, count, position) == CONTENT[position : position + count]
    finally:
        disk.close(handle)


def test_hints_change_nothing_and_raise_nothing(file: Path) -> None:
    disk = PosixDisk()
    handle = disk.open(file, write=True)
    try:
        disk.pwrite(handle, [b"new"], 100)
        disk.begin_sync(handle, 0, len(CONTENT) * 2)
        forget(handle, 0, len(CONTENT) * 2)
        into = memoryview(bytearray(len(CONTENT)))
        assert read_once(handle, into, 0) == len(CONTENT)
        assert into == CONTENT[:100] + b"new" + CONTENT[103:]
    finally:
        disk.close(handle)
    begin_writeback(handle, 0, 10)  # of a file that is closed: only a hint
    forget(handle, 0, 10)


@pytest.mark.parametrize(
    ("features", "lent"),
    [
        ([], False),  # no balloon, or none at all of that bus
        (["0110010100"], True),
        (["0110000100"], False),
        (["0110000100", "0000010000"], True),
        (["", "011"], False),
    ],
)
def test_a_balloon_says_whether_memory_is_lent(tmp_path: Path, features: list[str], lent: bool) -> None:
    for number, digits in enumerate(features):
        (tmp_path / f"virtio{number}").mkdir()
        (tmp_path / f"virtio{number}" / "features").write_text(digits + "\n")
    assert memory_is_lent(tmp_path) is lent
    assert not memory_is_lent(tmp_path / "absent")
