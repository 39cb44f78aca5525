"""What Prometheus gets: read from the node when asked, so that counting costs requests nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from qss.trove.drives import DriveHealth
from qss.trove.node import Node

Source = Callable[[], Iterator[Metric]]
"""Gives metrics when asked for them."""


class _NodeCollector(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        status = self._node.status()
        gauges = {
            "trove_objects": ("Objects stored", status["objects"]),
            "trove_object_bytes": ("Bytes of objects stored", status["bytes"]),
            "trove_volumes": ("Volumes", len(status["volumes"])),
            "trove_volume_bytes": ("Bytes of volumes", sum(each["bytes"] for each in status["volumes"])),
            "trove_live_bytes": ("Bytes of records that count", sum(each["live"] for each in status["volumes"])),
            "trove_damaged_records": ("Damaged records known", status["damaged_records"]),
        }
        scrub = status["scrub"]
        gauges |= {
            "trove_scrub_running": ("Whether a round of the scrub is under way", int(scrub["running"])),
            "trove_scrub_done_bytes": ("Bytes of volumes this round is through with", scrub["done_bytes"]),
            "trove_scrub_total_bytes": ("Bytes of volumes a round looks at", scrub["total_bytes"]),
            "trove_scrub_ended_seconds": ("When the last round ended, seconds since 1970", scrub["ended_ns"] / 1e9),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        counters = {
            "trove_commits": ("Records committed", status["commits"]),
            "trove_syncs": ("Times volumes were synced", status["syncs"]),
            "trove_damaged_reads": ("Reads that met damage", status["damaged_reads"]),
            "trove_read_bytes": ("Bytes read and verified", self._node.store.records.counters.bytes_read),
            "trove_scrub_rounds": ("Rounds of the scrub that came to their end", self._node.scrubber.rounds),
            "trove_scrub_bytes": ("Bytes the scrub has verified", self._node.scrubber.bytes_total),
            "trove_scrub_found": ("Damaged records the scrub has met", self._node.scrubber.found_total),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value=value)
        free = GaugeMetricFamily("trove_drive_free_bytes", "Free bytes of a drive", labels=["path"])
        health = GaugeMetricFamily("trove_drive_health", "1 for what a drive is", labels=["path", "health"])
        errors = CounterMetricFamily("trove_drive_errors", "Reads, writes and syncs that failed", labels=["path"])
        for drive in status["drives"]:
            free.add_metric([drive["path"]], drive["free"])
            errors.add_metric([drive["path"]], drive["errors"])
            for each in DriveHealth:
                health.add_metric([drive["path"], each.value], int(drive["health"] == each.value))
        yield from (free, health, errors)


class _Source(Collector):
    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        return self._source()


def render(node: Node, sources: Sequence[Source] = ()) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(node))
    for source in sources:
        registry.register(_Source(source))
    return generate_latest(registry)
