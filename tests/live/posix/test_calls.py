"""The same system calls on the mount and in a native directory: the same results, errnos, attributes and times moved.

The tables are tests/harness/posix_scripts.py. As pjdfstest does it, but the native file system says what is right.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounted import ROOT, Mounted
from tests.harness.native import differences, has_fine_times, transcripts
from tests.harness.posix_scripts import FORCED, GROUPS, READ_ONLY

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs /dev/fuse and root"),
]


@pytest.fixture(scope="module")
def mounted() -> Iterator[Mounted]:
    with tempfile.TemporaryDirectory(prefix="qss-calls-") as folder:  # pytest's own are closed to other users
        os.chmod(folder, 0o755)
        mount = Mounted(Path(folder))
        mount.start()
        yield mount
        mount.close()


def compared(native: Path, mounted: Path, scripts: list[str]) -> dict[str, list[str]]:
    """Script → what the mount said otherwise."""
    pairs = zip(scripts, transcripts(native, scripts), transcripts(mounted, scripts), strict=True)
    times = has_fine_times(native)
    return {script: found for script, one, other in pairs if (found := differences(one, other, times=times))}


@pytest.mark.parametrize("group", GROUPS)
def test_the_mount_answers_as_the_native_file_system(mounted: Mounted, group: str) -> None:
    scripts = list(GROUPS[group]())
    assert compared(mounted.state.parent / group, mounted.path / group, scripts) == {}


def test_what_has_to_differ_does_and_is_documented(mounted: Mounted) -> None:
    found = compared(mounted.state.parent / "forced", mounted.path / "forced", list(FORCED))
    times_tell = {script for script in FORCED if FORCED[script] == "a fifo's times"}
    assert found.keys() | times_tell == FORCED.keys()
    documented = (ROOT / "docs" / "semantics.md").read_text()
    assert [reason for reason in FORCED.values() if reason not in documented] == []


def test_a_read_only_mount_refuses_as_a_read_only_bind(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="qss-ro-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        mount = Mounted(folder)
        native = folder / "native"
        native.mkdir()
        mount.start()
        try:
            for place in (native, mount.path):
                transcripts(place / "tree", [f"{READ_ONLY[0]}"])
            mount.stop()
            mount.start("--ro")
            subprocess.run(["mount", "--bind", "-o", "ro", native, native], check=True)
            try:
                below = [[place / "tree" / "0"] for place in (native, mount.path)]
                one, other = [transcripts(*each, READ_ONLY[1:], make=False) for each in below]
            finally:
                subprocess.run(["umount", native], check=True)
            pairs = zip(READ_ONLY[1:], one, other, strict=True)
            assert {script: found for script, a, b in pairs if (found := differences(a, b))} == {}
        finally:
            mount.close()


def test_touched_after_is_not_older(mounted: Mounted) -> None:
    written, touched = mounted.path / "written", mounted.path / "touched"
    touched.touch()
    older = 0
    for _ in range(300):
        written.write_text("x")
        os.utime(touched)
        older += touched.stat().st_mtime_ns < written.stat().st_mtime_ns
    assert older == 0
