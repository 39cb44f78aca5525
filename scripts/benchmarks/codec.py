"""codec, placement: what offload computes, by itself, on one core: no network, no disk (the file is in the page cache).

CPU seconds of one thread, not wall time: that is what a core can do, whoever else is on the machine.
"""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.files import MIB
from benchmarks.rig import Rig
from qss.formats.manifest import Manifest
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo
from qss.limits import STRIPE_BYTES
from qss.offload import erasure
from qss.offload.buffers import buffer_of
from qss.offload.fetcher import decode_stripe
from qss.offload.pipeline import CodedStripe, code_stripe, coded_bytes, cut_blocks, read_whole
from qss.offload.placement import LocationFacts, PlacementPolicy, place
from qss.offload.seal import SealContext, hash_of, seal_stripe, suite_for
from qss.segments import SealedSegment, SegmentKind

K: Final = 4
M: Final = 2
STRIPES: Final = 64
ROUNDS: Final = 3
LOCATIONS: Final = 1_000
SHARDS: Final = 256


@dataclass(frozen=True, slots=True)
class _Content:
    name: str
    path: Path
    level: int  # of zstd


def codec(rig: Rig) -> list[Figure]:
    """GB of plaintext a second of one core: read, compress, seal, code, hash; and back."""
    noise, text = rig.native / "noise", rig.native / "text"
    noise.write_bytes(os.urandom(STRIPES * STRIPE_BYTES))
    text.write_bytes(_sources(STRIPES * STRIPE_BYTES))
    figures = [
        _coding(_Content("noise", noise, 1)),
        _coding(_Content("source text, uncompressed", text, 0)),
        _coding(_Content("source text", text, 1)),
        _decoding("all data shards there", noise, frozenset()),
        _decoding("two data shards lost", noise, frozenset({0, 1})),
    ]
    noise.unlink()
    text.unlink()
    return figures


def _coding(content: _Content) -> Figure:
    context = _context()
    plain = memoryview(buffer_of(STRIPE_BYTES))
    room = memoryview(buffer_of(coded_bytes(STRIPE_BYTES, K, M)))
    file = os.open(content.path, os.O_RDONLY)
    stored = 0

    def work() -> None:
        nonlocal stored
        stored = 0
        for number in range(STRIPES):
            read_whole(file, plain, number * STRIPE_BYTES)
            stored += code_stripe(context, StripeNo(number), plain, content.level, room).facts.stored

    try:
        spent_s = _least_cpu_s(work)
    finally:
        os.close(file)
    note = f"{_steps(context, plain, content.level, room)}; stored {stored / STRIPES / STRIPE_BYTES:.0%}"
    target = "" if content.level and content.name != "noise" else "≥ 1 GB/s"
    return Figure(f"codec, {content.name}", STRIPES * STRIPE_BYTES / 1e9 / spent_s, "GB/s", None, target, note)


def _steps(context: SealContext, plain: memoryview, level: int, room: memoryview) -> str:
    """Milliseconds of each step for one stripe."""
    facts = seal_stripe(context, StripeNo(0), plain, level, room)
    blocks = cut_blocks(room, facts.block, K + M)
    code = erasure.code(K, M)
    steps: dict[str, Callable[[], object]] = {
        "seal": lambda: seal_stripe(context, StripeNo(0), plain, level, room),
        "code": lambda: code.encode_into(blocks[:K], blocks[K:]),
        "hash": lambda: [hash_of(block) for block in blocks],
    }
    spent = {name: _least_cpu_s(work, 10) for name, work in steps.items()}
    return f"ms a stripe: {', '.join(f'{name} {each * 1e3:.2f}' for name, each in spent.items())}"


def _decoding(name: str, path: Path, lost: frozenset[int]) -> Figure:
    """What is left of a fetch without network and disk: hash k blocks, decode, open."""
    context = _context()
    room = memoryview(buffer_of(coded_bytes(STRIPE_BYTES, K, M)))
    scratch = memoryview(buffer_of(STRIPE_BYTES))
    with path.open("rb") as file:
        plain = file.read(STRIPE_BYTES)
    coded = code_stripe(context, StripeNo(0), memoryview(plain), 0, room)
    manifest = _manifest(context, coded)
    have = {ShardNo(number): coded.blocks[number] for number in range(K + M) if number not in lost}
    have = {number: have[number] for number in sorted(have)[:K]}

    def work() -> None:
        for _ in range(STRIPES):
            for block in have.values():
                hash_of(block)
            decode_stripe(manifest, StripeNo(0), have, room, scratch)

    spent_s = _least_cpu_s(work)
    return Figure(f"codec back, {name}", STRIPES * STRIPE_BYTES / 1e9 / spent_s, "GB/s", None, "≥ 1 GB/s")


def _context() -> SealContext:
    suite = suite_for(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return SealContext(bytes(16), SegmentId(1), bytes(16), os.urandom(32), suite, K, M, 1)


def _manifest(context: SealContext, coded: CodedStripe) -> Manifest:
    sealed = SealedSegment(SegmentId(1), SegmentKind.DATA, STRIPE_BYTES, 0, SegmentId(0))
    return Manifest(
        context.fs_id, sealed, context.seal, context.dek, context.suite, K, M, 0, (coded.facts,), coded.hashes,
        (None,) * (K + M),
    )  # fmt: skip


def _sources(size: int) -> bytes:
    """What compresses as program sources do: Python's own library, again and again."""
    parts = [path.read_bytes() for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))]
    once = b"".join(parts)[: 8 * MIB]
    return (once * (size // len(once) + 1))[:size]


def _least_cpu_s(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU seconds of this thread, of the best round."""
    spent = []
    for _ in range(rounds):
        before = time.thread_time()
        work()
        spent.append(time.thread_time() - before)
    return min(spent)


def placement(rig: Rig) -> list[Figure]:
    """Milliseconds to choose 256 of 1,000 locations, at most 8 of a rack of 20."""
    locations = [
        LocationFacts(LocationId(f"node-{number:04d}"), 1.0 + number % 7, {"rack": f"rack-{number // 20}"})
        for number in range(LOCATIONS)
    ]
    policy = PlacementPolicy({"rack": 8})
    segments = iter(range(1, 1_000_000))
    spent_s = _least_cpu_s(lambda: place(SegmentId(next(segments)), SHARDS, locations, policy), 20)
    slowest_s = max(
        _least_cpu_s(lambda: place(SegmentId(next(segments)), SHARDS, locations, policy), 1) for _ in range(20)
    )
    note = f"slowest of 20 {slowest_s * 1e3:.1f} ms"
    return [Figure(f"placement, {SHARDS} of {LOCATIONS:,}", spent_s * 1e3, "ms", None, "< 50 ms", note)]
