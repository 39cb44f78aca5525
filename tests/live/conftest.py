"""A mount for each test that asks for one; whatever the test does, it ends unmounted and leaves nothing on the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounted import Mounted


@pytest.fixture
def mount() -> Iterator[Mounted]:
    """Not started yet: for tests with options of their own. Other users may look into it."""
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no /dev/fuse here")
    folder = Path(tempfile.mkdtemp(prefix="qss-live-"))
    folder.chmod(0o755)  # pytest's own are closed to others
    made = Mounted(folder)
    try:
        yield made
    finally:
        made.close()
        if not made.is_mounted():
            shutil.rmtree(folder)


@pytest.fixture
def mounted(mount: Mounted) -> Mounted:
    mount.start()
    return mount


@pytest.fixture
def mnt(mounted: Mounted) -> Path:
    return mounted.path
