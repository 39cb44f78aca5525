"""A file system whose key is locked, with real processes: who is asked, who is told, and that nobody else hears it."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest

from qss.app.running import is_alive
from qss.offload.keyfiles import read_key_file
from qss.offload.keys import FsKeys, MasterKey, recovery_phrase
from tests.harness.demo import wait_until
from tests.harness.whole import QSSCTL, WAIT_S, Whole, whole

pytestmark = pytest.mark.live

PASSPHRASE = "Tr0ub4dor&3 correct horse"


class Locked:
    """A whole file system with a passphrase on its key, everything that was printed, and what must not be in it."""

    def __init__(self, made: Whole) -> None:
        self.whole = made
        self.master: MasterKey = read_key_file(made.key)
        self.passphrase = made.folder / "passphrase"
        self.passphrase.touch(0o600)
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.printed = ""
        self.qssctl("key", "add", "--new-passphrase-file", self.passphrase)
        self.qssctl("--passphrase-file", self.passphrase, "key", "remove", "1")

    def qssctl(self, *arguments: str | Path, check: bool = True) -> str:
        done = self.whole.qssctl(*arguments, check=check)
        self.printed += done.stdout + done.stderr
        return done.stdout + done.stderr

    def offload_pid(self) -> int:
        return int((self.whole.folder / "state" / "run" / "offload.pid").read_text())

    def secrets(self) -> dict[str, bytes]:
        keys = FsKeys.derive(self.master)
        found = {
            "master": self.master.raw,
            "phrase": recovery_phrase(self.master).encode(),
            "passphrase": PASSPHRASE.encode(),
            "secret of a location": self.whole.trove.secret_key.encode(),
        }
        found |= {field.name: getattr(keys, field.name) for field in fields(keys) if field.name != "fs_id"}
        return {
            f"{name} {form}": value
            for name, raw in found.items()
            for form, value in (
                ("raw", raw),
                ("hex", raw.hex().encode()),
                ("base64", base64.b64encode(raw)),
                ("repr", repr(raw)[2:-1].encode()),
            )
        }

    def search(self, where: str, data: bytes) -> None:
        for name, secret in self.secrets().items():
            assert secret not in data, f"{name} stands in {where}"


@pytest.fixture(scope="module")
def locked() -> Iterator[Locked]:
    with whole() as made:
        yield Locked(made)


def elsewhere(made: Whole) -> Path:
    """Its configuration as on another machine: the key is to lie in the state directory."""
    lines = made.config.read_text().splitlines(keepends=True)
    path = made.config.with_name("elsewhere.toml")
    path.write_text("".join(line for line in lines if not line.startswith("key_file")))
    return path


def files(folder: Path) -> Iterator[Path]:
    """All that the programs wrote: logs, state, configuration, sheet, the nodes' data."""
    mine = {"passphrase", "secret", "fuse"}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in mine and folder / "mnt" not in path.parents:
            yield path


def test_a_locked_key_from_mount_to_recovery_and_not_one_secret_in_what_was_written(locked: Locked) -> None:
    made, given = locked.whole, ("--passphrase-file", locked.passphrase)
    refused = locked.qssctl("mount", check=False)
    assert "nobody to ask" in refused
    assert not made.is_mounted()
    locked.qssctl(*given, "mount")
    assert made.is_mounted()
    made.run("sh", "-c", f"echo hello > {made.mnt}/file")
    locked.qssctl("sync")
    first = locked.offload_pid()
    os.kill(first, 9)
    wait_until("another offload process", lambda: is_alive(locked.offload_pid()) and locked.offload_pid() != first)
    made.run("sh", "-c", f"echo again > {made.mnt}/again")
    locked.qssctl("sync")  # the new one has the key, though nobody was asked
    locked.qssctl("status", "--json")
    locked.qssctl("key", "list", "--json")
    locked.qssctl("retention", "run", "--all")

    for pid in (made.pid, locked.offload_pid()):
        for name in ("cmdline", "environ"):
            locked.search(f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_bytes())
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        soft = next(line for line in limits if line.startswith("Max core file size")).split()[4]
        assert soft in ("0", "1"), "a core would hold the key"
    assert "passphrase" not in Path(f"/proc/{made.pid}/cmdline").read_text()

    locked.qssctl("umount")
    verified = locked.qssctl(*given, "key", "verify", "--remote", "--json")
    assert json.loads(verified)["remote"]["generation"] >= 1
    locked.qssctl(*given, "fsck", "--remote")
    state = made.folder / "again"
    locked.qssctl(*given, "--config", elsewhere(made), "recover", "--key", made.key, "--state", state)
    assert (state / "key").read_bytes() == made.key.read_bytes(), "what was locked stays locked"
    locked.qssctl(*given, "key", "verify")

    locked.search("what was printed", locked.printed.encode())
    looked = list(files(made.folder))
    for path in looked:
        with suppress(FileNotFoundError):  # the node cleans up behind itself
            locked.search(str(path), path.read_bytes())
    names = {path.name for path in looked}
    assert {"qss.toml", "qss-recovery.txt", "key", "qss.log"} <= names, names


