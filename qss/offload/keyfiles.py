"""Secret files on disk: the key file, identities, files with a passphrase. Only their owner may read them.

How a key file is changed, and what a crash leaves:
1. a new file beside it, written and synced       the old one, and a stray `.NAME.new` that nothing reads
2. read back and opened as its user would         the same
3. renamed over the old one, directory synced     the old or the new one, whole
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qss.errors import CorruptData, Refused, WrongKey
from qss.formats import recipient
from qss.formats.keyfile import (
    FILE_BYTES_MAX,
    NO_NOTE,
    SLOTS_MAX,
    KeyFile,
    Note,
    Slot,
    decode_key_file,
    encode_key_file,
    kind_of,
)
from qss.host import Entropy
from qss.offload.keys import MasterKey, fs_id_of
from qss.offload.slots import DEFAULT_COST, Offer, PassphraseCost, close_raw, close_with_passphrase, open_slots, signed

PASSPHRASE_BYTES_MAX: Final = 1024


# -- reading
def read_key_file(path: Path, passphrase: Callable[[], str] | None = None, seed: bytes | None = None) -> MasterKey:
    """The master key. `passphrase` is called only if the file needs one; `seed`: of a recipient's identity.

    Raises Refused (no such file, others may read it, a passphrase is needed), WrongKey (wrong passphrase),
    CorruptData (damaged).
    """
    return open_key_file(path, Offer(passphrase, seed))[1]


def open_key_file(
    path: Path, offer: Offer, among: Callable[[int, Slot], bool] = lambda _place, _slot: True
) -> tuple[KeyFile, MasterKey, Slot]:
    """The file, its key, and the slot that gave it: one for whose place (from 0) and content `among` holds.

    Raises as `read_key_file`.
    """
    keys = load_key_file(path)
    try:
        master, slot = open_slots(
            keys, offer, tuple(each for place, each in enumerate(keys.slots) if among(place, each))
        )
    except (Refused, CorruptData) as error:  # which file it is, the slots do not know
        raise type(error)(f"{path}: {error}") from error
    return keys, master, slot


def load_key_file(path: Path) -> KeyFile:
    """The slots, still closed. Raises Refused, CorruptData."""
    kept = "make one with `qssctl key new`, or restore it"
    return decode_key_file(_read_private(path, FILE_BYTES_MAX, "key file", kept))


def kinds_in(path: Path) -> list[str]:
    """Of its slots: raw, passphrase, recipient; none if it cannot be read."""
    try:
        return [kind_of(slot) for slot in load_key_file(path).slots]
    except (Refused, CorruptData):
        return []


def read_identity_file(path: Path) -> bytes:
    """The seed of a recipient's identity. Raises Refused, CorruptData."""
    kept = "make one with `qssctl key recipient new`, or restore it"
    return recipient.decode_identity(_read_private(path, recipient.FILE_BYTES_MAX, "identity", kept))


def read_recipient_file(path: Path) -> bytes:
    """A recipient's public key, 1,216 bytes. Raises Refused, CorruptData."""
    try:
        with path.open("rb") as file:
            return recipient.decode_recipient(file.read(recipient.FILE_BYTES_MAX + 1))
    except OSError as error:
        raise Refused(f"the recipient's public key {path} cannot be read: {error.strerror}") from error


def read_passphrase_file(path: Path) -> str:
    """Its first line. Raises Refused."""
    return passphrase_in(_read_private(path, PASSPHRASE_BYTES_MAX, "passphrase file", "write one"), str(path))


def read_words_file(path: Path) -> str:
    """All of it: a recovery phrase may be broken into lines. Raises Refused."""
    data = _read_private(path, 4096, "file with the recovery words", "write them into one")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(f"{path} is not a text") from None


