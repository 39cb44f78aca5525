"""scripts/bench [NAME …] [--json FILE]: run benchmarks and show them beside native."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import cache, filesystem, locations, node
from benchmarks.figures import Figure, show
from benchmarks.rig import Rig

BENCHMARKS: dict[str, Callable[[Rig], list[Figure]]] = {
    "fs-seq": filesystem.sequential,
    "fs-small": filesystem.small,
    "cache": cache.scenario,
    "offload": locations.offload,
    "fetch": locations.fetch,
    "trove": node.requests,
    "memory": locations.memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="scratch space on the disk to measure (default: /tmp)")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        with Rig(options.dir) as rig:
            figures += BENCHMARKS[name](rig)
    show(figures, options.json)


if __name__ == "__main__":
    main()
