"""export-unsent: names or copies what changed after the last root of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qss.app.exits import Exit
from qss.cli import exporting
from qss.cli.main import run

LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(3))


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    """Of a file system whose mount holds one file, newer than the last root."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    mounted = tmp_path / "mnt"
    (mounted / "dir").mkdir(parents=True)
    (mounted / "dir" / "new").write_bytes(b"only here")
    cut_ns = os.stat(mounted / "dir" / "new").st_ctime_ns
    status = {"mountpoint": str(mounted), "published_cut_ns": cut_ns}
    monkeypatch.setattr(exporting, "call_mount", lambda _settings, _method: status)
    path = tmp_path / "qss.toml"
    path.write_text(f"[code]\nk = 2\nm = 1\n{LOCATIONS}")
    return path


def test_a_list_needs_no_directory(config: Path, capsys) -> None:
    assert run(["--config", str(config), "export-unsent", "--list"]) == Exit.OK
    assert capsys.readouterr().out == "dir/new\n"
    assert run(["--config", str(config), "export-unsent", "--list", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"files": ["dir/new"], "failed": []}


def test_without_a_list_the_directory_is_asked_for(config: Path, capsys) -> None:
    assert run(["--config", str(config), "export-unsent"]) == Exit.USAGE
    assert "DIR" in capsys.readouterr().err


def test_copies_keep_their_paths_and_write_over_nothing(config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(["--config", str(config), "export-unsent", str(out)]) == Exit.OK
    assert (out / "dir" / "new").read_bytes() == b"only here"
    (out / "dir" / "new").write_bytes(b"mine")
    assert run(["--config", str(config), "export-unsent", str(out)]) == Exit.DATA
    assert (out / "dir" / "new").read_bytes() == b"mine"
    assert "already" in capsys.readouterr().err
