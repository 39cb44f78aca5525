"""mount.qss: what mount(8) calls for `mount -t qss CONFIG DIR -o …` and for lines of /etc/fstab.

mount(8) gives: SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]. SPEC is the configuration file.
"""

from __future__ import annotations

import argparse
import sys


def command(arguments: list[str]) -> list[str] | None:
    """The arguments of qssctl for those of mount(8); None: nothing is to be done (`-f`, a fake mount)."""
    parser = argparse.ArgumentParser(prog="mount.qss", description="Mount a QSS file system.")
    parser.add_argument("config", help="configuration file of the file system")
    parser.add_argument("directory", help="where to mount it")
    parser.add_argument("-o", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-t", metavar="TYPE", help="ignored")
    parser.add_argument("-N", metavar="NAMESPACE", help="ignored")
    parser.add_argument("-f", action="store_true", help="do everything but mount")
    for flag in "snv":
        parser.add_argument(f"-{flag}", action="store_true", help="ignored")
    given = parser.parse_args(arguments)
    if given.f:
        return None
    return ["--config", given.config, "mount", given.directory, "-o", ",".join(given.o)]


def main() -> None:
    """Entry point of `mount.qss`."""
    from qss.cli.main import run

    qssctl = command(sys.argv[1:])
    sys.exit(0 if qssctl is None else run(qssctl))


if __name__ == "__main__":
    main()
