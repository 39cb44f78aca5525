"""A drill's look at content: stripes fetched from the locations into a scratch directory, every record verified, and
compared with the copy that is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio
from blake3 import blake3

from qss.cache.read_cache import STRIPE_SUFFIX
from qss.cache.segment_log import log_path
from qss.errors import CorruptData, QssError
from qss.formats.record import SEGMENT_HEADER_BYTES, SegmentHeader, scan_stripe
from qss.formats.tables import ExtentRow, Table
from qss.fs.tree import Rows
from qss.ids import SegmentId, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.segments import SegmentKind, SegmentVault

STRIPES_AT_ONCE: Final = 4
STRIPES_A_PASS: Final = 512
"""Whose records are remembered at a time: at most some 50 MiB."""

Stripe = tuple[SegmentId, StripeNo]


@dataclass(slots=True)
class Content:
    """What was looked at, and what was found."""

    stripes: int = 0  # fetched and verified
    bytes: int = 0  # in them
    records: int = 0  # in them, all verified
    live_records: int = 0  # of these, those that files point to
    compared_bytes: int = 0  # with copies here
    failed: dict[Stripe, str] = field(default_factory=dict)  # not to be had, or does not verify
    differs_here: list[Stripe] = field(default_factory=list)  # the copy here is not what the locations have


def sampled(stripes: Iterable[Stripe], count: int, seed: int) -> list[Stripe]:
    """So many of them, the same for the same seed, in order. Pure."""

    def rank(stripe: Stripe) -> bytes:
        return blake3(f"{seed} {stripe[0]} {stripe[1]}".encode()).digest()

    return sorted(sorted(stripes, key=rank)[:count])


async def look_at_content(
    index: Rows, vault: SegmentVault, stripes: list[Stripe], scratch: Path, lent: Path | None,
    on_progress: Callable[[int], None],
) -> Content:  # fmt: skip
    """Fetch these stripes and verify every record in them, those that `index` names among them. `lent`: a cache whose
    copies are compared, or None. What cannot be had is noted; raises only for what is wrong here (OSError)."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = Content()
    slots = trio.CapacityLimiter(STRIPES_AT_ONCE)
    for first in range(0, len(stripes), STRIPES_A_PASS):
        some = stripes[first : first + STRIPES_A_PASS]
        named = _named_in(index, set(some))

        async def look(stripe: Stripe, named: Mapping[Stripe, dict[int, int]] = named) -> None:
            async with slots:
                into = scratch / f"{segment_text(stripe[0])}-{stripe[1]}"
                try:
                    await vault.fetch(*stripe, into)
                    await trio.to_thread.run_sync(_verify, content, stripe, into, named[stripe], lent)
                except QssError as error:
                    content.failed[stripe] = str(error)
                finally:
                    into.unlink(missing_ok=True)
                on_progress(content.stripes + len(content.failed))

        async with trio.open_nursery() as nursery:
            for stripe in some:
                nursery.start_soon(look, stripe)
    return content


def _named_in(index: Rows, stripes: set[Stripe]) -> dict[Stripe, dict[int, int]]:
    """The records of these stripes that files point to: place in the stripe → bytes of payload. Looks at every extent
    there is."""
    found: dict[Stripe, dict[int, int]] = {stripe: {} for stripe in stripes}
    for _, value in index.scan(Table.EXTENTS, b""):
        row = ExtentRow.unpack(value)
        number, position = divmod(row.record_position, STRIPE_BYTES)
        records = found.get((row.segment, StripeNo(number)))
        if records is not None:
            records[position] = row.record_length
    return found


def _verify(content: Content, stripe: Stripe, path: Path, named: Mapping[int, int], lent: Path | None) -> None:
    """In a thread; what it counts is its own until it is done. Raises CorruptData."""
    data = path.read_bytes()
    start = 0
    if stripe[1] == 0:
        header, start = SegmentHeader.unpack(data), SEGMENT_HEADER_BYTES
        if (header.segment, header.kind) != (stripe[0], SegmentKind.DATA):
            raise CorruptData("it is another segment")
    records = {position: head.length for position, _, head in scan_stripe(data, start)}
    if not named.items() <= records.items():
        raise CorruptData("a record that the index names is not there")
    here = None if lent is None else _copy_here(lent, stripe, len(data))
    if here is not None:
        content.compared_bytes += len(data)
        if here != data:
            content.differs_here.append(stripe)
    content.stripes += 1
    content.bytes += len(data)
    content.records += len(records)
    content.live_records += len(named)


def _copy_here(lent: Path, stripe: Stripe, count: int) -> bytes | None:
    """The bytes of a stripe as this machine has them; None: it has not. They may go at any moment."""
    segment, number = stripe
    for path, at in (
        (log_path(lent, SegmentKind.DATA, segment), number * STRIPE_BYTES),
        (lent / "stripes" / f"{segment_text(segment)}-{number}{STRIPE_SUFFIX}", 0),
    ):
        try:
            with path.open("rb") as file:
                file.seek(at)
                return file.read(count)
        except FileNotFoundError:
            continue
    return None


def stripes_of(lengths: Mapping[SegmentId, int]) -> Iterator[Stripe]:
    """All stripes of segments of these lengths, in bytes."""
    for segment, length in lengths.items():
        for number in range(-(-length // STRIPE_BYTES)):
            yield segment, StripeNo(number)
