"""Options of offloading, as plain values. qss.config builds them from TOML; nothing here reads anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qss.errors import ConfigInvalid
from qss.ids import LocationId
from qss.limits import MIB, SHARDS_MAX
from qss.offload.timetable import Timetable


@dataclass(frozen=True, slots=True)
class LocationOptions:
    """One location: a prefix of a bucket behind an S3 endpoint. `name` is its identity: it is hashed into the names of
    its objects, so it must not change while the location holds anything."""

    name: LocationId
    endpoint: str  # http(s)://host:port, never with credentials in it
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = field(default="", repr=False)  # never printed; at most one of this and the next
    secret_file: Path | None = None  # a file, mode 0600, with the secret in its first line
    labels: Mapping[str, str] = field(default_factory=dict)  # region, dc, rack, disk, provider …
    weight: float = 1.0  # relative to the others; scales the free space
    metered: bool = False  # reading from it costs money: asked when the others do not suffice
    draining: bool = False  # takes no new shard; those it has are moved elsewhere
    ca_file: Path | None = None  # https: trust these authorities (PEM), and no others
    client_cert: Path | None = None  # https: who we are, PEM with certificate and, if not apart, key
    client_key: Path | None = None  # PEM, mode 0600


@dataclass(frozen=True, slots=True)
class OffloadOptions:
    k: int = 4
    m: int = 2
    margin: int | None = None  # a segment counts as safe from k+margin shards; None: all k+m
    compression_level: int = 1  # zstd; 0: never compress
    nice: int = 5  # of the offload process: programs that use the mount come first
    memory_bytes: int = 128 * MIB  # buffers of uploads, fetches and repair together
    uploads_in_flight: int = 2  # segments
    fetches_in_flight: int = 8  # stripes
    in_flight_per_location: int = 4  # requests
    put_deadline_s: float = 120.0  # one attempt of one PUT, whole body
    get_deadline_s: float = 15.0  # one attempt of one GET, HEAD, DELETE or page of a listing
    fetch_deadline_s: float = 30.0  # a stripe, all attempts; then the reader gets EIO
    attempts: int = 4  # of one request, the first included
    backoff_first_s: float = 0.1  # doubles with every attempt, with jitter
    backoff_max_s: float = 5.0
    hedge_delay_s: float = 0.25  # ask one more location when a shard takes longer
    breaker_failures: int = 3  # consecutive; then the location counts as down
    breaker_open_first_s: float = 1.0  # until the first probe; doubles, with jitter
    breaker_open_max_s: float = 30.0
    probe_interval_s: float = 10.0
    upload_bytes_per_s: int | None = None  # at each location; None: no limit
    download_bytes_per_s: int | None = None
    move_bytes_per_s: int | None = None  # of shards that move from one location to another, all together
    timetable: Timetable | None = None  # bandwidth by the clock, besides the two limits above
    repair_grace_s: float = 3600.0  # a location down for longer is given up: its shards are rebuilt elsewhere
    repairs_in_flight: int = 2  # segments; one while new segments wait to be stored
    repair_bytes_per_s: int | None = None  # of segments being repaired; None: no limit
    history_s: float = 0.0  # roots of so long stay at the locations, and what they need: recover --at; 0: the newest 16
    scrub_period_s: float | None = 30 * 86400.0  # every shard is looked at within; None: only when asked
    scrub_bytes_per_s: int | None = 32 * MIB  # hashed, at all locations together
    max_per_domain: Mapping[str, int] = field(default_factory=dict)  # label → shards that may share one value

    def __post_init__(self) -> None:
        if not (self.k >= 1 and self.m >= 0 and self.k + self.m <= SHARDS_MAX):
            raise ConfigInvalid(f"k={self.k}, m={self.m} cannot be: k is at least 1, m at least 0, k+m at most 256")
        if self.margin is not None and not 0 <= self.margin <= self.m:
            raise ConfigInvalid(f"margin must be between 0 and m={self.m}, not {self.margin}")

    @property
    def safe_shards(self) -> int:
        """Shards that must be placed before a segment counts as safe."""
        return self.k + (self.m if self.margin is None else self.margin)
