"""qssctl without a mount: arguments, refusals, exit codes. One sentence each, nothing touched."""

import json
import socket
import stat
from pathlib import Path

import pytest

from qss.app.exits import Exit, exit_of
from qss.app.identity import Identity, write_identity
from qss.app.mountpoint import mounts, prepare
from qss.cache.options import PathPolicy
from qss.cli.main import run
from qss.cli.retaining import path_inside
from qss.config import load
from qss.errors import (
    AccessDenied,
    Busy,
    ConfigInvalid,
    CorruptData,
    FsError,
    QssError,
    Refused,
    TooFewShards,
    Unreachable,
    WrongKey,
)

LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("QSS_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    return tmp_path


@pytest.fixture
def config(here):
    path = here / "qss.toml"
    path.write_text(f'[code]\nk = 2\nm = 1\n[retention]\n# max_size = "10G"  # local copies\n{LOCATIONS}')
    return path


def refusal(capsys, *arguments) -> tuple[int, str]:
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qssctl: ")
    assert err.count("\n") == 1, "one sentence"
    return code, err


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_every_error_has_its_exit_code():
    expected = {
        ConfigInvalid("x"): Exit.REFUSED,
        WrongKey("x"): Exit.REFUSED,
        AccessDenied("x"): Exit.REFUSED,
        Refused("x"): Exit.REFUSED,
        FsError(28): Exit.REFUSED,
        Unreachable("x"): Exit.UNREACHABLE,
        Busy("x"): Exit.UNREACHABLE,
        CorruptData("x"): Exit.DATA,
        TooFewShards("x"): Exit.DATA,
        QssError("x"): Exit.INTERNAL,
    }
    for error, code in expected.items():
        assert exit_of(error) is code


def test_version(capsys):
    assert run(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"]


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["init", "--k", "many"], ["status", "--frob"], ["retention", "set"]]
)
def test_wrong_arguments(here, config, capsys, arguments):
    code, message = refusal(capsys, *arguments)
    assert code == Exit.USAGE
    assert "--help" in message


def test_no_configuration(here, capsys):
    code, message = refusal(capsys, "status")
    assert code == Exit.REFUSED
    assert "--config" in message


def test_unknown_configuration_key(config, capsys):
    config.write_text(config.read_text().replace("# max_size", "max_sise"))
    code, message = refusal(capsys, "mount")
    assert code == Exit.REFUSED
    assert 'did you mean "max_size"' in message


@pytest.mark.parametrize(
    "arguments", [["status"], ["sync"], ["retention", "show"], ["retention", "run"], ["retention", "pins"], ["umount"]]
)
def test_not_mounted(config, capsys, arguments):
    code, message = refusal(capsys, *arguments)
    assert code == Exit.UNREACHABLE
    assert "not mounted" in message


def test_a_new_key_is_private_and_never_replaced(here, capsys):
    assert run(["key", "new", "--out", "k"]) == 0
    capsys.readouterr()
    key = here / "k"
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    code, message = refusal(capsys, "key", "new", "--out", "k")
    assert code == Exit.REFUSED
    assert "k" in message
    assert key.read_bytes() == before


def test_retention_of_a_path_has_its_own_section(config, capsys):
    before = config.read_text()
    assert run(["retention", "set", "--path", "/my videos", "--max-age", "1h"]) == 0
    assert run(["retention", "set", "--path", "/my videos", "--max-size", "2G"]) == 0
    capsys.readouterr()
    assert load(config, {}).cache.retention.paths == (PathPolicy("/my videos", 3600.0, 2 << 30),)
    assert run(["retention", "set", "--path", "/my videos", "--drop"]) == 0
    capsys.readouterr()
    assert load(config, {}).cache.retention.paths == ()
    assert config.read_text().split() == before.split()
    for wrong in (["--path", "videos", "--max-age", "1h"], ["--path", "/a/../b", "--max-age", "1h"]):
        code, message = refusal(capsys, "retention", "set", *wrong)
        assert code == Exit.REFUSED
        assert "from the root" in message
    for wrong in (["--drop"], ["--path", "/a", "--drop", "--max-age", "1h"], ["--path", "/a", "--min-free", "1G"]):
        assert refusal(capsys, "retention", "set", *wrong)[0] == Exit.USAGE


