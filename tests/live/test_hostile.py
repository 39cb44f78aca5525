"""Hostile requests against a real Trove, byte by byte: each is answered as it should be, and nothing has changed.

After each case nothing has been written, a good request is answered, and no answer holds the secret; after all of them
the census of buckets, users and tokens is what it was.
The tables stand in tests/harness/hostile_*.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.hostile import SECRET, Site, Wire, hostile_site, send
from tests.harness.hostile_access import ACCESS
from tests.harness.hostile_fronts import FRONTS
from tests.harness.hostile_paths import DOCUMENTS, PATHS
from tests.harness.hostile_signed import SIGNATURES
from tests.harness.hostile_wire import CHUNKED, HTTP, LENGTHS, Case

pytestmark = pytest.mark.live

TABLES = {
    "http": HTTP,
    "chunked": CHUNKED,
    "lengths": LENGTHS,
    "signatures": SIGNATURES,
    "paths": PATHS,
    "documents": DOCUMENTS,
    "access": ACCESS,
    "fronts": FRONTS,
}
ROWS = [pytest.param(case, id=f"{table}-{case.name}") for table, cases in TABLES.items() for case in cases]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with hostile_site() as made:
        yield made


@pytest.fixture(scope="module")
def before(site: Site) -> list[bytes]:
    return site.census()


@pytest.mark.parametrize("case", ROWS)
def test_it_is_denied_and_changes_nothing(site: Site, before: list[bytes], case: Case) -> None:
    written = site.written()
    asked = case.make(site)
    answer = send(site.port(case.front), asked.bytes() if isinstance(asked, Wire) else asked)
    assert (answer.status, answer.code) == (case.status, case.code), answer
    assert answer.more == 0, "one request, two answers"
    assert SECRET not in answer.head + answer.body
    assert site.server.secret_key.encode() not in answer.head + answer.body
    assert site.written() == written
    assert case.front == "s3" or site.ledger() == before[-4:]
    assert site.ask("root", "GET", "/own/alice/mine").body == SECRET, "a good request is still answered"


def test_after_all_of_them_nothing_has_changed(site: Site, before: list[bytes]) -> None:
    assert site.census() == before


def test_there_are_as_many_cases_as_were_promised() -> None:
    assert len(ROWS) >= 380
    assert len({row.id for row in ROWS}) == len(ROWS)
