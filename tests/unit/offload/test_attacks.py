"""Attacks of docs/security.md, by their number there, on a whole vault. Those on one module are tested with it."""

from __future__ import annotations

import ast
import copy
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from qss.errors import QssError, Refused, TooFewShards, WrongKey
from qss.formats.shard import HEADER_BYTES
from qss.ids import LocationId, SegmentId, StripeNo
from qss.limits import KIB, STRIPE_BYTES
from qss.offload import seal
from qss.offload.census import take_census
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.recovery import Recovery
from qss.segments import RestorePoint
from tests.harness.vault import Machine, PlainShelf, World

QSS = Path(__file__).parents[3] / "qss"
S1, S2 = SegmentId(1), SegmentId(2)
STRANGER = MasterKey(bytes(32))


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


async def stored(world: World, folder: Path, *contents: bytes) -> tuple[Machine, PlainShelf]:
    """A machine that has stored these as segments 1, 2 …"""
    machine, shelf = world.machine(folder / "a"), PlainShelf(folder / "shelf")
    for segment, data in enumerate(contents, 1):
        sealed = shelf.add(segment, data)
        await machine.vault.store(sealed, await shelf.path_of(sealed.id))
    return machine, shelf


async def read(machine: Machine, folder: Path, segment: SegmentId = S1) -> bytes:
    """The whole segment as a reader gets it; whatever is wrong is raised, and then nothing has been written."""
    into = folder / "read"
    into.unlink(missing_ok=True)
    try:
        await machine.vault.fetch_segment(segment, into)
    except QssError:
        assert not into.exists()
        raise
    return into.read_bytes()


async def published(machine: Machine, *uptos: int) -> None:
    await machine.roots.catch_up()
    for upto in uptos:
        point = RestorePoint((), tuple(SegmentId(n) for n in range(1, upto + 1)), 1000 + upto, SegmentId(upto + 1))
        await machine.roots.publish(point)


# -- 5, 6: parts reordered, spliced, transplanted
async def test_05_stripes_exchanged_at_every_location_are_never_read(tmp_path: Path) -> None:
    world = World.of(2, 1, compression_level=0)
    data = noise(STRIPE_BYTES) + noise(STRIPE_BYTES, 2)
    machine, _ = await stored(world, tmp_path, data)
    block = (await machine.vault.manifest_of(S1)).stripes[0].block
    for name in world.stores:
        ((key, good),) = world.objects(name).items()
        first, second = (good[HEADER_BYTES + at * block : HEADER_BYTES + (at + 1) * block] for at in (0, 1))
        world.objects(name)[key] = good[:HEADER_BYTES] + second + first + good[HEADER_BYTES + 2 * block :]
    for reader in (machine, world.machine(tmp_path / "new")):
        with pytest.raises(QssError):
            await read(reader, tmp_path)


