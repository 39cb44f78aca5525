"""scripts/bench [NAME …]: run benchmarks, each beside the native file system of the same disk, and show the figures."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    cache,
    codec,
    filesystem,
    latency,
    locations,
    million,
    node,
    overwrite,
    start,
    trees,
    trove_million,
    upkeep,
)
from benchmarks.figures import Figure, show
from benchmarks.files import MIB
from benchmarks.measure import Interrupted
from benchmarks.rig import Rig
from benchmarks.systems import KEYS, Lineup, lineup


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for on the command line."""

    rounds: int
    size: int  # bytes of a large file
    files: int | None  # number of small files; None: as each scenario has it
    systems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One name on the command line."""

    about: str
    run: Callable[[Rig, Options], tuple[list[Figure], dict[str, str]]]
    by_name_only: bool = False


def beside(
    about: str,
    run: Callable[[Lineup, Path, Options], list[Figure]],
    variants: Sequence[str] = (),
) -> Benchmark:
    """A scenario that runs on all systems in turns."""

    def start(rig: Rig, options: Options) -> tuple[list[Figure], dict[str, str]]:
        with lineup(rig, options.systems, variants) as there:
            said = {each.name: each.fsync for each in there.systems}
            said |= {name: f"{said[name]} ({version})" for name, version in there.versions.items()}
            return run(there, rig.root, options), said

    return Benchmark(about, start)


def alone(about: str, run: Callable[[Rig, Options], list[Figure]], *, by_name_only: bool = False) -> Benchmark:
    """A scenario that runs on QSS alone, and natively where its figures say so."""
    return Benchmark(about, lambda rig, options: (run(rig, options), {}), by_name_only)


BENCHMARKS: dict[str, Benchmark] = {
    "fs-seq": beside(
        "one file of 1 GiB (--size): write + fsync, read after dropping caches, read again; an operation is 1 MiB",
        lambda there, scratch, options: filesystem.sequential(there, options.size, options.rounds),
        ["qss-alone"],
    ),
    "fs-small": beside(
        "10,000 files (--files) of 4 KiB: create+write+close, stat cold and warm, open+read+close, unlink",
        lambda there, scratch, options: filesystem.small(there, options.files or 10_000, options.rounds),
        ["qss-alone"],
    ),
    "fs-fsync": beside(
        "append 4 KiB + fsync; strace counts how many of them each system hands to the disk",
        lambda there, scratch, options: filesystem.fsync(there, options.files or 300, options.rounds),
    ),
    "fs-rsync": beside(
        "rsync -a of 20,000 small files (--files) in 200 directories from the native file system, and again",
        lambda there, scratch, options: trees.rsync(there, scratch, options.files or 20_000, options.rounds),
    ),
    "fs-random": beside(
        "fio: 32,768 overwrites (--files) of 4 KiB at random in 256 MiB, depth 1; without and with fsync at the end",
        lambda there, scratch, options: overwrite.overwrite(there, options.files or 32_768, options.rounds),
        ["qss-writeback"],
    ),
    "fs-untar": beside(
        "tar -xf of a source tree of 10,000 files (--files) made from Python's library; rm -r of it",
        lambda there, scratch, options: trees.untar(there, scratch, options.files or 10_000, options.rounds),
        ["qss-writeback"],
    ),
    "fs-latency": beside(
        "stat of an unknown name every 2 ms while dd copies 1 GiB (--size) there: p50, p99, longest",
        lambda there, scratch, options: latency.stat_under_copy(there, scratch, options.size),
    ),
    "fs-million": alone(
        "QSS only: 1,000,000 empty files (--files), find -ls twice; rates, and the memory of the mount",
        lambda rig, options: million.many(rig, options.files or 1_000_000),
        by_name_only=True,
    ),
    "start": alone(
        "QSS only: time to the first answer with 1,000,000 small files (--files): clean, killed, without an index",
        lambda rig, options: start.starts(rig, options.files or 1_000_000),
        by_name_only=True,
    ),
    "cache": alone(
        "qss.cache by itself: CPU of the append path, bytes a second, group commit; on the disk and on a tmpfs",
        lambda rig, options: cache.scenario(rig),
    ),
    "codec": alone(
        "what offload computes, one core, no network: compress, seal, code, hash; and back",
        lambda rig, options: codec.codec(rig),
    ),
    "placement": alone("256 of 1,000 locations chosen for a segment", lambda rig, options: codec.placement(rig)),
    "offload": alone("plaintext written until all is safe at the nodes", lambda rig, options: locations.offload(rig)),
    "fetch": alone("evicted data read back: throughput, first bytes", lambda rig, options: locations.fetch(rig)),
    "repair": alone(
        "one of six locations lost for good, rebuilt at a seventh and verified", lambda rig, options: upkeep.repair(rig)
    ),
    "misses": alone(
        "p99 of cached reads, alone and beside 20 readers of evicted data", lambda rig, options: upkeep.misses(rig)
    ),
    "trove": alone(
        "one Trove, CPU and wall per request, beside SeaweedFS, rclone serve s3, s3rver and moto; under scrub",
        lambda rig, options: node.requests(rig),
    ),
    "trove-million": alone(
        "1,000,000 objects (--files) in one node: ready after a stop and a kill, memory, a listing of all",
        lambda rig, options: trove_million.trove_million(rig, options.files or 1_000_000),
        by_name_only=True,
    ),
    "memory": alone("memory of mount and offload while 4 GiB are copied", lambda rig, options: locations.memory(rig)),
}


def _parse() -> argparse.Namespace:
    names = [
        f"  {name:<11} {each.about}{' (only when named)' * each.by_name_only}" for name, each in BENCHMARKS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog="\n".join(
            [
                "benchmarks (all that are not marked, without a NAME):",
                *names,
                "",
                f"systems of fs-*: {', '.join(KEYS)}",
                "ratio: value over that of native, in the same run. CPU µs/op: all processes of that system;",
                "caller µs/op: the program that works on it. Wall time: the best round; CPU: the mean of all.",
                "scripts/bench --setup-peers installs the other systems; one that is missing is shown as not measured.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="scratch space on the disk to measure [/tmp]")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of each fs-* scenario, in turns [2]")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of a large file [1024]")
    parser.add_argument("--files", type=int, metavar="N", help="small files or operations, instead of each one's own")
    parser.add_argument("--systems", default=",".join(KEYS), metavar="KEY,…", help="only these, and native [all]")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    systems = tuple(arguments.systems.split(","))
    unknown = (set(arguments.names) - set(BENCHMARKS)) | (set(systems) - set(KEYS))
    if unknown or arguments.rounds < 1:
        print(f"scripts/bench: not known: {', '.join(sorted(unknown))}; see --help", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    options = Options(arguments.rounds, arguments.size * MIB, arguments.files, systems)
    figures: list[Figure] = []
    fsyncs: dict[str, str] = {}
    try:
        for name in arguments.names or [name for name, each in BENCHMARKS.items() if not each.by_name_only]:
            with Rig(arguments.dir) as rig:
                fresh, said = BENCHMARKS[name].run(rig, options)
            figures += fresh
            fsyncs |= said
    except Interrupted as so_far:
        figures += so_far.figures
        return 130
    except KeyboardInterrupt:
        return 130
    finally:
        show(figures, arguments.json, fsyncs)
    return 0


def _end(number: int, frame: object) -> None:
    """As Ctrl-C: everything that was started is stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