def test_paths_are_taken_from_the_root_of_the_file_system(here):
    (here / "mnt" / "a").mkdir(parents=True)
    (here / "link").symlink_to(here / "mnt")
    assert path_inside(Path("link/a/b"), here / "mnt") == "/a/b"
    assert path_inside(here / "mnt", here / "mnt") == "/"
    assert path_inside(Path("mnt/a/.."), here / "link") == "/"
    with pytest.raises(Refused, match="not in the file system"):
        path_inside(Path("elsewhere"), here / "mnt")


def test_retention_set_edits_the_file(config, capsys):
    assert run(["retention", "set", "--max-size", "1G", "--max-age", "7d"]) == 0
    assert "next mount" in capsys.readouterr().out
    limits = load(config, {}).cache.retention
    assert (limits.size_bytes_max, limits.age_s_max) == (1 << 30, 604_800)
    assert "# local copies" in config.read_text()
    before = config.read_text()
    assert refusal(capsys, "retention", "set", "--max-size", "lots")[0] == Exit.REFUSED
    assert config.read_text() == before


def test_mount_refuses_and_touches_nothing(here, config, capsys):
    before = files(here)
    code, message = refusal(capsys, "mount", "mnt")
    assert code == Exit.REFUSED
    assert "qssctl init" in message
    assert files(here) == before


def test_mount_with_another_key(here, config, capsys):
    (here / "state").mkdir()
    assert run(["key", "new", "--out", "state/key"]) == 0
    capsys.readouterr()
    write_identity(here / "state", Identity("ab" * 16, 1))
    before = files(here)
    code, message = refusal(capsys, "mount", "mnt")
    assert code == Exit.REFUSED
    assert "not the key" in message
    (here / "state" / "key").unlink()
    code, message = refusal(capsys, "mount", "mnt")
    assert code == Exit.REFUSED
    assert files(here) == before - {"state/key"}


def dead_locations(count: int) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [part for n in range(count) for part in ("--location", f"http://127.0.0.1:{port}/bucket-{n}")]


def test_init_with_locations_that_do_not_answer(here, capsys):
    code, message = refusal(capsys, "init", *dead_locations(3))
    assert code == Exit.UNREACHABLE
    assert "bucket-0" in message
    assert files(here) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init"], "--location"),
        (["init", "--k", "4", "--m", "2", *dead_locations(3)], "at least 6 locations"),
        (["init", "--location", "http://127.0.0.1:1/bucket?secret_key=hush"], "may not stand in a url"),
        (["init", "--location", "127.0.0.1:1/bucket"], "S3 address"),
    ],
)
def test_init_refusals(here, capsys, arguments, says):
    code, message = refusal(capsys, *arguments)
    assert code == Exit.REFUSED
    assert says in message
    assert "hush" not in message
    assert files(here) == set()


def test_init_without_credentials(here, capsys, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, message = refusal(capsys, "init", *dead_locations(3))
    assert code == Exit.REFUSED
    assert "AWS_SECRET_ACCESS_KEY is not set" in message


def test_init_does_not_touch_what_is_there(here, config, capsys):
    before = config.read_text()
    assert refusal(capsys, "init", *dead_locations(3))[0] == Exit.REFUSED
    assert config.read_text() == before


def test_recover_needs_an_empty_state_directory(here, config, capsys):
    assert run(["key", "new", "--out", "k"]) == 0
    capsys.readouterr()
    (here / "state" / "cache").mkdir(parents=True)
    code, message = refusal(capsys, "recover", "--key", "k")
    assert code == Exit.REFUSED
    assert "empty" in message


def test_mountpoints(tmp_path):
    prepare(tmp_path / "fresh")
    assert (tmp_path / "fresh").is_dir()
    prepare(tmp_path / "fresh")
    with pytest.raises(Refused, match="not empty"):
        prepare(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="not a directory"):
        prepare(tmp_path / "file")
    with pytest.raises(Refused, match="mounted on"):
        prepare(Path("/proc"))
    with pytest.raises(Refused, match="cannot be mounted on"):
        prepare(tmp_path / "no" / "parent")


def test_mountinfo():
    text = (
        b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n"
        b"40 35 0:50 / /a\\040b\\134c rw - fuse.qss qss rw\n"
        b"rubbish\n\n41 35 0:51 / - \n"
    )
    assert mounts(text) == {Path("/mnt2"): "ext3", Path("/a b\\c"): "fuse.qss"}
