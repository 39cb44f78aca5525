"""qssctl key …: slots added, removed, rotated, verified, exported; and that nothing is lost when something fails."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from qss.app import unlock
from qss.app.exits import Exit
from qss.app.identity import Identity, write_identity
from qss.cli.main import run
from qss.formats.keyfile import MEMORY_BYTES_MIN, PASSES_MIN, decode_key_file
from qss.host import SystemEntropy
from qss.offload import slots
from qss.offload.keyfiles import read_key_file, write_key_file
from qss.offload.keys import MasterKey, fs_id_of, recovery_phrase

MASTER = MasterKey(bytes(range(32)))
LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(3))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """What a guess costs is tested elsewhere."""
    monkeypatch.setattr(slots.close_with_passphrase, "__defaults__",
                        (slots.PassphraseCost(MEMORY_BYTES_MIN, PASSES_MIN), slots.NO_NOTE))  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("QSS_CONFIG", "XDG_CONFIG_HOME", "QSS_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    (tmp_path / "qss.toml").write_text(f"[code]\nk = 2\nm = 1\n{LOCATIONS}")
    write_identity(tmp_path / "state", Identity(fs_id_of(MASTER).hex(), 1))
    write_key_file(tmp_path / "state" / "key", MASTER, SystemEntropy())
    for name in ("one", "two", "three"):
        path = tmp_path / name
        path.touch(0o600)
        path.write_text(f"passphrase {name}\n")
    return tmp_path


def qssctl(capsys, *arguments, code=0) -> str:
    """What it printed; a failure is one sentence."""
    answer = run([str(each) for each in arguments])
    out, err = capsys.readouterr()
    assert answer == code, err
    if code:
        *before, last = err.splitlines()
        assert last.startswith("qssctl: ")
        assert all(line.startswith("Recipient ") for line in before)
        assert MASTER.raw.hex() not in err
        assert "passphrase one" not in err
        return err
    return out


def kinds(path: Path = Path("state/key")) -> list[str]:
    return [line.split()[1] for line in path.read_text().splitlines() if line.startswith("slot")]


def test_a_new_key_can_be_locked(here, capsys):
    qssctl(capsys, "key", "recipient", "new", "me")
    made = json.loads(
        qssctl(capsys, "key", "new", "--out", "k", "--new-passphrase-file", "one", "--recipient", "me.pub",
               "--label", "mine", "--json")
    )  # fmt: skip
    assert kinds(here / "k") == ["passphrase", "recipient"]
    assert json.loads(qssctl(capsys, "key", "list", "--key", "k", "--json"))["fs_id"] == made["fs_id"]
    master = read_key_file(here / "k", lambda: "passphrase one")
    assert fs_id_of(master).hex() == made["fs_id"]
    assert master.raw.hex() not in (here / "k").read_text()


def test_slots_are_listed_without_secrets(here, capsys):
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one", "--label", "mine")
    listed = json.loads(qssctl(capsys, "key", "list", "--json"))
    assert [(row["slot"], row["kind"], row["label"]) for row in listed["slots"]] == [
        (1, "raw", ""), (2, "passphrase", "mine")]  # fmt: skip
    assert listed["slots"][1]["created_s"] > 0
    text = qssctl(capsys, "key", "list") + json.dumps(listed)
    file = decode_key_file((here / "state" / "key").read_bytes())
    for secret in (MASTER.raw, file.slots[1].box, file.slots[1].salt, file.slots[1].commitment):
        assert secret.hex() not in text


def test_added_slots_open_and_the_bare_one_can_go(here, capsys):
    qssctl(capsys, "key", "recipient", "new", "me")
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one", "--label", "mine")
    qssctl(capsys, "key", "add", "--recipient", "me.pub", "--label", "escrow")
    assert kinds() == ["raw", "passphrase", "recipient"]
    message = qssctl(capsys, "key", "remove", "1", code=Exit.REFUSED)
    assert "another one opens" in message
    message = qssctl(capsys, "--passphrase-file", "two", "key", "remove", "1", code=Exit.REFUSED)
    assert kinds() == ["raw", "passphrase", "recipient"], "whoever cannot open another one takes nothing away"
    qssctl(capsys, "--passphrase-file", "one", "key", "remove", "1")
    assert kinds() == ["passphrase", "recipient"]
    qssctl(capsys, "key", "verify", code=Exit.REFUSED)
    for arguments in (["--passphrase-file", "one"], ["--identity", "me"]):
        assert fs_id_of(MASTER).hex()[:8] in qssctl(capsys, *arguments, "key", "verify")
    qssctl(capsys, "--identity", "me", "key", "remove", "mine")
    message = qssctl(capsys, "--identity", "me", "key", "remove", "escrow", code=Exit.REFUSED)
    assert "only one" in message
    assert kinds() == ["recipient"]


def test_slots_that_are_not_there_and_labels_that_are(here, capsys):
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one", "--label", "mine")
    for which in ("0", "3", "yours", ""):
        assert "key list" in qssctl(capsys, "key", "remove", which, code=Exit.REFUSED)
    before = Path("state/key").read_bytes()
    assert "already" in qssctl(capsys, "key", "add", "--raw", "--label", "mine", code=Exit.REFUSED)
    assert "label" in qssctl(capsys, "key", "add", "--raw", "--label", "two words", code=Exit.REFUSED)
    for _ in range(14):
        qssctl(capsys, "key", "add", "--raw")
    full = Path("state/key").read_bytes()
    assert "at most 16" in qssctl(capsys, "key", "add", "--raw", code=Exit.REFUSED)
    assert Path("state/key").read_bytes() == full != before


def test_rotation_renews_what_there_is(here, capsys):
    qssctl(capsys, "key", "recipient", "new", "me")
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one", "--label", "mine")
    qssctl(capsys, "key", "add", "--recipient", "me.pub")
    qssctl(capsys, "--passphrase-file", "one", "key", "remove", "1")
    old = Path("state/key").read_bytes()
    Path("copy").touch(0o600)
    Path("copy").write_bytes(old)
    said = qssctl(capsys, "--passphrase-file", "one", "key", "rotate", "--new-passphrase-file", "two")
    assert "Older copies" in said
    assert kinds() == ["passphrase", "recipient"]
    new = decode_key_file(Path("state/key").read_bytes())
    was = decode_key_file(old)
    assert new.slots[0].note.label == "mine"
    assert new.slots[1].public == was.slots[1].public
    assert not {new.slots[0].salt, new.slots[0].box, new.slots[1].box} & {was.slots[0].salt, was.slots[0].box,
                                                                          was.slots[1].box}  # fmt: skip
    qssctl(capsys, "--passphrase-file", "one", "key", "verify", code=Exit.REFUSED)
    qssctl(capsys, "--passphrase-file", "two", "key", "verify")
    qssctl(capsys, "--identity", "me", "key", "verify")
    qssctl(capsys, "--passphrase-file", "one", "key", "verify", "--key", "copy")  # as it says: old copies still open


def test_rotation_to_other_locks(here, capsys):
    assert "--passphrase" in qssctl(capsys, "key", "rotate", "--new-passphrase-file", "one", code=Exit.REFUSED)
    assert kinds() == ["raw"]
    qssctl(capsys, "key", "rotate", "--passphrase", "--new-passphrase-file", "one")
    assert kinds() == ["passphrase"], "exactly what was said: the bare key is gone"
    qssctl(capsys, "--passphrase-file", "one", "key", "verify")
    qssctl(capsys, "--passphrase-file", "one", "key", "rotate", "--raw")
    assert kinds() == ["raw"]


def test_rotation_never_locks_everybody_out(here, capsys):
    qssctl(capsys, "key", "recipient", "new", "me")
    qssctl(capsys, "key", "recipient", "new", "them")
    before = Path("state/key").read_bytes()
    message = qssctl(capsys, "key", "rotate", "--recipient", "them.pub", code=Exit.REFUSED)
    assert "nobody here could open" in message
    assert Path("state/key").read_bytes() == before
    qssctl(capsys, "key", "add", "--recipient", "me.pub")
    qssctl(capsys, "--passphrase-file", "one", "key", "rotate", "--new-passphrase-file", "one", "--recipient", "me.pub")
    assert kinds() == ["passphrase", "recipient"]
    qssctl(capsys, "--identity", "me", "key", "rotate", "--recipient", "me.pub")
    assert kinds() == ["recipient"]
    qssctl(capsys, "--identity", "me", "key", "verify")


def test_verify_tells_another_key(here, capsys):
    qssctl(capsys, "key", "new", "--out", "other")
    assert f"which is the one in {here / 'state'}" in qssctl(capsys, "key", "verify")
    message = qssctl(capsys, "key", "verify", "--key", "other", code=Exit.REFUSED)
    assert fs_id_of(MASTER).hex()[:8] in message
    qssctl(capsys, "key", "verify", "--remote", code=Exit.UNREACHABLE)  # no location answers: that is not a yes


def test_the_words_open_and_wrong_ones_do_not(here, capsys):
    shown = qssctl(capsys, "key", "export", "--words", "--yes").strip()
    assert shown == recovery_phrase(MASTER)
    words = here / "words"
    words.touch(0o600)
    words.write_text(shown.replace(" ", "\n"))
    assert "by words" in qssctl(capsys, "--words-file", "words", "key", "verify")
    Path("state/key").unlink()
    assert "by words" in qssctl(capsys, "--words-file", "words", "key", "verify"), "no key file is needed"
    qssctl(capsys, "--words-file", "words", "key", "export", "--out", "state/key", "--new-passphrase-file", "two")
    qssctl(capsys, "--passphrase-file", "two", "key", "verify")
    words.write_text(shown.replace("abandon", "zebra", 1))
    message = qssctl(capsys, "--words-file", "words", "key", "verify", code=Exit.DATA)
    assert "zebra" not in message
    assert "--words-file" in qssctl(capsys, "--words", "key", "verify", code=Exit.REFUSED)


def test_showing_the_key_needs_a_yes(here, capsys):
    for arguments in (["--words"], ["--out", "copy", "--raw"]):
        assert "--yes" in qssctl(capsys, "key", "export", *arguments, code=Exit.REFUSED)
    assert not Path("copy").exists()
    assert "--yes" in qssctl(capsys, "key", "sheet", "--with-words", code=Exit.REFUSED)
    qssctl(capsys, "key", "export", "--out", "copy", "--raw", "--yes")
    assert read_key_file(Path("copy")) == MASTER
    assert "exists" in qssctl(capsys, "key", "export", "--out", "copy", "--raw", "--yes", code=Exit.REFUSED)


def test_an_export_for_a_recipient_opens_for_nobody_else(here, capsys):
    qssctl(capsys, "key", "recipient", "new", "them")
    qssctl(capsys, "key", "export", "--out", "escrow", "--recipient", "them.pub")
    assert MASTER.raw.hex() not in Path("escrow").read_text()
    qssctl(capsys, "key", "verify", "--key", "escrow", code=Exit.REFUSED)
    qssctl(capsys, "--identity", "them", "key", "verify", "--key", "escrow")


@pytest.mark.parametrize("how", ["--passphrase-file", "--passphrase-fd", "environment", "credential", "-o"])
def test_where_a_passphrase_may_come_from(here, capsys, monkeypatch, how):
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one")
    qssctl(capsys, "--passphrase-file", "one", "key", "remove", "1")
    arguments = []
    match how:
        case "--passphrase-file":
            arguments = [how, "one"]
        case "--passphrase-fd":
            reading, writing = os.pipe()
            os.write(writing, b"passphrase one\nmore")
            os.close(writing)
            arguments = [how, str(reading)]
        case "environment":
            monkeypatch.setenv("QSS_PASSPHRASE_FILE", str(here / "one"))
        case "credential":
            (here / "one").rename(here / "qss-passphrase")
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(here))
        case "-o":
            (here / "qss.toml").write_text(
                f'[mount]\npassphrase_file = "{here}/one"\n' + (here / "qss.toml").read_text()
            )
    assert "passphrase" in qssctl(capsys, *arguments, "key", "verify")


def test_a_terminal_is_asked_and_a_new_passphrase_twice(here, capsys, monkeypatch):
    typed = ["passphrase one", "passphrase one", "passphrase one", "other", "passphrase one"]
    monkeypatch.setattr(unlock, "is_asking_possible", lambda: True)
    monkeypatch.setattr(unlock.getpass, "getpass", lambda _prompt, _stream: typed.pop(0))
    qssctl(capsys, "key", "add", "--passphrase")
    assert "not the same" in qssctl(capsys, "key", "add", "--passphrase", code=Exit.REFUSED)
    qssctl(capsys, "key", "remove", "1")
    assert kinds() == ["passphrase"]
    assert not typed


def test_with_nobody_there_nothing_waits(here, capsys):
    assert "--new-passphrase-file" in qssctl(capsys, "key", "add", "--passphrase", code=Exit.REFUSED)


# -- what a failure leaves
@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_failure_at_any_step_leaves_the_old_file(here, capsys, monkeypatch, step):
    before = Path("state/key").read_bytes()

    def fail(*_arguments, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        if step == "open":
            broken.setattr("qss.offload.keyfiles.decode_key_file", damaged_the_second_time())
        else:
            broken.setattr("qss.offload.keyfiles.os.fsync" if step == "fsync" else "pathlib.Path.replace", fail)
        code = Exit.DATA if step == "open" else Exit.REFUSED
        qssctl(capsys, "key", "add", "--new-passphrase-file", "one", code=code)
    assert Path("state/key").read_bytes() == before
    assert sorted(path.name for path in Path("state").iterdir()) == ["filesystem.json", "key"]


def damaged_the_second_time():
    """The first is the file that is there, the second what was written just now: as a disk that lies gives it back."""
    count = 0

    def decode(data):
        nonlocal count
        count += 1
        return decode_key_file(data if count == 1 else data[:-40] + b"0" + data[-39:])

    return decode


def test_what_a_crash_has_left_beside_it_is_swept(here, capsys):
    Path("state/.key.new").write_text("half a key file")
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one")
    assert kinds() == ["raw", "passphrase"]
    assert not Path("state/.key.new").exists()


def test_two_changes_at_once_are_one(here, capsys):
    with Path("state/key").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "try again" in qssctl(capsys, "key", "add", "--raw", code=Exit.REFUSED)
    qssctl(capsys, "key", "add", "--raw")


def test_the_file_stays_private_and_its_owner_s(here, capsys):
    if os.geteuid() == 0:
        os.chown("state/key", 1234, 1234)
    before = os.umask(0)
    try:
        qssctl(capsys, "key", "add", "--new-passphrase-file", "one")
    finally:
        os.umask(before)
    found = Path("state/key").stat()
    assert found.st_mode & 0o7777 == 0o600
    assert os.geteuid() != 0 or (found.st_uid, found.st_gid) == (1234, 1234)


def test_a_link_stays_a_link(here, capsys):
    Path("state/key").rename("elsewhere")
    Path("state/key").symlink_to(here / "elsewhere")
    qssctl(capsys, "key", "add", "--new-passphrase-file", "one")
    assert Path("state/key").is_symlink()
    assert kinds(here / "elsewhere") == ["raw", "passphrase"]


# -- the sheet
def test_the_sheet_has_all_that_is_needed_and_no_secret(here, capsys):
    Path("secret").touch(0o600)
    Path("secret").write_text("very secret\n")
    Path("qss.toml").write_text(
        "[code]\nk = 2\nm = 1\n"
        + "".join(
            f'[[location]]\nname = "at{n}"\nurl = "https://s3.example/b-{n}/p?region=eu-1"\naccess_key = "me"\n'
            'secret_key_file = "secret"\n'
            for n in range(3)
        )
    )
    sheet = qssctl(capsys, "key", "sheet")
    assert fs_id_of(MASTER).hex() in sheet
    assert "any 2 of 3" in sheet
    assert str(here / "state" / "key") in sheet
    for n in range(3):
        url = f"'https://s3.example/b-{n}/p?name=at{n}&access_key=me&secret_key_file=SECRET-at{n}&region=eu-1'"
        assert sheet.count(f"--location {url}") == 2
    assert "very secret" not in sheet
    assert MASTER.raw.hex() not in sheet
    word = recovery_phrase(MASTER).split()[-1]
    assert word not in sheet.split()
    full = qssctl(capsys, "key", "sheet", "--with-words", "--yes")
    found = [each for line in full.splitlines() if line.startswith("   1 ") or line[:5].strip().isdecimal()
             for each in line.split() if not each.isdecimal()]  # fmt: skip
    assert " ".join(found) == recovery_phrase(MASTER)
    assert (
        max(map(len, (line for line in full.splitlines() if str(here) not in line and "--location" not in line))) <= 100
    )
