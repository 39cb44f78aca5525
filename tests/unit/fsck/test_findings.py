"""The list of kinds is total: facts, severities, a row in the document, what a report makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qss.app.exits import Exit
from qss.app.fsck import exit_code
from qss.fsck.findings import KEPT_OF_A_KIND_MAX, Finding, Kind, Report, Severity, facts_of
from qss.fsck.repair import ACTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fsck.md"
BEFORE_IT_IS_OPENED = {Kind.INDEX_DIFFERS, Kind.LIVE_WRONG, Kind.SEGMENT_FILE, Kind.DATA_DAMAGED, Kind.STRIPE_DAMAGED}


def test_the_document_has_every_kind_with_its_facts() -> None:
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 5 and cells[1].startswith("`"):
            for name in re.findall(r"`([^`]+)`", cells[1]):
                rows[Kind(name)] = (Severity(cells[2]), cells[3] == "R")
    assert rows == {kind: tuple(facts_of(kind)) for kind in Kind}


def test_what_is_called_repairable_has_a_repair() -> None:
    assert {kind for kind in Kind if facts_of(kind).repairable} == ACTIONS.keys() | BEFORE_IT_IS_OPENED


def test_a_report_counts_all_and_keeps_some() -> None:
    report, other = Report(), Report()
    for number in range(KEPT_OF_A_KIND_MAX + 50):
        report.add(Finding(Kind.LINK_COUNT, f"inode {number}", "Wrong."))
    report.add(Finding(Kind.DATA_DAMAGED, "segment 1", "The only copy.", lost=True))
    report.looked_at["inodes"] = 7
    assert len(report.findings) == KEPT_OF_A_KIND_MAX + 1
    other.absorb(report.to_json())
    assert other.to_json() == report.to_json()
    assert other.lost
    assert not other.clean


@pytest.mark.parametrize(
    ("clean", "left_clean", "lost", "code"),
    [
        (True, True, False, Exit.OK),
        (False, True, False, Exit.CORRECTED),
        (False, False, False, Exit.FOUND),
        (False, False, True, Exit.DATA),
    ],
)
def test_exit_codes(clean, left_clean, lost, code) -> None:
    assert exit_code({"clean": clean, "left": {"clean": left_clean, "lost": lost}}) is code


def test_the_codes_are_those_of_no_other_meaning() -> None:
    assert len({int(code) for code in Exit}) == len(Exit)
