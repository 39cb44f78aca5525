from __future__ import annotations

import pytest

from qss.fuse.touch import ATIME, ATIME_NOW, MTIME, MTIME_NOW, meant


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (ATIME | ATIME_NOW | MTIME | MTIME_NOW, ATIME_NOW | MTIME_NOW),
        (ATIME | MTIME, ATIME | MTIME),
        (ATIME | ATIME_NOW | MTIME, ATIME_NOW | MTIME),
        (MTIME | MTIME_NOW, MTIME_NOW),
        (0b1111, 0b1111),
    ],
)
def test_now_is_now_and_not_the_last_tick(asked, wanted):
    assert meant(asked) == wanted
