"""What an operator has decided and no volume holds: quotas, tokens, shares. The one importer of sqlite3.

One file, DIR/ledger.db (0600), one table: kind, name, a JSON object. What is in it is read once, at the start, and
then kept in memory by whoever owns the kind; a change is durable when `put` or `remove` returns. SQLite because a
change is one row, atomic and synced (docs/adr/0139); it lives beside the index, on the first data directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from qss.errors import Refused, Retryable

LEDGER: Final = "ledger.db"
FORMAT: Final = 1
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS entries (kind TEXT, name TEXT, value TEXT, PRIMARY KEY (kind, name))"

Entry = dict[str, Any]


class Ledger:
    """An open ledger. Writes go one after another through a thread of their own."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LEDGER
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would make it 0644
        try:
            self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise Refused(f"{self._path} was written by a newer Trove (format {version}); run that one")
            if version == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error as error:
            raise Refused(f"{self._path} cannot be used ({error}); put it back from a backup or remove it") from error
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="trove-ledger")

    def load(self, kind: str) -> dict[str, Entry]:
        """Everything of one kind, by name. Raises Refused for what does not decode."""
        try:
            rows = self._db.execute("SELECT name, value FROM entries WHERE kind = ? ORDER BY name", (kind,)).fetchall()
            return {str(name): dict(json.loads(value)) for name, value in rows}
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise Refused(f"{self._path} is damaged ({error}); put it back from a backup or remove it") from error

    async def put(self, kind: str, name: str, value: Entry) -> None:
        """Add or replace. Durable when it returns; raises Retryable when the disk does not take it."""
        text = json.dumps(value)
        await self._run(lambda: self._db.execute("REPLACE INTO entries VALUES (?, ?, ?)", (kind, name, text)))

    async def remove(self, kind: str, name: str) -> None:
        """Durable when it returns; nothing happens when there is none."""
        await self._run(lambda: self._db.execute("DELETE FROM entries WHERE kind = ? AND name = ?", (kind, name)))

    async def _run(self, work: Callable[[], object]) -> None:
        """Through to its end even when the caller goes away: memory and file must say the same."""
        writing = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        except sqlite3.Error as error:
            raise Retryable(f"the ledger did not take the change: {error}") from error

    def close(self) -> None:
        self._pool.shutdown()
        self._db.close()
