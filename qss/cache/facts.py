"""What `qssctl status` shows of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from qss.ids import SegmentId


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """A moment's figures. Bytes unless the name says otherwise."""

    unsealed_bytes: int  # in logs that are not sealed yet
    unsafe_bytes: int  # in sealed segments that are not completely placed
    at_risk_age_s: float  # of the oldest of both; 0 if there is none
    segments_sealed: int  # waiting for their shards
    segments_offloaded: int
    segments_condemned: int
    data_local_bytes: int  # sealed data segments that are here whole
    journal_local_bytes: int
    stripe_bytes: int  # fetched stripes here
    condemned_bytes: int  # in dead segments whose shards are not deleted yet
    segment_bytes: int  # all sealed data segments with live bytes, wherever they are
    reclaimable_bytes: int  # dead bytes in them, but for those that a snapshot needs
    snapshots: int
    snapshot_bytes: int  # dead bytes kept for snapshots
    moved_bytes: int  # by compaction, since the start
    stored_bytes: int  # shards at the locations
    live_bytes: int  # bytes that files point to
    disk_free_bytes: int
    disk_total_bytes: int
    published_journal: SegmentId  # newest journal a root names; 0: none yet
    published_cut_ns: int  # and its cut, wall clock; 0: none yet
    newest_journal: SegmentId
    fetches_in_flight: int
    fetches: int  # since the start
    fetch_bytes: int
    fetch_failures: int
    damaged_reads: int  # since the start
    damage_healed: int  # of them, places that were made good from the locations
    damage_open: int  # places that nothing has given back: EIO (SegmentCache.damage)
    writers_waiting: int
    writers_refused: int  # writes that got ENOSPC, since the start
    replayed_batches: int  # at the start

    @property
    def at_risk_bytes(self) -> int:
        """Bytes that exist only on this machine."""
        return self.unsealed_bytes + self.unsafe_bytes
