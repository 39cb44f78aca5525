"""Every way to start a mount asks first whether this machine may write the file system."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qss.app import daemon, demo, mount, starting
from qss.app.exits import Exit
from qss.app.identity import Identity, write_identity
from qss.app.running import leaving_path
from qss.cli import mount_helper
from qss.cli.main import run
from qss.config import load
from qss.errors import Refused
from qss.host import SystemEntropy
from qss.offload.keyfiles import write_key_file
from qss.offload.keys import MasterKey, fs_id_of

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system that another machine holds; nothing may be started."""
    state, master = tmp_path / "state", MasterKey(bytes(32))
    write_identity(state, Identity(fs_id_of(master).hex(), 1))
    write_key_file(state / "key", master, SystemEntropy())
    path = tmp_path / "qss.toml"
    places = "".join(
        f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\naccess_key = "x"\nsecret_key = "x"\n' for n in range(3)
    )
    path.write_text(f"[code]\nk = 2\nm = 1\n{places}")
    path.chmod(0o600)

    def refuse(*_args: object, **_options: object) -> str:
        raise Refused("somebody else holds it")

    def never(*_args: object, **_options: object) -> int:
        raise AssertionError("a mount process is started")

    monkeypatch.setattr(starting, "admit", refuse)
    monkeypatch.setattr(daemon, "start", never)
    monkeypatch.setattr(mount, "main", never)
    return path


@pytest.mark.parametrize("how", [[], ["--foreground"]])
def test_qssctl_mount_and_systemd_ask(config: Path, how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", str(config), "mount", str(config.parent / "mnt"), *how]) == Exit.REFUSED
    assert "somebody else holds it" in capsys.readouterr().err


def test_mount_8_asks(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = mount_helper.command([str(config), str(config.parent / "mnt")])
    assert command is not None
    assert run(command) == Exit.REFUSED
    assert "somebody else holds it" in capsys.readouterr().err


def test_the_demo_asks(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "start_nodes", lambda _nodes: {})
    with pytest.raises(Refused, match="somebody else"):
        demo.start(demo.Demo(config.parent, 2, 1, 3))


LEAVER = """
import pathlib, sys
from qss.app.running import leaving_path, pid_file, state_lock
run = pathlib.Path(sys.argv[1])
with state_lock(run.parent):
    print("holds", flush=True)
    input()
    with pid_file(leaving_path(run)):
        print("leaves", flush=True)
        input()
"""


def test_a_mount_waits_for_the_one_before_also_when_that_does_not_know_yet_that_it_is_unmounted(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(config, {})
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    told: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", LEAVER, settings.run_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as leaver:
        assert leaver.stdin is not None
        assert leaver.stdout is not None
        assert leaver.stdout.readline() == "holds\n"

        def where(*_: object) -> dict[str, object]:
            return {"mountpoint": str(config.parent / "mnt"), "pid": leaver.pid}

        def not_mounted(_: Path) -> None:
            """The first look is before it has noticed; then it does."""
            if not leaving_path(settings.run_dir).exists():
                print(file=leaver.stdin, flush=True)
                assert leaver.stdout is not None
                assert leaver.stdout.readline() == "leaves\n"

        def warned(sentence: str) -> None:
            told.append(sentence)
            print(file=leaver.stdin, flush=True)

        monkeypatch.setattr(starting, "call_mount", where)
        monkeypatch.setattr(starting, "mounted_type", not_mounted)
        with pytest.raises(Refused, match="somebody else"):  # it goes on when the other has gone
            starting.in_background(starting.Start(settings, config.parent / "mnt"), {}, warned)
        assert leaver.poll() == 0
    assert len(told) == 1
    assert "waiting" in told[0]


def test_these_are_all() -> None:
    """Who starts the mount process: only qss.app.starting. The unit of systemd and mount.qss go through qssctl."""
    by_import = re.compile(
        r"from qss\.app\.mount import .*main|from qss\.app import .*\bmount\b|import qss\.app\.mount\b"
    )
    starts = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "qss").rglob("*.py")
        if by_import.search(path.read_text()) or "daemon.start(" in path.read_text()
    }
    assert starts == {"qss/app/starting.py", "qss/cli/snapshots.py"}  # snapshots are only read
    assert '"qss.app.snapshot_mount"' in (REPOSITORY / "qss/cli/snapshots.py").read_text()
    for unit in (REPOSITORY / "docs/systemd").iterdir():
        assert re.search(r"^ExecStart=\S*qssctl .* mount --foreground$", unit.read_text(), re.MULTILINE), unit
    for script in (REPOSITORY / "scripts").iterdir():
        if script.is_file():
            assert "qss.app.mount" not in script.read_text(), script
