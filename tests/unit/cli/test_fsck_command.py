"""qssctl fsck without a mount: what it prints, its exit codes, and that a look changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from qss.app.exits import Exit
from qss.app.identity import Identity, write_identity
from qss.app.running import state_lock
from qss.cache.store import SegmentCache
from qss.cli.main import run
from qss.config import load
from qss.formats.tables import Table, name_key
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.offload.keyfiles import write_key_file
from qss.offload.keys import MasterKey, fs_id_of

LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(3))


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    path = tmp_path / "qss.toml"
    path.write_text(f"[code]\nk = 2\nm = 1\n{LOCATIONS}")
    settings = load(path, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"})
    master = MasterKey(bytes(range(32)))
    write_identity(settings.state, Identity(fs_id_of(master).hex(), 1))
    write_key_file(settings.key_file, master, Host().entropy)
    return path


def with_cache(config: Path, damage: bool) -> None:
    async def go() -> None:
        cache = await SegmentCache.open(config.parent / "state" / "cache", Host(), cache_options(config), None)
        FileSystem(cache, Host().clock)
        if damage:
            change = cache.begin()
            change.put(Table.XATTRS, name_key(77, b"user.x"), b"of nobody")
            cache.commit(change)
        await cache.close()

    trio.run(go)


def cache_options(config: Path):
    return load(config, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).cache


def fsck(config: Path, *options: str) -> int:
    return run(["--config", str(config), "fsck", *options])


def test_nothing_there_and_nothing_wrong(config, capsys) -> None:
    assert fsck(config) == Exit.OK
    with_cache(config, damage=False)
    assert fsck(config, "--data", "--repair") == Exit.OK
    assert capsys.readouterr().out == "Everything holds.\n" * 2


def test_damage_is_shown_planned_and_repaired(config, capsys) -> None:
    with_cache(config, damage=True)
    assert fsck(config) == Exit.FOUND
    out = capsys.readouterr().out
    assert "xattr-stray" in out
    assert "qssctl fsck --repair" in out
    assert fsck(config, "--repair", "--dry-run") == Exit.FOUND
    assert "Would do: Deleted an extended attribute of inode 77." in capsys.readouterr().out
    assert fsck(config, "--repair", "--json") == Exit.CORRECTED
    *progress, document = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"stage", "looked_at"} == progress[0].keys()
    assert document["repaired"] == ["Deleted an extended attribute of inode 77."]
    assert document["left"] == {"clean": True, "lost": False, "findings": 0}
    assert fsck(config) == Exit.OK


def test_locations_that_do_not_answer_are_said(config, capsys) -> None:
    with_cache(config, damage=False)
    assert fsck(config, "--remote", "--json") == Exit.FOUND
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["counts"] == {"location-silent": 3}


def test_not_while_somebody_holds_the_state(config, capsys) -> None:
    with state_lock(config.parent / "state"):
        assert fsck(config) == Exit.UNREACHABLE
    assert "try again" in capsys.readouterr().err
