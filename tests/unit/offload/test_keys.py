"""Keys, what is derived from them, the key file, and the recovery phrase."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData, Refused, WrongKey
from qss.formats.keyfile import (
    MEMORY_BYTES_MIN,
    PASSES_MIN,
    KeyFile,
    PassphraseSlot,
    RawSlot,
    decode_key_file,
    encode_key_file,
)
from qss.formats.phrase import decode_phrase, encode_phrase
from qss.host import SystemEntropy
from qss.ids import LocationId, SegmentId
from qss.offload import keys as keys_module
from qss.offload.keyfiles import read_key_file, write_key_file
from qss.offload.keys import FsKeys, MasterKey, fs_id_of, key_of_phrase, recovery_phrase
from qss.offload.slots import PassphraseCost

VECTORS = Path(__file__).parents[2] / "vectors" / "keyfile"
CHEAP = PassphraseCost(MEMORY_BYTES_MIN, PASSES_MIN)
A, B = LocationId("a"), LocationId("b")


class CountingEntropy:
    """0, 1, 2 …: the same run gives the same bytes."""

    def __init__(self) -> None:
        self._next = 0

    def token(self, count: int) -> bytes:
        self._next += count
        return bytes((self._next - count + place) % 256 for place in range(count))


@pytest.fixture
def master() -> MasterKey:
    return MasterKey(bytes(range(32)))


# -- derived
def test_derivation_is_frozen() -> None:
    vector = json.loads((VECTORS / "v1-derived.json").read_text(encoding="utf-8"))
    master = MasterKey(bytes.fromhex(vector["master"]))
    derived = FsKeys.derive(master)
    got = {field.name: getattr(derived, field.name).hex() for field in fields(derived)}
    got |= {
        "shard_name(7, 0, a)": derived.shard_name(SegmentId(7), 0, A),
        "shard_name(7, 1, a)": derived.shard_name(SegmentId(7), 1, A),
        "root_name(None)": derived.root_name(None),
        "root_name(3)": derived.root_name(3),
        "probe_name": derived.probe_name(),
        "phrase": recovery_phrase(master),
    }
    assert got == vector["derived"]


def test_every_purpose_has_its_own_key(master: MasterKey) -> None:
    derived = FsKeys.derive(master)
    values = [getattr(derived, field.name) for field in fields(derived)] + [master.raw]
    assert len({value[:16] for value in values}) == len(values)
    other = FsKeys.derive(master, bytes(16))
    assert other.names != derived.names


def test_names_differ_and_say_nothing(master: MasterKey) -> None:
    derived = FsKeys.derive(master)
    names = [derived.shard_name(SegmentId(s), g, at) for s in range(20) for g in range(3) for at in (A, B)]
    names += [derived.root_name(generation) for generation in [None, *range(20)]] + [derived.probe_name()]
    assert len(set(names)) == len(names)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)


def test_secrets_are_not_printed(master: MasterKey) -> None:
    derived = FsKeys.derive(master)
    said = f"{master!r} {master} {derived!r} {derived} {RawSlot(master.raw)!r} {[master]} {vars(keys_module).keys()}"
    for secret in (master.raw, derived.names, derived.manifest, derived.root, derived.header):
        assert secret.hex() not in said
        assert repr(secret) not in said


def test_generate_takes_entropy() -> None:
    assert MasterKey.generate(CountingEntropy()).raw == bytes(range(32))
    assert MasterKey.generate(SystemEntropy()) != MasterKey.generate(SystemEntropy())


# -- the file
def test_write_then_read(tmp_path: Path, master: MasterKey) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy())
    assert path.stat().st_mode & 0o7777 == 0o600
    assert read_key_file(path) == master


def test_mode_is_private_under_any_umask(tmp_path: Path, master: MasterKey) -> None:
    before = os.umask(0)
    try:
        write_key_file(tmp_path / "key", master, CountingEntropy())
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666, 0o602])
def test_a_file_others_may_touch_is_refused(tmp_path: Path, master: MasterKey, mode: int) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy())
    path.chmod(mode)
    with pytest.raises(Refused, match=f"chmod 600 {path}"):
        read_key_file(path)


def test_never_over_another(tmp_path: Path, master: MasterKey) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"something dear")
    with pytest.raises(Refused, match="exists"):
        write_key_file(path, master, CountingEntropy())
    assert path.read_bytes() == b"something dear"


def test_missing_or_unreachable_files_are_sentences(tmp_path: Path, master: MasterKey) -> None:
    with pytest.raises(Refused, match="no key file"):
        read_key_file(tmp_path / "key")
    with pytest.raises(Refused):
        read_key_file(tmp_path)
    with pytest.raises(Refused):
        write_key_file(tmp_path / "no" / "key", master, CountingEntropy())


def test_passphrase(tmp_path: Path, master: MasterKey) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy(), "correct horse", CHEAP)
    assert read_key_file(path, lambda: "correct horse") == master
    assert master.raw.hex() not in path.read_text(encoding="ascii")
    with pytest.raises(WrongKey, match="passphrase") as failure:
        read_key_file(path, lambda: "incorrect horse")
    assert "horse" not in str(failure.value)
    with pytest.raises(Refused, match="passphrase"):
        read_key_file(path)


def test_one_passphrase_typed_on_two_keyboards(tmp_path: Path, master: MasterKey) -> None:
    write_key_file(tmp_path / "key", master, CountingEntropy(), "pässword", CHEAP)
    assert read_key_file(tmp_path / "key", lambda: "pa\u0308ssword") == master


def test_an_empty_passphrase_is_refused(tmp_path: Path, master: MasterKey) -> None:
    with pytest.raises(Refused, match="empty"):
        write_key_file(tmp_path / "key", master, CountingEntropy(), "", CHEAP)
    assert not (tmp_path / "key").exists()


def rewritten(path: Path, change: dict[str, object]) -> None:
    """Tamper with the passphrase slot, with a right check over it."""
    keys = decode_key_file(path.read_bytes())
    slot = keys.slots[0]
    assert isinstance(slot, PassphraseSlot)
    path.write_bytes(encode_key_file(KeyFile(keys.fs_id, (replace(slot, **change),))))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["nonce", "box"])
def test_a_tampered_slot_is_damage_not_a_wrong_passphrase(tmp_path: Path, master: MasterKey, part: str) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy(), "correct horse", CHEAP)
    slot = decode_key_file(path.read_bytes()).slots[0]
    value = getattr(slot, part)
    rewritten(path, {part: bytes([value[0] ^ 1]) + value[1:]})
    with pytest.raises(CorruptData, match="tampered"):
        read_key_file(path, lambda: "correct horse")


@pytest.mark.parametrize("part", ["salt", "commitment"])
def test_a_slot_made_for_another_key_does_not_open(tmp_path: Path, master: MasterKey, part: str) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy(), "correct horse", CHEAP)
    slot = decode_key_file(path.read_bytes()).slots[0]
    value = getattr(slot, part)
    rewritten(path, {part: bytes([value[0] ^ 1]) + value[1:]})
    with pytest.raises(WrongKey):
        read_key_file(path, lambda: "correct horse")


def test_a_slot_of_another_file_system_is_refused(tmp_path: Path, master: MasterKey) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy(), "correct horse", CHEAP)
    keys = decode_key_file(path.read_bytes())
    path.write_bytes(encode_key_file(replace(keys, fs_id=fs_id_of(MasterKey(bytes(32))))))
    with pytest.raises(CorruptData):
        read_key_file(path, lambda: "correct horse")


def test_a_raw_key_under_another_name_is_refused(tmp_path: Path, master: MasterKey) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy())
    path.write_bytes(encode_key_file(KeyFile(bytes(16), (RawSlot(master.raw),))))
    with pytest.raises(CorruptData):
        read_key_file(path)


@pytest.mark.parametrize(("part", "value"), [("memory_bytes", 8192), ("passes", 1), ("memory_bytes", 2**40)])
def test_weak_or_absurd_costs_are_refused_before_any_work(
    tmp_path: Path, master: MasterKey, part: str, value: int
) -> None:
    path = tmp_path / "key"
    write_key_file(path, master, CountingEntropy(), "correct horse", CHEAP)
    rewritten(path, {part: value})
    with pytest.raises(CorruptData, match="cost"):
        read_key_file(path, lambda: pytest.fail("asked for the passphrase"))


# -- the format
@pytest.mark.parametrize("name", ["v1-raw", "v1-passphrase"])
def test_frozen_files_still_open(tmp_path: Path, name: str) -> None:
    data = (VECTORS / f"{name}.key").read_bytes()
    assert encode_key_file(decode_key_file(data)) == data
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(data)
    assert read_key_file(path, lambda: "correct horse battery staple").raw == bytes(range(32))


@pytest.mark.parametrize("name", ["v1-raw", "v1-passphrase"])
def test_every_flipped_bit_and_every_cut_is_seen(name: str) -> None:
    data = (VECTORS / f"{name}.key").read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(CorruptData):
                decode_key_file(bytes(damaged))
        with pytest.raises(CorruptData):
            decode_key_file(data[:place])
    with pytest.raises(CorruptData):
        decode_key_file(data + b"\n")


@given(st.binary(max_size=400) | st.text(alphabet="qss-key 1\nfslotrawcheck0=", max_size=300).map(str.encode))
def test_noise_is_corrupt_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(CorruptData):
        decode_key_file(noise)


def test_a_huge_file_is_not_parsed() -> None:
    with pytest.raises(CorruptData, match="large"):
        decode_key_file(b"qss-key 1\n" * 100_000)


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(
        st.builds(RawSlot, st.binary(min_size=32, max_size=32))
        | st.builds(
            PassphraseSlot,
            st.integers(MEMORY_BYTES_MIN, 2**32),
            st.integers(2, 64),
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=24, max_size=24),
            st.binary(min_size=48, max_size=48),
            st.binary(min_size=32, max_size=32),
        ),
        min_size=1,
        max_size=16,
    ),
)
def test_format_round_trip(fs_id: bytes, slots: list[RawSlot | PassphraseSlot]) -> None:
    keys = KeyFile(fs_id, tuple(slots))
    assert decode_key_file(encode_key_file(keys)) == keys


# -- the phrase
def test_known_phrases() -> None:
    """From the test vectors of BIP-39 (github.com/trezor/python-mnemonic/blob/master/vectors.json)."""
    assert encode_phrase(bytes(32)) == "abandon " * 23 + "art"
    assert encode_phrase(b"\x7f" * 32) == "legal winner thank year wave sausage worth useful " * 2 + (
        "legal winner thank year wave sausage worth title"
    )
    assert encode_phrase(b"\xff" * 32) == "zoo " * 23 + "vote"
    frozen = (VECTORS.parent / "phrase" / "counting-v1.txt").read_text().strip()
    assert encode_phrase(bytes(range(32))) == frozen


@given(st.binary(min_size=32, max_size=32))
def test_phrase_round_trip(key: bytes) -> None:
    phrase = encode_phrase(key)
    assert decode_phrase(phrase) == key
    assert decode_phrase("  " + phrase.upper().replace(" ", "\n ")) == key
    assert decode_phrase(" ".join(word[:4] for word in phrase.split())) == key
    assert key_of_phrase(phrase) == MasterKey(key)


def test_a_misspelt_word_is_named_by_its_place_only(master: MasterKey) -> None:
    words = recovery_phrase(master).split()
    words[4] = "quantumm"
    with pytest.raises(CorruptData, match="word 5") as failure:
        key_of_phrase(" ".join(words))
    assert "quantumm" not in str(failure.value)
    with pytest.raises(CorruptData, match="not 23"):
        key_of_phrase(" ".join(words[:23]))
    with pytest.raises(CorruptData):
        key_of_phrase("zoo " * 24)
    with pytest.raises(CorruptData):
        key_of_phrase("x" * 100_000)


def test_a_disk_that_fails_leaves_no_half_key(
    tmp_path: Path, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("qss.offload.keyfiles.os.fsync", full)
    with pytest.raises(Refused, match="No space"):
        write_key_file(tmp_path / "key", master, CountingEntropy())
    assert not (tmp_path / "key").exists()


FS, KEY = "00" * 16, "11" * 32
PASSPHRASE = (
    f"slot passphrase argon2id memory=268435456 passes=3 salt={'22' * 16} nonce={'33' * 24} box={'44' * 48} "
    f"commitment={'55' * 32}"
)


def checked(*lines: str) -> bytes:
    """Lines with a right check below them: what somebody who knows the format could write."""
    text = "".join(line + "\n" for line in lines).encode("ascii")
    return text + b"check " + blake3(text).digest(length=16).hex().encode("ascii") + b"\n"


def test_the_right_form_is_read() -> None:
    assert len(decode_key_file(checked("qss-key 1", f"fs {FS}", f"slot raw {KEY}", PASSPHRASE)).slots) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["qss-key 2", f"fs {FS}", f"slot raw {KEY}"],
        ["qss-key 1", f"slot raw {KEY}", f"fs {FS}"],
        ["qss-key 1", f"fs {FS}"],
        ["qss-key 1", f"fs {FS[2:]}", f"slot raw {KEY}"],
        ["qss-key 1", f"fs {FS}", f"slot raw {KEY}00"],
        ["qss-key 1", f"fs {FS}", f"slot raw {KEY[:-2]}zz"],
        ["qss-key 1", f"fs {FS}", "slot raw " + "AA" * 32],
        ["qss-key 1", f"fs {FS}", f"slot raw  {KEY}"],
        ["qss-key 1", f"fs {FS}", f"slot magic {KEY}"],
        ["qss-key 1", f"fs {FS}", "", f"slot raw {KEY}"],
        ["qss-key 1", f"fs {FS}", *[f"slot raw {KEY}"] * 17],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("argon2id", "scrypt")],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("passes=", "rounds=")],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("passes=3", "passes=03")],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("passes=3", "passes=-3")],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("passes=3", "passes")],
        ["qss-key 1", f"fs {FS}", PASSPHRASE.replace("memory=268435456", "memory=1024")],
    ],
    ids=range(17),
)
def test_a_right_check_does_not_help_a_wrong_form(lines: list[str]) -> None:
    with pytest.raises(CorruptData):
        decode_key_file(checked(*lines))