def passphrase_in(data: bytes, where: str) -> str:
    """The first line of what a file or a pipe gave, without its end. Raises Refused."""
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise Refused(f"there is no passphrase in {where}: its first line is empty")
    if len(line) > PASSPHRASE_BYTES_MAX:
        raise Refused(f"the passphrase in {where} is longer than {PASSPHRASE_BYTES_MAX} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise Refused(f"the passphrase in {where} is not UTF-8") from None


# -- writing
def write_key_file(
    path: Path,
    master: MasterKey,
    entropy: Entropy,
    passphrase: str | None = None,
    cost: PassphraseCost = DEFAULT_COST,
    note: Note = NO_NOTE,
) -> None:
    """A new key file with one slot, mode 0600, synced; never over an existing one. Raises Refused.

    A power cut in the middle leaves a file whose check does not hold, and no data that needs it yet.
    """
    if passphrase is None:
        slot: Slot = close_raw(master, note)
    else:
        slot = close_with_passphrase(master, entropy, passphrase, cost, note)
    write_slots(path, master, (slot,))


def write_slots(path: Path, master: MasterKey, slots: tuple[Slot, ...]) -> None:
    """A new key file with these slots; see `write_key_file`."""
    _check_slots(slots)
    write_private(path, encode_key_file(signed(KeyFile(fs_id_of(master), slots), master)), "key")


def copy_key_file(source: Path, target: Path) -> None:
    """A key file as it is, locks and all, to a place where there is none. Raises Refused, CorruptData."""
    write_private(target, encode_key_file(load_key_file(source)), "key")


def write_private(path: Path, data: bytes, what: str, mode: int = 0o600) -> None:
    """A new file, synced; never over an existing one. Raises Refused."""
    try:
        _create(path, data, mode)
    except FileExistsError:
        raise Refused(
            f"{path} exists already, and a {what} is never overwritten: move it away or name another"
        ) from None
    except OSError as error:
        raise Refused(f"the {what} file {path} cannot be made: {error.strerror}") from error


def write_identity_file(path: Path, seed: bytes) -> Path:
    """The identity of a recipient, and beside it, with `.pub`, what to give away; its path. Raises Refused."""
    from qss.offload.recipients import public_of

    public = path.with_name(path.name + ".pub")
    data = recipient.encode_recipient(public_of(seed))
    if public.exists():
        raise Refused(f"{public} exists already: move it away or name another")
    write_private(path, recipient.encode_identity(seed), "identity")
    write_private(public, data, "public key", 0o644)
    return public


# -- changing
Put = Callable[[MasterKey, tuple[Slot, ...], Mapping[int, Offer]], None]
"""(key, new slots, what opens those that can be tried, by their place from 0)"""


@contextmanager
def editing(path: Path) -> Iterator[Put]:
    """Hold a key file while it is changed; what is given puts other slots in the place of its own (1. to 3. above),
    once each proof has opened the slot it is for. Raises Refused, and leaves the old file, when anything fails."""
    path = path.resolve()
    with _held(path) as handle:

        def put(master: MasterKey, slots: tuple[Slot, ...], proofs: Mapping[int, Offer]) -> None:
            _check_slots(slots)
            fresh = path.with_name(f".{path.name}.new")
            data = encode_key_file(signed(KeyFile(fs_id_of(master), slots), master))
            was = os.fstat(handle)
            try:
                fresh.unlink(missing_ok=True)  # of a crash; nobody else is here, for we hold the lock
                _create(fresh, data, 0o600)  # 1.
                os.chown(fresh, was.st_uid, was.st_gid)
                written = decode_key_file(fresh.read_bytes())
                for place, proof in proofs.items():  # 2.
                    if open_slots(written, proof, written.slots[place : place + 1])[0] != master:
                        raise WrongKey("the new key file does not open: the old one stays")
                fresh.replace(path)  # 3.
                _sync_directory(path.parent)
            except OSError as error:
                raise Refused(f"the key file {path} cannot be replaced, it stays: {error.strerror}") from error
            finally:
                fresh.unlink(missing_ok=True)

        yield put


@contextmanager
def _held(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"the key file {path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(handle), path.stat())
        except OSError:
            same = False
        if not same:
            raise Refused(f"{path} is just being changed by another command: try again")
        yield handle
    finally:
        os.close(handle)


def _check_slots(slots: tuple[Slot, ...]) -> None:
    if len(slots) > SLOTS_MAX:
        raise Refused(f"a key file has at most {SLOTS_MAX} slots: remove one first")
    labels = [slot.note.label for slot in slots if slot.note.label]
    for label in labels:
        if labels.count(label) > 1:
            raise Refused(f"there is a slot with the label {label} already: choose another")


# -- files
def _create(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _read_private(path: Path, bytes_max: int, what: str, otherwise: str) -> bytes:
    """A file that only its owner may read. The mode is that of the opened file, so nobody can swap it in between."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Refused(f"others may read the {what} {path}: run `chmod 600 {path}`")
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        raise Refused(f"there is no {what} {path}: {otherwise}") from None
    except OSError as error:
        raise Refused(f"the {what} {path} cannot be read: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