async def test_06_objects_of_another_segment_or_file_system_are_never_read(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, _ = await stored(world, tmp_path, noise(5000), noise(5000, 2))
    other = World(world.options, copy.deepcopy(World.of(2, 1).stores), STRANGER)
    theirs, _ = await stored(other, tmp_path / "other", noise(5000, 3))
    for name in world.stores:
        ours, foreign = (each.keys.shard_name(S1, 0, name) for each in (machine, theirs))
        world.objects(name)[ours] = other.objects(name)[foreign]
    with pytest.raises(QssError):
        await read(world.machine(tmp_path / "new"), tmp_path)
    for name in world.stores:
        first, second = (machine.keys.shard_name(each, 0, name) for each in (S1, S2))
        world.objects(name)[first] = world.objects(name)[second]
    with pytest.raises(QssError):
        await read(world.machine(tmp_path / "newer"), tmp_path)
    assert await read(machine, tmp_path, S2) == noise(5000, 2)


# -- 1, 8: keys and objects that a location puts there
async def test_08_objects_that_nothing_of_ours_names_change_nothing(tmp_path: Path) -> None:
    """Also 1: whatever a location offers, it is opened with the local key or not at all."""
    world = World.of(2, 1)
    machine, _ = await stored(world, tmp_path, noise(5000), noise(5000, 2))
    await published(machine, 1, 2)
    strangers = World(world.options, copy.deepcopy(World.of(2, 1).stores), STRANGER)
    stranger = strangers.machine(tmp_path / "stranger")
    await published(stranger, 1, 2, 3, 4)
    for name in world.stores:
        objects = world.objects(name)
        objects |= {"key": b"qss-key 2\n", "junk": noise(1000), "0" * 32: b""}
        for generation in (3, 4, 5):  # roots that go on where ours end, sealed by somebody else
            there = strangers.objects(name)[stranger.keys.root_name(min(generation, 4))]
            objects[machine.keys.root_name(generation)] = there
        objects[machine.keys.shard_name(SegmentId(3), 0, name)] = objects[machine.keys.shard_name(S1, 0, name)]
        objects[machine.keys.shard_name(S1, 1, name)] = objects[machine.keys.shard_name(S2, 0, name)]
    fresh = world.machine(tmp_path / "new")
    recovery = Recovery(fresh.vault, fresh.book)
    root = await recovery.find_root()
    assert (root.generation, root.point.journals) == (2, (S1, S2))
    with pytest.raises(TooFewShards):
        await recovery.find(SegmentId(3))
    for segment, data in ((S1, noise(5000)), (S2, noise(5000, 2))):
        assert await read(fresh, tmp_path, segment) == data


# -- 9: rollback
@pytest.mark.parametrize(("count", "seen"), [(2, 2), (4, 2), (5, 2), (6, 1)])
async def test_09_rollback_at_m_k_and_all_locations(tmp_path: Path, count: int, seen: int) -> None:
    """At all: a machine without memory sees the older state, as the document says; one with memory refuses it."""
    world = World.of(4, 2)
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    old = {name: dict(world.objects(name)) for name in world.stores}
    await machine.roots.publish(RestorePoint((), (S1, S2), 1002, SegmentId(3)))
    for name in list(world.stores)[:count]:
        world.stores[name].store.objects = old[name]
    fresh = world.machine(tmp_path / "new")
    assert (await Recovery(fresh.vault, fresh.book).find_root()).generation == seen
    again = world.machine(tmp_path / "a").roots
    if seen == 2:
        newest = await again.catch_up()
        assert newest is not None
        assert newest.generation == 2
    else:
        with pytest.raises(Refused, match="set back"):
            await again.catch_up()


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_09_an_older_seal_of_one_segment_is_never_mixed_with_the_newer(tmp_path: Path, count: int) -> None:
    world = World.of(2, 1)
    _, shelf = await stored(world, tmp_path, noise(5000))
    old = {name: dict(world.objects(name)) for name in world.stores}
    for name in world.stores:
        world.objects(name).clear()
    newer = world.machine(tmp_path / "b")
    await newer.vault.store(shelf.segments[S1], await shelf.path_of(S1))
    for name in list(world.stores)[:count]:
        world.stores[name].store.objects = dict(old[name])
    try:
        assert await read(world.machine(tmp_path / "new"), tmp_path) == noise(5000)
    except TooFewShards:
        assert count == 2 or pytest.fail("k shards of one seal are there")


# -- 11: no key is used for two messages, whatever crashes
class Killed(BaseException):
    """The machine is gone."""


@pytest.mark.parametrize("memory", ["kept", "lost", "other bytes"])
async def test_11_no_key_seals_two_messages_after_a_crash_at_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """`memory`: of the state directory after the crash; `other bytes`: what a power cut left has been written over."""
    used: dict[bytes, set[bytes]] = defaultdict(set)
    for number, real in list(seal._SUITES.items()):

        def encrypt(key: bytes, plain, associated: bytes, out, real=real) -> None:
            used[key].add(bytes(plain) + associated)
            real.encrypt_into(key, plain, associated, out)

        monkeypatch.setitem(seal._SUITES, number, replace(real, encrypt_into=encrypt))
    world = World.of(2, 1)
    shelf = PlainShelf(tmp_path / "shelf")
    for nth in range(1, 12):
        left = nth
        for store in world.stores.values():
            before = type(store)._before

            async def counted(verb: str, store=store, before=before) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed
                await before(store, verb)

            store._before = counted
        machine = world.machine(tmp_path / (f"a{nth}" if memory == "lost" else "a"))
        sealed = shelf.add(1, noise(3000, nth if memory == "other bytes" else 0))
        try:
            await machine.vault.store(sealed, await shelf.path_of(S1))
        except* Killed:
            pass
        except* QssError:
            assert memory == "other bytes"
    assert used, "something was sealed"
    assert all(len(messages) == 1 for messages in used.values())


async def test_11_every_seal_has_a_random_key_of_its_own(tmp_path: Path) -> None:
    world = World.of(2, 1)
    deks = set()
    shelf = PlainShelf(tmp_path / "shelf")
    sealed = shelf.add(1, noise(3000))
    for attempt in range(3):
        machine = world.machine(tmp_path / f"a{attempt}")
        for name in world.stores:
            world.objects(name).clear()
        await machine.vault.store(sealed, await shelf.path_of(S1))
        deks.add((await machine.vault.manifest_of(S1)).dek)
    assert len(deks) == 3


# -- 12, 13, 17: bytes that are not ours
class Hostile:
    """A location that answers every GET with something else."""

    def __init__(self, store, change) -> None:
        self.store, self.change = store, change

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.change(await self.store.get(key, start, stop))


CHANGES = {
    "nothing": lambda _data: b"",
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"\0",
    "twice": lambda data: data * 2,
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: noise(len(data), 9),
    "huge": lambda data: data + bytes(8 << 20),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("count", [2, 3, 6])
async def test_12_13_17_what_hostile_locations_answer_is_never_data(tmp_path: Path, how: str, count: int) -> None:
    """Up to m of them: the right bytes all the same. More: an error, and nothing is written; never zeros."""
    world = World.of(4, 2)
    machine, _ = await stored(world, tmp_path, noise(100 * KIB))
    for name in list(world.stores)[:count]:
        world.stores[name].store = Hostile(world.stores[name].store, CHANGES[how])
    for reader in (machine, world.machine(tmp_path / "new")):
        if count <= 2:
            assert await read(reader, tmp_path) == noise(100 * KIB)
        else:
            with pytest.raises(TooFewShards):
                await read(reader, tmp_path)


async def test_17_zeroed_shards_at_rest_are_found_and_never_read_as_zeros(tmp_path: Path) -> None:
    world = World.of(4, 2)
    machine, _ = await stored(world, tmp_path, noise(100 * KIB))
    names = list(world.stores)
    for count, name in enumerate(names[:3], 1):
        ((key, good),) = world.objects(name).items()
        world.objects(name)[key] = good[:HEADER_BYTES] + bytes(len(good) - HEADER_BYTES)
        if count <= 2:
            assert await read(machine, tmp_path) == noise(100 * KIB)
    with pytest.raises(TooFewShards):
        await read(machine, tmp_path)


# -- 14: what sizes tell
async def test_14_sizes_tell_length_and_compressibility_and_nothing_else(tmp_path: Path) -> None:
    world = World.of(2, 1)
    text = (b"one line of text\n" * 8000)[: 100 * KIB]
    machine, _ = await stored(world, tmp_path, noise(100 * KIB), noise(100 * KIB, 2), text)
    sizes = [
        {len(world.objects(name)[machine.keys.shard_name(SegmentId(segment), 0, name)]) for name in world.stores}
        for segment in (1, 2, 3)
    ]
    assert sizes[0] == sizes[1], "other content of the same length looks the same"
    assert max(sizes[2]) < min(sizes[0]), "what compresses well shows, as the document says"


# -- 15: nothing follows from content
async def test_15_the_same_content_under_two_keys_or_twice_has_nothing_in_common(tmp_path: Path) -> None:
    world = World.of(2, 1, compression_level=0)
    data = noise(50 * KIB)
    await stored(world, tmp_path, data, data)
    other = World(world.options, copy.deepcopy(World.of(2, 1).stores), STRANGER)
    await stored(other, tmp_path / "other", data)
    pieces: set[bytes] = set()
    count = 0
    for each in (world, other):
        for name in each.stores:
            for body in each.objects(name).values():
                blocks = [body[at : at + 64] for at in range(HEADER_BYTES, HEADER_BYTES + 25 * KIB, 64)]
                pieces.update(blocks)
                count += len(blocks)
    assert len(pieces) == count
    names = [key for each in (world, other) for name in each.stores for key in each.objects(name)]
    assert len(set(names)) == 9


# -- 18: a location that says yes and drops it
async def test_18_a_location_that_acknowledges_and_drops_is_found_and_made_good(tmp_path: Path) -> None:
    world = World.of(4, 2)
    machine, _ = await stored(world, tmp_path, noise(5000))
    liar = LocationId("trove-2")
    world.objects(liar).clear()
    census = await take_census(machine.nodes, machine.keys, S1)
    assert {header.shard for header in census.found.values()} != set(range(6))
    assert len(census.found) == 5
    assert await read(machine, tmp_path) == noise(5000)
    receipt = await machine.vault.complete(S1)
    assert receipt.complete
    assert world.objects(liar)


# -- 20: what a quantum computer breaks protects nothing
CLASSICAL = ("rsa", "dsa", "dh", "ec", "ed25519", "ed448", "x448", "padding", "pkcs7", "pkcs12", "x509", "fernet")
SYMMETRIC = {"cryptography.exceptions.InvalidTag", "cryptography.hazmat.primitives.ciphers.aead.AESGCM"}
ALLOWED = {
    "qss.offload.seal": SYMMETRIC,
    "qss.trove.sealing": SYMMETRIC,
    "qss.offload.recipients": {
        "cryptography.exceptions.InvalidTag",
        "cryptography.exceptions.UnsupportedAlgorithm",
        "cryptography.hazmat.primitives.hpke",
        "cryptography.hazmat.primitives.asymmetric.mlkem.MLKEM768PrivateKey",
        "cryptography.hazmat.primitives.asymmetric.mlkem.MLKEM768PublicKey",
        "cryptography.hazmat.primitives.asymmetric.x25519.X25519PrivateKey",
        "cryptography.hazmat.primitives.asymmetric.x25519.X25519PublicKey",
    },
}


def test_20_only_the_hybrid_knows_a_classical_public_key() -> None:
    for path in sorted(QSS.rglob("*.py")):
        module = ".".join(path.relative_to(QSS.parent).with_suffix("").parts)
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        crypto = {name for name in found if name.split(".")[0] == "cryptography"}
        assert crypto <= ALLOWED.get(module, set()), f"{module} imports {crypto}"
        sodium = {name for name in found if name.split(".")[0] == "nacl"}
        assert not any(word in name for name in sodium for word in ("public", "signing", "box", "scalarmult")), module
        assert not {part for name in found - crypto for part in name.split(".")} & {
            "Crypto",
            "rsa",
            "ecdsa",
            "paramiko",
        }
    recipients = (QSS / "offload" / "recipients.py").read_text()
    kems = {node.attr for node in ast.walk(ast.parse(recipients)) if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute) and node.value.attr == "KEM"}  # fmt: skip
    assert kems == {"MLKEM768_X25519"}, "never one half alone"


# -- 22: brought to other locations
async def test_22_strangers_locations_can_only_withhold(tmp_path: Path) -> None:
    world = World.of(4, 2)
    machine, _ = await stored(world, tmp_path, noise(5000))
    await published(machine, 1)
    strangers = World(world.options, copy.deepcopy(World.of(4, 2).stores), STRANGER)
    theirs, _ = await stored(strangers, tmp_path / "other", noise(5000, 3))
    await published(theirs, 1)
    names = list(world.stores)
    mixed = {name: (strangers if name in names[:2] else world).stores[name] for name in names}
    fresh = World(world.options, mixed).machine(tmp_path / "mixed")
    assert (await Recovery(fresh.vault, fresh.book).find_root()).fs_id == FsKeys.derive(world.master).fs_id
    assert await read(fresh, tmp_path) == noise(5000)
    lured = World(world.options, strangers.stores).machine(tmp_path / "lured")
    with pytest.raises(WrongKey):
        await Recovery(lured.vault, lured.book).find_root()
    with pytest.raises(TooFewShards):
        await lured.vault.fetch(S1, StripeNo(0), tmp_path / "out")
