"""Bytes flipped in local segment files and in the volumes of a real node, under a mount in use: healed.

What cannot be healed is EIO for just its bytes: tests/unit/cache/test_verification.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.demo import Demo, running_demo

pytestmark = pytest.mark.live

MIB = 1 << 20
EVERY = 50_000


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


def rot(path: Path, *, first: int = 5_000, every: int = EVERY) -> None:
    """One bit in every `every` bytes, in place: whoever has the file open sees it."""
    with path.open("r+b") as file:
        for at in range(first, path.stat().st_size, every):
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 4]), at)


def read(path: Path) -> bytes:
    """Past the kernel's cache of the mount."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return b"".join(iter(lambda: file.read(MIB), b""))


def segments(demo: Demo) -> list[Path]:
    return sorted((demo.state / "cache" / "data").glob("*.log"))


def test_rot_on_this_machine_and_at_one_location_is_healed(demo: Demo) -> None:
    contents = {f"f{number}": os.urandom(2 * MIB + number) for number in range(6)}
    for name, content in contents.items():
        (demo.mnt / name).write_bytes(content)
    demo.sync()

    for path in segments(demo):
        rot(path)
    for name, content in contents.items():
        assert read(demo.mnt / name) == content, "healed while the reader waits"
    assert demo.status()["damage"]["found"] > 0
    demo.qssctl("fsck", "--data")  # the damaged copies are gone, and what took their place is whole

    volumes = list((demo.root / "nodes" / "2").rglob("*.tvol"))
    assert volumes
    for path in volumes:
        rot(path)
    demo.evict_all()
    for name, content in contents.items():
        assert read(demo.mnt / name) == content, "from the other two"

    (demo.mnt / "new").write_bytes(contents["f0"])
    assert read(demo.mnt / "new") == contents["f0"]
    assert os.path.ismount(demo.mnt)
