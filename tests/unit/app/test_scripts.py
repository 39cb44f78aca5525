"""scripts/setup in a checkout that borrows the virtual environment of another one: nothing is installed there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("borrowed", [False, True])
def test_an_environment_that_is_borrowed_stays_as_it_is(tmp_path: Path, borrowed: bool) -> None:
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(REPOSITORY / "scripts" / "setup", checkout / "scripts" / "setup")
    (checkout / "pyproject.toml").touch()
    programs = other / ".venv" / "bin" if borrowed else checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "pip"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/called\n")
        (programs / name).chmod(0o755)
    if borrowed:
        (checkout / ".venv").symlink_to(other / ".venv")
    subprocess.run([checkout / "scripts" / "setup"], check=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (tmp_path / "called").exists() == (not borrowed)
    assert (other / ".venv" / ".installed-run").exists() is False
