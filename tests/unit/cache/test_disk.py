"""The real disk: what goes into a file in pieces is what was to be written, whole pieces or not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import NoSpace
from qss.host import PosixDisk, disk
from qss.host.disk import CACHED_WRITE_BYTES, write_in_pieces

NOISE = random.Random(4).randbytes(3 * CACHED_WRITE_BYTES)
lengths = st.sampled_from(
    [0, 1, 40, 4095, 4096, 4097, CACHED_WRITE_BYTES, CACHED_WRITE_BYTES + 1, 3 * CACHED_WRITE_BYTES]
)


@given(st.lists(lengths, min_size=1, max_size=4), st.integers(0, 9000), st.integers(1, CACHED_WRITE_BYTES))
def test_parts_come_one_behind_the_other_however_little_the_system_takes_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], position: int, taken: int
) -> None:
    path = tmp_path_factory.mktemp("disk") / "file"
    parts: list[bytes | memoryview] = [memoryview(NOISE)[-size or len(NOISE) :] for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwritev", lambda file, given, at: os.pwrite(file, b"".join(given)[:taken], at))
        real = PosixDisk()
        handle = real.create(path)
        assert real.pwrite(handle, parts, position) == sum(sizes)
        write_in_pieces(handle, parts, position + 10 * len(NOISE))
        real.close(handle)
    written = path.read_bytes()
    whole = b"".join(parts)
    assert written[position : position + len(whole)] == whole
    assert written[position + 10 * len(NOISE) :] == whole


def test_no_call_writes_more_into_the_page_cache_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    real = os.pwritev

    def noted(file: int, given: list[bytes | memoryview], at: int) -> int:
        counts.append(real(file, given, at))
        assert at == 5000 or at % 4096 == 0
        return counts[-1]

    monkeypatch.setattr(disk.os, "pwritev", noted)
    one = PosixDisk()
    handle = one.create(tmp_path / "file")
    one.pwrite(handle, [b"head", NOISE], 5000)
    one.close(handle)
    assert sum(counts) == len(NOISE) + 4
    assert max(counts) <= CACHED_WRITE_BYTES


def test_a_full_disk_is_no_space_also_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    one = PosixDisk()
    handle = one.create(tmp_path / "file")

    def full(file: int, given: list[bytes | memoryview], at: int) -> int:
        if at > CACHED_WRITE_BYTES:
            raise OSError(28, "No space left on device")
        return real(file, given, at)

    monkeypatch.setattr(disk.os, "pwritev", full)
    with pytest.raises(NoSpace):
        one.pwrite(handle, [NOISE], 0)
    one.close(handle)
