"""Log lines: one event a line, `time=… level=… process=… from=… text="…"`, to standard error or a file."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from qss.config import LogOptions


class _Lines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        level, source = record.levelname.lower(), record.name.removeprefix("qss.")
        return f"time={when} level={level} process={self._process} from={source} text={json.dumps(text)}"


def start_logging(options: LogOptions, process: str, file: Path | None = None) -> None:
    """Once, at the start of a process. `file` goes before the configured one."""
    path = file or options.file
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Lines(process))
    logging.basicConfig(level=options.level.upper(), handlers=[handler], force=True)
