"""Databases on a real mount: whoever is killed, they or the mount, every committed transaction is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.running import is_alive
from tests.harness.demo import WAIT_S_MAX, wait_until
from tests.harness.mounted import Mounted, run

pytestmark = pytest.mark.live

WRITERS, COMMITS, ROWS = 3, 40, 7
WRITER = """
import os, sqlite3, sys, time
path, writer, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute("pragma synchronous=full")
for number in range(10**9):
    db.execute("begin immediate")
    db.executemany("insert into t values (?, ?, ?, ?)", [(writer, number, row, os.urandom(300)) for row in range(rows)])
    db.execute("update sums set n = n + ?", (rows,))
    db.execute("commit")
    os.write(1, b"%d\\n" % number)
    time.sleep(0.01)  # the others' turn: SQLite's locks are not fair
"""


class Writers:
    """Processes that commit to one database until they are killed, and say which commits were acknowledged."""

    def __init__(self, database: Path, folder: Path) -> None:
        self.said = [folder / f"writer{number}" for number in range(WRITERS)]
        self.processes = []
        for number, said in enumerate(self.said):
            command = [sys.executable, "-c", WRITER, str(database), str(number), str(ROWS)]
            with said.open("wb") as out, said.with_suffix(".errors").open("wb") as errors:
                self.processes.append(subprocess.Popen(command, stdout=out, stderr=errors))

    def acknowledged(self) -> list[int]:
        return [len(said.read_bytes().splitlines()) for said in self.said]

    def wait(self) -> None:
        """Until there are enough commits in all, and some of each."""
        wait_until("commits", lambda: sum(self.acknowledged()) >= COMMITS and min(self.acknowledged()) > 0)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(WAIT_S_MAX)


@pytest.mark.parametrize("options", ["", "writeback_cache"])
@pytest.mark.parametrize("killed", ["writers", "mount"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_keeps_every_commit_of_concurrent_writers(mount, tmp_path, mode, killed, options):
    mount.start("-o", options)
    database = mount.path / "db"
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        db.executescript("create table t (writer, number, row, x); create index i on t (x); create table sums (n);")
        db.executescript("insert into sums values (0); commit" if db.in_transaction else "insert into sums values (0)")
    writers = Writers(database, tmp_path)
    try:
        writers.wait()
        if killed == "mount":
            mount.kill()
    finally:
        writers.kill()
    if killed == "mount":
        mount.start("-o", options)
    commits = check_sqlite(database)
    for found, acknowledged in zip(commits, writers.acknowledged(), strict=True):
        assert found in {acknowledged, acknowledged + 1}, "one may have been killed before it could tell"
    assert mount.stop() == 0
    mount.start("-o", options)
    assert check_sqlite(database) == commits


def check_sqlite(database: Path) -> list[int]:
    """How many commits of each writer are there; all of them whole, and none missing between."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert db.execute("select n from sums").fetchone() == db.execute("select count(*) from t").fetchone()
        assert db.execute("select 1 from t group by writer, number having count(*) <> ?", (ROWS,)).fetchall() == []
        found = dict(db.execute("select writer, count(distinct number) from t group by writer"))
        assert dict(db.execute("select writer, max(number) + 1 from t group by writer")) == found
    return [found.get(writer, 0) for writer in range(WRITERS)]


PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/nonexistent"))


class Postgres:
    """A server whose data is on the mount, run as the user postgres."""

    def __init__(self, mnt: Path, logs: Path) -> None:
        self.mnt = mnt
        self.logs = logs
        self.log = logs / "server"
        self.data = mnt / "data"
        self.data.mkdir()
        shutil.chown(self.data, "postgres", "postgres")

    def _as_postgres(self, program: str, *arguments: str | Path) -> list[str]:
        user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        return [*user, str(PROGRAMS / program), *map(str, arguments)]

    def __call__(self, program: str, *arguments: str | Path) -> str:
        return run(*self._as_postgres(program, *arguments), cwd=self.mnt)

    def start(self) -> None:
        """As our child: an init that reaps nobody would leave a dead server looking alive."""
        settings = ("listen_addresses=", f"unix_socket_directories={self.data}", "shared_buffers=16MB")
        command = self._as_postgres("postgres", "-D", self.data, *(part for each in settings for part in ("-c", each)))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until("the server is ready", self._ready)
        except AssertionError:
            pytest.fail(self.log.read_text()[-3000:])

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return subprocess.run(self._as_postgres("pg_isready", "-q", "-h", self.data), check=False).returncode == 0

    def stop(self) -> None:
        """In an orderly way."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(WAIT_S_MAX) == 0

    def query(self, sql: str) -> str:
        return self("psql", "-h", self.data, "-X", "-v", "ON_ERROR_STOP=1", "-Atc", sql, "postgres").strip()

    @contextlib.contextmanager
    def under_load(self) -> Iterator[None]:
        """pgbench by four clients, which the body ends by killing the server; see `acknowledged`."""
        command = self._as_postgres("pgbench", "-h", self.data, "-n", "-c", "4", "-T", "600", "-l", "postgres")
        before = self._transactions()
        with subprocess.Popen(command, cwd=self.logs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            try:
                wait_until("transactions", lambda: self._transactions() >= before + 100)
                yield
                load.wait(WAIT_S_MAX)
            finally:
                load.kill()

    def acknowledged(self) -> int:
        """Transactions that all pgbench under load were told of."""
        return sum(len(log.read_text().splitlines()) for log in self.logs.glob("pgbench_log.*"))

    def check(self, least: int) -> None:
        """At least so many transactions are there, each whole."""
        assert self._transactions() >= least
        for table, column in (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance")):
            total = self.query(f"select sum({column}) from pgbench_{table}")
            assert total == self.query("select sum(delta) from pgbench_history")

    def _transactions(self) -> int:
        return int(self.query("select count(*) from pgbench_history"))

    def kill(self) -> None:
        """kill -9 of the server and all its children."""
        pid = self.process.pid
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGSTOP)  # no more children
        family = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [pid]
        for each in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self.process.wait(WAIT_S_MAX)
        wait_until("the children are gone", lambda: not any(is_alive(each) for each in family))


@pytest.mark.skipif(not PROGRAMS.exists() or os.geteuid() != 0, reason="PostgreSQL is not here, or we are not root")
def test_postgresql_survives_kill_9_of_itself_and_of_the_mount(mounted):
    logs = mounted.state.parent / "logs"
    logs.mkdir()
    shutil.chown(logs, "postgres")
    server = Postgres(mounted.path, logs)
    server("initdb", "-D", server.data, "-A", "trust", "--no-locale", "--data-checksums")
    server.start()
    try:
        use_postgres(server, mounted)
    finally:
        server.kill()


def use_postgres(server: Postgres, mounted: Mounted) -> None:
    server("pgbench", "-h", server.data, "-i", "-s", "1", "-q", "postgres")
    server("pgbench", "-h", server.data, "-c", "4", "-t", "50", "postgres")
    server.check(200)

    with server.under_load():
        server.kill()
    server.start()
    server.check(200 + server.acknowledged())

    with server.under_load():
        mounted.kill()
        server.kill()  # it has lost its files under its feet
    mounted.start()
    server.start()
    server.check(200 + server.acknowledged())
    server("pg_dump", "-h", server.data, "-f", server.data / "dump", "postgres")
    server.stop()
    server("pg_checksums", "--check", "-D", server.data)
