"""Slots of a key file, version 2: what opens them, what does not, and what nobody without the key can change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData, Refused, WrongKey
from qss.formats import recipient
from qss.formats.keyfile import (
    MEMORY_BYTES_MIN,
    PASSES_MIN,
    PUBLIC_BYTES,
    SEALED_BYTES,
    KeyFile,
    Note,
    PassphraseSlot,
    RawSlot,
    RecipientSlot,
    decode_key_file,
    encode_key_file,
    kind_of,
    with_mac,
)
from qss.host import SystemEntropy
from qss.offload import recipients
from qss.offload.keyfiles import (
    open_key_file,
    passphrase_in,
    read_identity_file,
    read_key_file,
    read_passphrase_file,
    read_recipient_file,
    write_identity_file,
)
from qss.offload.keys import MasterKey, fs_id_of
from qss.offload.recipients import public_of, unwrap, wrap
from qss.offload.slots import Offer, PassphraseCost, close_for, close_raw, close_with_passphrase, open_slots, signed

VECTORS = Path(__file__).parents[2] / "vectors"
CHEAP = PassphraseCost(MEMORY_BYTES_MIN, PASSES_MIN)
MASTER = MasterKey(bytes(range(32)))
SEED = bytes(range(100, 132))
OTHER_SEED = bytes(32)
FS = fs_id_of(MASTER)
NOBODY = Offer()


def private(path: Path, data: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(data)
    return path


def key_file(*slots: RawSlot | PassphraseSlot | RecipientSlot, master: MasterKey = MASTER) -> KeyFile:
    return signed(KeyFile(fs_id_of(master), slots), master)


def by_passphrase(words: str, master: MasterKey = MASTER) -> PassphraseSlot:
    return close_with_passphrase(master, SystemEntropy(), words, CHEAP)


# -- frozen files
@pytest.mark.parametrize(
    ("name", "by"),
    [("v2-raw", "nothing"), ("v2-passphrase", "words"), ("v2-recipient", "identity"), ("v2-all", "nothing")],
)
def test_frozen_files_still_open(tmp_path: Path, name: str, by: str) -> None:
    data = (VECTORS / "keyfile" / f"{name}.key").read_bytes()
    assert encode_key_file(decode_key_file(data)) == data
    path = private(tmp_path / "key", data)
    asked = (lambda: "correct horse battery staple") if by == "words" else None
    assert read_key_file(path, asked, SEED if by == "identity" else None) == MASTER


def test_each_slot_of_a_frozen_file_opens_by_itself(tmp_path: Path) -> None:
    path = private(tmp_path / "key", (VECTORS / "keyfile" / "v2-all.key").read_bytes())
    offer = Offer(lambda: "correct horse battery staple", SEED)
    for kind in ("raw", "passphrase", "recipient"):
        _, master, slot = open_key_file(path, offer, lambda _place, each, kind=kind: kind_of(each) == kind)
        assert (master, kind_of(slot)) == (MASTER, kind)


@pytest.mark.parametrize("name", ["v2-raw", "v2-passphrase", "v2-recipient"])
def test_every_flipped_bit_and_every_cut_is_seen(name: str) -> None:
    data = (VECTORS / "keyfile" / f"{name}.key").read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(CorruptData):
            decode_key_file(bytes(damaged))
        with pytest.raises(CorruptData):
            decode_key_file(data[:place])


def test_frozen_recipient() -> None:
    identity = (VECTORS / "recipient" / "v1.identity").read_bytes()
    public = (VECTORS / "recipient" / "v1.pub").read_bytes()
    assert recipient.decode_identity(identity) == SEED
    assert recipient.encode_identity(SEED) == identity
    assert recipient.decode_recipient(public) == public_of(SEED)
    assert recipient.encode_recipient(public_of(SEED)) == public
    said = (VECTORS / "recipient" / "v1-fingerprint.txt").read_text().strip()
    assert recipient.fingerprint(public_of(SEED)) == said
    for data, decode in ((identity, recipient.decode_identity), (public, recipient.decode_recipient)):
        for place in range(len(data)):
            with pytest.raises(CorruptData):
                decode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(CorruptData):
                decode(data[:place])
    with pytest.raises(CorruptData):
        recipient.decode_recipient(identity)


@given(st.binary(max_size=300) | st.text("qss-identyrc 1\nkemsd", max_size=200).map(str.encode))
def test_noise_is_no_recipient(noise: bytes) -> None:
    for decode in (recipient.decode_identity, recipient.decode_recipient):
        with pytest.raises(CorruptData):
            decode(noise)


NOTES = st.builds(Note, st.from_regex(r"[A-Za-z0-9._@+-]{0,64}", fullmatch=True), st.integers(0, 2**40))


@given(
    st.lists(
        st.builds(RawSlot, st.binary(min_size=32, max_size=32), NOTES)
        | st.builds(
            PassphraseSlot,
            st.integers(MEMORY_BYTES_MIN, 2**32),
            st.integers(2, 64),
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=24, max_size=24),
            st.binary(min_size=48, max_size=48),
            st.binary(min_size=32, max_size=32),
            NOTES,
        )
        | st.builds(RecipientSlot, st.just(b"\x11" * PUBLIC_BYTES), st.just(b"\x22" * SEALED_BYTES), NOTES),
        min_size=1,
        max_size=16,
    ),
)
def test_format_round_trip(slots: list[RawSlot | PassphraseSlot | RecipientSlot]) -> None:
    keys = with_mac(KeyFile(FS, tuple(slots)), bytes(32))
    assert decode_key_file(encode_key_file(keys)) == keys


def test_a_version_to_come_is_refused_whole() -> None:
    for version in (b"3", b"02", b"", b"2 "):
        with pytest.raises(CorruptData, match="version"):
            decode_key_file(b"qss-key " + version + b"\nfs x\nslot x\ncheck x\n")


# -- who opens what
def test_a_recipient_opens_with_the_identity_and_nobody_else() -> None:
    keys = key_file(close_for(MASTER, public_of(SEED)))
    assert MASTER.raw.hex() not in encode_key_file(keys).decode()
    assert open_slots(keys, Offer(seed=SEED))[0] == MASTER
    with pytest.raises(WrongKey):
        open_slots(keys, Offer(seed=OTHER_SEED))
    with pytest.raises(Refused, match="identity"):
        open_slots(keys, NOBODY)


def test_of_several_passphrases_each_opens() -> None:
    keys = key_file(by_passphrase("one"), by_passphrase("two"))
    for place, words in enumerate(["one", "two"]):
        master, slot = open_slots(keys, Offer(lambda words=words: words))
        assert (master, slot) == (MASTER, keys.slots[place])
    with pytest.raises(WrongKey) as failure:
        open_slots(keys, Offer(lambda: "three"))
    assert "three" not in str(failure.value)


def test_nobody_is_asked_when_there_is_no_need() -> None:
    keys = key_file(by_passphrase("one"), close_raw(MASTER))
    assert open_slots(keys, Offer(lambda: pytest.fail("asked")))[0] == MASTER


def test_what_is_wrapped_twice_never_looks_the_same() -> None:
    boxes = [close_for(MASTER, public_of(SEED)).box for _ in range(3)] + [by_passphrase("x").box for _ in range(2)]
    assert len({box[:32] for box in boxes}) == len(boxes)


# -- who cannot change what
def test_an_exchanged_recipient_is_noticed_before_anything_is_wrapped_for_it() -> None:
    """Attack 2: whoever can write the file, and open nothing, puts a public key of their own into a slot."""
    mine, theirs = public_of(SEED), public_of(OTHER_SEED)
    keys = key_file(by_passphrase("one"), close_for(MASTER, mine))
    box = wrap(theirs, bytes(32), b"whatever")
    exchanged = replace(keys, slots=(keys.slots[0], RecipientSlot(theirs, box, keys.slots[1].note)))
    decode_key_file(encode_key_file(exchanged))  # the check is right: anybody can make it
    with pytest.raises(CorruptData, match="tampered"):
        open_slots(exchanged, Offer(lambda: "one"))


@pytest.mark.parametrize("change", ["added", "removed", "note", "order", "mac"])
def test_nobody_without_the_key_changes_the_list_of_slots(change: str) -> None:
    first, second = by_passphrase("one"), by_passphrase("two")
    keys = key_file(first, second)
    slots = {
        "added": (first, second, by_passphrase("mine", MasterKey(bytes(32)))),
        "removed": (first,),
        "note": (replace(first, note=Note("boss")), second),
        "order": (second, first),
        "mac": (first, second),
    }[change]
    changed = replace(keys, slots=slots, mac=bytes(32) if change == "mac" else keys.mac)
    with pytest.raises(CorruptData):
        open_slots(changed, Offer(lambda: "one"))


def test_slots_of_another_file_system_do_not_open() -> None:
    other = MasterKey(bytes(32))
    for slot, offer in (
        (close_for(other, public_of(SEED)), Offer(seed=SEED)),
        (by_passphrase("one", other), Offer(lambda: "one")),
        (close_raw(other), NOBODY),
    ):
        with pytest.raises((CorruptData, WrongKey)):
            open_slots(key_file(slot), offer)


def test_a_downgrade_to_version_1_gains_nothing() -> None:
    """A file of version 1 has no MAC; but what opens its slots is bound as ever, and recipients it cannot hold."""
    keys = replace(key_file(by_passphrase("one"), close_raw(MasterKey(bytes(32)))), mac=b"")
    again = decode_key_file(encode_key_file(keys))
    with pytest.raises(CorruptData):  # the bare key of somebody else is not the key of this file system
        open_slots(again, Offer(lambda: "one"))


# -- HPKE
def test_context_and_every_part_of_a_box_are_bound() -> None:
    box = wrap(public_of(SEED), MASTER.raw, b"context")
    assert unwrap(SEED, box, b"context") == MASTER.raw
    with pytest.raises(WrongKey):
        unwrap(SEED, box, b"another")
    for place in (0, 500, 1087, 1088, 1119, 1120, 1151, 1152, 1167):
        bad = box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]
        with pytest.raises(WrongKey):
            unwrap(SEED, bad, b"context")
    with pytest.raises(WrongKey):
        unwrap(SEED, box[:-1], b"context")


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(CorruptData):
        wrap(b"\xff" * PUBLIC_BYTES, MASTER.raw, b"")
    with pytest.raises(CorruptData):  # X25519 of order one: the shared secret would be zeros
        wrap(public_of(SEED)[:-32] + bytes(32), MASTER.raw, b"")


def test_without_the_hybrid_recipients_are_refused_never_weakened(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kem:
        X25519 = object()

    monkeypatch.setattr(recipients.hpke, "KEM", Kem)
    with pytest.raises(Refused, match="ML-KEM"):
        wrap(public_of(SEED), MASTER.raw, b"")
    with pytest.raises(Refused, match="ML-KEM"):
        unwrap(SEED, bytes(SEALED_BYTES), b"")


# -- files
def test_an_identity_is_private_and_its_public_key_is_not(tmp_path: Path) -> None:
    path = tmp_path / "me"
    public = write_identity_file(path, SEED)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_identity_file(path) == SEED
    assert read_recipient_file(public) == public_of(SEED)
    with pytest.raises(Refused, match="exists"):
        write_identity_file(path, SEED)
    path.chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        read_identity_file(path)
    with pytest.raises(Refused):
        read_recipient_file(tmp_path / "nobody.pub")
    shutil.copy(public, path)
    path.chmod(0o600)
    with pytest.raises(CorruptData):
        read_identity_file(path)


@pytest.mark.parametrize(
    ("data", "words"), [(b"one\n", "one"), (b"one\r\n", "one"), (b"one", "one"), (b" o ne \nx", " o ne ")]
)
def test_a_passphrase_is_the_first_line(tmp_path: Path, data: bytes, words: str) -> None:
    assert read_passphrase_file(private(tmp_path / "p", data)) == words


@pytest.mark.parametrize("data", [b"", b"\n", b"\nsecret", b"\xff\xfesecret", b"secret" * 200])
def test_what_is_no_passphrase_is_refused_unquoted(data: bytes) -> None:
    with pytest.raises(Refused) as failure:
        passphrase_in(data, "there")
    assert "secret" not in str(failure.value)


def test_a_passphrase_file_others_may_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "p", b"one\n")
    path.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        read_passphrase_file(path)
