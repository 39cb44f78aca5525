"""What the mains of our processes have in common: arguments, the key, readiness, and how an error leaves."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qss.app.daemon import UNWANTED_IN_ENVIRONMENT, Readiness
from qss.app.exits import exit_of
from qss.app.logs import start_logging
from qss.app.secrecy import KEY_ON_STDIN, no_core_dumps, received
from qss.config import Settings, environment, load, with_options
from qss.errors import QssError

log = logging.getLogger("qss.app.shell")


def child_parser(program: str) -> argparse.ArgumentParser:
    """Arguments of every process of a file system."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--log-file", type=Path)
    parser.add_argument(KEY_ON_STDIN, action="store_true")
    return parser


def mount_parser(program: str) -> argparse.ArgumentParser:
    """Those of a process that mounts something."""
    parser = child_parser(program)
    parser.add_argument("--mountpoint", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--options", default="")
    return parser


def child_main(given: argparse.Namespace, process: str, live: Callable[[Settings], None]) -> int:
    """The exit code of a process that another one supervises; `process` is its name in the log."""
    try:
        no_core_dumps()
        settings = received(load(given.config, environment()), on_stdin=given.key_on_stdin)
        start_logging(settings.log, process, given.log_file)
        live(settings)
    except QssError as error:
        log.error("%s", error)
        return exit_of(error)
    return 0


def mount_main(given: argparse.Namespace, settings: Settings | None, live: Callable[[Settings, Readiness], int]) -> int:
    """The exit code; errors before the mount is ready go to whoever started us, or to standard error. `settings`: those
    of this configuration, if the caller has read them, and perhaps opened the key."""
    for name in UNWANTED_IN_ENVIRONMENT:
        os.environ.pop(name, None)
    readiness = Readiness(given.ready_fd, environment().get("NOTIFY_SOCKET"))
    try:
        no_core_dumps()
        settings = received(settings or load(given.config, environment()), on_stdin=given.key_on_stdin)
        return live(replace(settings, mount=with_options(settings.mount, given.options)), readiness)
    except QssError as error:
        readiness.failed(error)
        log.error("%s", error)
        if given.ready_fd is None:
            print(f"qssctl: {error}", file=sys.stderr)
        return exit_of(error)
