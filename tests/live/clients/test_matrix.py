"""Every client of the table goes through the same day with Trove, over plain HTTP and over TLS.

What it did is judged from outside: by boto3 and by hashes of the files. A case is a future; three run at a time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.clients.judge import Judge, hashes
from tests.harness.clients.programs import CLIENTS, Program, Row, Server
from tests.harness.clients.sdk import METADATA

pytestmark = pytest.mark.live

CASES_AT_A_TIME = 3
MIB = 2**20
LARGE_BYTES = 17 * MIB
"""More than one part for each client that has not set its threshold beyond 100 MB."""
NAMES = (
    "plain.txt",
    "with space.txt",
    " before and behind ",
    "plus+sign",
    "100%.txt",
    "a%20b",
    "a%2Fb",
    "ünï/cødé 日本 🐢.txt",
    "e\u0301 is not \u00e9",
    "semi;&=?#@,$:.txt",
    "quote'\".txt",
    "(round) [square] {curly} <angle>",
    "!*~|^`",
    "back\\slash",
    "deep/er/est/file",
    "empty",
)
ODD_KEYS = ("two//slashes", "last/", "a/../b", "é" * 500, "a/./b", "/first", "%2F", "+ +", "tab\tinside")
"""That no file can have."""


CASES = [(row, scheme) for row in CLIENTS for scheme in ("plain", "tls")]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[None]]]:
    """All cases that were asked for, at work."""
    wanted = [item.callspec.params["case"] for item in request.session.items if item.path == Path(__file__)]
    with ThreadPoolExecutor(CASES_AT_A_TIME) as pool:
        yield {
            (row.name, scheme): pool.submit(_day, row, servers[scheme], tmp_path_factory.mktemp(f"{row.name}-{scheme}"))
            for row, scheme in wanted
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=[f"{row.name}-{scheme}" for row, scheme in CASES])
def test_a_day_with(case: tuple[Row, str], outcomes: dict[tuple[str, str], Future[None]]) -> None:
    row, scheme = case
    outcomes[row.name, scheme].result()


def _day(row: Row, server: Server, folder: Path) -> None:
    (folder / "home").mkdir()
    program = row.open(server, folder / "home")
    try:
        _Day(row, program, Judge(server, f"day-of-{row.name}"), folder).all()
    finally:
        program.close()


class _Day:
    """The steps, in order."""

    def __init__(self, row: Row, program: Program, judge: Judge, folder: Path) -> None:
        self._row, self._program, self._judge, self._folder = row, program, judge, folder
        self._bucket = judge.bucket
        self._tree = folder / "tree"
        self._large = folder / "large"
        self._rng = random.Random(row.name)

    def all(self) -> None:
        if self._row.makes_buckets:
            self._program.make_bucket(self._bucket)
        else:
            self._judge.s3.create_bucket(Bucket=self._bucket)
        self._a_tree_up_and_down()
        self._what_is_there_is_left_alone()
        self._large_objects_in_parts()
        self._keys_that_no_file_can_have()
        self._program.remove(self._bucket)
        if self._row.makes_buckets:
            assert self._bucket not in [each["Name"] for each in self._judge.s3.list_buckets()["Buckets"]]
        else:
            assert self._judge.writes() == {}

    def _names(self) -> list[str]:
        return [name for name in NAMES if name not in self._row.cannot]

    def _a_tree_up_and_down(self) -> None:
        for name in self._names():
            path = self._tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._rng.randbytes(0 if name == "empty" else self._rng.randrange(1, 70_000)))
        wanted = hashes(self._tree)
        self._program.sync(self._tree, self._bucket)
        assert {key: self._judge.hash(key) for key in self._judge.writes()} == wanted
        assert self._program.keys(self._bucket) == set(wanted)
        back = self._folder / "back"
        back.mkdir()
        self._program.fetch(self._bucket, back)
        assert hashes(back) == wanted

    def _what_is_there_is_left_alone(self) -> None:
        before = self._judge.writes()
        self._program.sync(self._tree, self._bucket)
        assert self._judge.writes() == before
        changed = self._names()[1]
        with (self._tree / changed).open("ab") as file:
            file.write(b"more")
        self._program.sync(self._tree, self._bucket)
        after = self._judge.writes()
        assert {key for key in after if after[key] != before.get(key)} == {changed}
        assert self._judge.hash(changed) == hashes(self._tree)[changed]

    def _large_objects_in_parts(self) -> None:
        self._large.write_bytes(self._rng.randbytes(LARGE_BYTES))
        [wanted] = hashes(self._large.parent, "large").values()
        self._program.put(self._bucket, "large", self._large)
        etag = self._judge.s3.head_object(Bucket=self._bucket, Key="large")["ETag"]
        assert "-" in etag, "it was sent in one piece"
        self._program.copy(self._bucket, "large", "copy of large")
        for key in ("large", "copy of large"):
            assert self._judge.hash(key) == wanted
            if key == "large" or self._row.copies_metadata:
                assert self._judge.metadata(key).items() >= METADATA.items()
        back = self._folder / "large back"
        self._program.get(self._bucket, "copy of large", back)
        assert hashes(self._folder, back.name) == {back.name: wanted}

    def _keys_that_no_file_can_have(self) -> None:
        small = self._folder / "small"
        small.write_bytes(self._rng.randbytes(1000))
        [wanted] = hashes(self._folder, small.name).values()
        keys = [key for key in ODD_KEYS if key not in self._row.cannot]
        for number, key in enumerate(keys[: self._row.odd_keys_max]):
            self._program.put(self._bucket, key, small)
            assert self._judge.hash(key) == wanted
            back = self._folder / f"back {number}"
            self._program.get(self._bucket, key, back)
            assert hashes(self._folder, back.name) == {back.name: wanted}