def test_the_words_bring_it_back_without_a_key_file(locked: Locked) -> None:
    words = locked.whole.folder / "secret-words"
    words.touch(0o600)
    words.write_text(recovery_phrase(locked.master))
    state = locked.whole.folder / "by-words"
    try:
        locked.whole.qssctl("--config", elsewhere(locked.whole), "--words-file", words, "recover", "--state", state)
    finally:
        words.unlink()
    assert read_key_file(state / "key") == locked.master


def test_a_file_system_is_made_with_a_locked_key_and_a_sheet(locked: Locked) -> None:
    made, folder = locked.whole, locked.whole.folder / "other"
    folder.mkdir()
    access = f"access_key={made.trove.access_key}&secret_key_file={made.folder / 'secret'}"
    chosen = [part for n in "123" for part in ("--location", f"{made.trove.endpoint}/other{n}?name=at{n}&{access}")]
    config = folder / "mine.toml"
    given = ("--config", config, "--passphrase-file", locked.passphrase)
    report = json.loads(made.qssctl(*given, "init", "--passphrase", *chosen, "--k", "2", "--m", "1", "--json").stdout)
    key = Path(report["key_file"])
    master = read_key_file(key, lambda: PASSPHRASE)
    assert master.raw.hex() not in key.read_text()
    sheet = Path(report["sheet"])
    assert sheet == folder / "mine-recovery.txt"
    assert sheet.stat().st_mode & 0o777 == 0o600
    text = sheet.read_text()
    assert report["fs_id"] in text
    assert "opens by passphrase" in text
    assert all(f"{made.trove.endpoint}/other{n}" in text for n in "123")
    assert recovery_phrase(master).split()[-1] not in text.split()
    again = made.qssctl(*given, "init", "--passphrase", *chosen, check=False)
    assert again.returncode != 0, "never over a key that is there"


def test_it_is_mounted_with_nobody_there(locked: Locked) -> None:
    """As a line of /etc/fstab would: `mount.qss CONFIG DIR -o passphrase_file=…`; and as a service, by a credential."""
    made = locked.whole
    helper = QSSCTL.with_name("mount.qss")
    made.run(helper, made.config, made.mnt, "-o", f"rw,passphrase_file={locked.passphrase}")
    assert made.is_mounted()
    made.qssctl("umount")
    folder = made.folder / "credentials"
    folder.mkdir(0o700)
    credential = folder / "qss-passphrase"
    credential.touch(0o600)
    credential.write_text(PASSPHRASE)
    credential.chmod(0o400)
    command = [*made.enter, QSSCTL, "--config", made.config, "mount", "--foreground"]  # as docs/systemd/qss@.service
    environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(folder)}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as service:
        try:
            wait_until("mounted", lambda: made.is_mounted() or service.poll() is not None)
            assert made.is_mounted()
        finally:
            service.send_signal(signal.SIGTERM)
        assert service.stderr is not None
        locked.search("the service's log", service.stderr.read())
        assert service.wait(WAIT_S) == 0
    credential.unlink()


def test_the_words_are_asked_for_at_the_terminal(locked: Locked) -> None:
    made = locked.whole
    command = [*made.enter, str(QSSCTL), "--words", "--config", str(made.config), "key", "verify"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    until(terminal, b"while you type):")
    os.write(terminal, recovery_phrase(locked.master).encode() + b"\n")
    seen = until(terminal, None)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    assert b"Opened by words" in seen


def test_a_person_is_asked_at_the_terminal_before_it_goes_to_the_background(locked: Locked) -> None:
    made = locked.whole
    command = [*made.enter, str(QSSCTL), "--config", str(made.config), "mount"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    seen = until(terminal, b"Passphrase of the key: ")
    assert not made.is_mounted()
    os.write(terminal, PASSPHRASE.encode() + b"\n")
    seen += until(terminal, None)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen
    assert PASSPHRASE.encode() not in seen, "what is typed is not shown"
    assert made.is_mounted()
    made.qssctl("umount")


def until(terminal: int, wanted: bytes | None) -> bytes:
    """What is printed up to that, or to the end."""
    seen = b""
    while wanted is None or wanted not in seen:
        assert select.select([terminal], [], [], WAIT_S)[0], seen
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            assert wanted is None, seen
            return seen
        seen += data
    return seen
