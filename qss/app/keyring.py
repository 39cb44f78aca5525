"""qssctl key: the slots of a key file, and recipients. What may be read without the key, and what needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from qss.app.identity import read_identity
from qss.app.restore import find_root
from qss.app.sheet import recovery_sheet
from qss.app.unlock import by_words, key_of_words, key_path, offer_of
from qss.config import Settings, UnlockOptions
from qss.errors import CorruptData, Refused, WrongKey
from qss.formats.keyfile import LABEL, Note, PassphraseSlot, RawSlot, RecipientSlot, Slot, kind_of
from qss.formats.recipient import SEED_BYTES, fingerprint
from qss.host import Host
from qss.offload.keyfiles import (
    editing,
    kinds_in,
    load_key_file,
    open_key_file,
    read_identity_file,
    read_recipient_file,
    write_identity_file,
    write_slots,
)
from qss.offload.keys import FsKeys, MasterKey, fs_id_of, recovery_phrase
from qss.offload.recipients import public_of
from qss.offload.slots import Offer, close_for, close_raw, close_with_passphrase

# -- what a new slot is to be


@dataclass(frozen=True, slots=True)
class Lock:
    """How one new slot is closed: by a passphrase, for a recipient, or not at all."""

    passphrase: str | None = field(default=None, repr=False)
    public: bytes | None = None
    label: str = ""

    def close(self, master: MasterKey, host: Host) -> Slot:
        """Raises Refused, CorruptData."""
        if not LABEL.fullmatch(self.label):
            raise Refused(f'the label "{self.label}" will not do: write up to 64 letters, digits and . _ - @ +')
        note = Note(self.label, host.clock.now_ns() // 10**9)
        if self.passphrase is not None:
            return close_with_passphrase(master, host.entropy, self.passphrase, note=note)
        return close_raw(master, note) if self.public is None else close_for(master, self.public, note)

    def proof(self) -> Offer | None:
        """What opens that slot; None: only somebody else can."""
        if self.public is not None:
            return None
        spoken = self.passphrase
        return Offer(None if spoken is None else lambda: spoken)


def new_key(path: Path, locks: Sequence[Lock]) -> str:
    """Write a new key with these slots; the file system id that follows from it. Raises Refused if there is a file."""
    host = Host()
    if not path.parent.is_dir():
        raise Refused(f"there is no directory {path.parent} to put a key in")
    master = MasterKey.generate(host.entropy)
    write_slots(path, master, tuple(lock.close(master, host) for lock in locks))
    return fs_id_of(master).hex()


# -- slots of a file


def slots_in(path: Path) -> dict[str, Any]:
    """The document of `qssctl key list --json`. Nothing in it is secret. Raises Refused, CorruptData."""
    keys = load_key_file(path)
    return {
        "key_file": str(path),
        "fs_id": keys.fs_id.hex(),
        "version": 2 if keys.mac else 1,
        "slots": [describe(place, slot) for place, slot in enumerate(keys.slots)],
    }


def describe(place: int, slot: Slot) -> dict[str, Any]:
    """One slot for people; its number counts from 1."""
    row: dict[str, Any] = {
        "slot": place + 1,
        "kind": kind_of(slot),
        "label": slot.note.label,
        "created_s": slot.note.created_s or None,
    }
    match slot:
        case PassphraseSlot():
            row |= {"argon2id_memory_bytes": slot.memory_bytes, "argon2id_passes": slot.passes}
        case RecipientSlot():
            row |= {"recipient": fingerprint(slot.public)}
    return row


def add_slot(path: Path, unlock: UnlockOptions, lock: Lock) -> dict[str, Any]:
    """One more slot; its description. Raises Refused, WrongKey, CorruptData, and then nothing has changed."""
    offer = _remembering(offer_of(unlock))
    with editing(path) as put:
        keys, master, opened = open_key_file(path, offer)
        slots = (*keys.slots, lock.close(master, Host()))
        proofs = {_place(keys.slots, opened): offer}
        if (proof := lock.proof()) is not None:
            proofs[len(slots) - 1] = proof
        put(master, slots, proofs)
    return describe(len(slots) - 1, slots[-1])


def remove_slot(path: Path, unlock: UnlockOptions, which: str) -> dict[str, Any]:
    """Take a slot away, by number or label; its description. One of the others must have opened: raises Refused,
    WrongKey, CorruptData otherwise, and then nothing has changed."""
    offer = _remembering(offer_of(unlock))
    with editing(path) as put:
        slots = load_key_file(path).slots
        place = _named(slots, which)
        if len(slots) == 1:
            raise Refused(f"slot {which} is the only one: without it nobody reads anything again. Add another first")
        try:
            keys, master, opened = open_key_file(path, offer, lambda each, _slot: each != place)
        except Refused as error:
            raise type(error)(f"slot {which} stays: show first that another one opens ({error})") from error
        left = (*slots[:place], *slots[place + 1 :])
        kept = _place(keys.slots, opened)
        put(master, left, {kept - (kept > place): offer})
    return describe(place, slots[place])


def rotate(
    path: Path, unlock: UnlockOptions, locks: Sequence[Lock], ask: Callable[[str], str] | None = None
) -> list[dict[str, Any]]:
    """Close the same key anew: exactly with `locks`, or, if there are none, as it was closed (`ask` for a passphrase in
    the place of each). Descriptions of the slots. Raises as `add_slot`."""
    host, offer = Host(), _remembering(offer_of(unlock))
    with editing(path) as put:
        keys, master, opened = open_key_file(path, offer)
        chosen = list(locks) or [_again(place, slot, ask) for place, slot in enumerate(keys.slots)]
        slots = tuple(lock.close(master, host) for lock in chosen)
        proofs = {place: proof for place, lock in enumerate(chosen) if (proof := lock.proof()) is not None}
        if not proofs:  # recipients only: one of them must be here
            if not isinstance(opened, RecipientSlot) or opened.public not in {lock.public for lock in chosen}:
                raise Refused(
                    "nobody here could open the new key file: keep a passphrase, or use an identity of its own"
                )
            proofs = {next(at for at, lock in enumerate(chosen) if lock.public == opened.public): offer}
        put(master, slots, proofs)
    return [describe(place, slot) for place, slot in enumerate(slots)]


def _again(place: int, slot: Slot, ask: Callable[[str], str] | None) -> Lock:
    label = slot.note.label
    match slot:
        case RawSlot():
            return Lock(label=label)
        case RecipientSlot():
            return Lock(public=slot.public, label=label)
        case PassphraseSlot():
            if ask is None:
                raise Refused("a key with several passphrases is rotated at a terminal, which asks for each")
            return Lock(passphrase=ask(f"the new passphrase of slot {place + 1}{label and f' ({label})'}"), label=label)


def _named(slots: Sequence[Slot], which: str) -> int:
    """The place of a slot, from 0. A label that looks like a number is found by its number only."""
    if which.isdecimal() and 1 <= int(which) <= len(slots):
        return int(which) - 1
    for place, slot in enumerate(slots):
        if slot.note.label and slot.note.label == which and not which.isdecimal():
            return place
    raise Refused(f"there is no slot {which}: qssctl key list shows them")


def _place(slots: Sequence[Slot], slot: Slot) -> int:
    return next(place for place, each in enumerate(slots) if each is slot)


def _remembering(offer: Offer) -> Offer:
    """Asks once, however often it is asked."""
    said: list[str] = []
    source = offer.passphrase

    def once() -> str:
        assert source is not None
        if not said:
            said.append(source())
        return said[0]

    return replace(offer, passphrase=once) if source is not None else offer


# -- the key itself


def open_by(settings: Settings, kind: str | None) -> tuple[MasterKey, str]:
    """The key, and what opened it: `words`, or kind and number of a slot; `kind`: only such slots."""
    if by_words(settings.unlock):
        return key_of_words(settings.unlock), "words"
    offer = offer_of(settings.unlock, settings.mount.passphrase_file)
    path = key_path(settings)
    keys, master, slot = open_key_file(path, offer, lambda _place, each: kind in (None, kind_of(each)))
    return master, f"{kind_of(slot)} (slot {_place(keys.slots, slot) + 1})"


def verify(settings: Settings, kind: str | None, *, remote: bool) -> dict[str, Any]:
    """The document of `qssctl key verify --json`: does this open the file system of the configuration?

    Raises WrongKey when it is another's, here or (`remote`) at the locations; Refused, CorruptData, Unreachable.
    """
    master, opened_by = open_by(settings, kind)
    document: dict[str, Any] = {"fs_id": fs_id_of(master).hex(), "opened_by": opened_by, "here": None, "remote": None}
    identity = read_identity(settings.state)
    if identity is not None:
        if identity.fs_id != document["fs_id"]:
            raise _of_another(f"the one in {settings.state}", document["fs_id"], identity.fs_id)
        document["here"] = str(settings.state)
    if remote:
        root = trio.run(find_root, settings, FsKeys.derive(master))
        document["remote"] = {"generation": root.generation, "cut_ns": root.point.cut_ns, "k": root.k, "m": root.m}
    return document


def _of_another(what: str, fs_id: str, there: str) -> Refused:
    return WrongKey(f"this opens the file system {fs_id[:8]}, and {what} is {there[:8]}")


def words_of(settings: Settings) -> tuple[str, str]:
    """(file system id, the 24 words). Raises as `open_by`."""
    master = open_by(settings, None)[0]
    return fs_id_of(master).hex(), recovery_phrase(master)


def export(settings: Settings, out: Path, locks: Sequence[Lock]) -> str:
    """The key in a new file of its own, closed in other ways; the file system id. Raises Refused, WrongKey."""
    master, host = open_by(settings, None)[0], Host()
    write_slots(out, master, tuple(lock.close(master, host) for lock in locks))
    return fs_id_of(master).hex()


# -- recipients


def new_recipient(path: Path) -> tuple[Path, str]:
    """A new identity, and beside it the public key to give away: its path, its fingerprint. Raises Refused."""
    seed = Host().entropy.token(SEED_BYTES)
    return write_identity_file(path, seed), fingerprint(public_of(seed))


def fingerprint_in(path: Path) -> str:
    """Of a public key, or of an identity. Raises Refused, CorruptData."""
    try:
        return fingerprint(read_recipient_file(path))
    except CorruptData:
        return fingerprint(public_of(read_identity_file(path)))


def sheet_of(settings: Settings, *, with_words: bool) -> str:
    """The recovery sheet of a file system. Without words it needs no key, only its file, and not even that."""
    words = None
    if with_words:
        fs_id, words = words_of(settings)
    else:
        identity = read_identity(settings.state)
        fs_id = identity.fs_id if identity is not None else load_key_file(settings.key_file).fs_id.hex()
    return recovery_sheet(settings, fs_id, kinds_in(settings.key_file), Host().clock.now_ns(), words)
