"""Every kind of finding has a damaged state that shows it, and is a line of a table, a JSON object, an exit code."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from qss.app.exits import Exit
from qss.app.fsck import exit_code
from qss.cli import render
from qss.fsck.findings import Finding, Kind, Report, Severity, facts_of
from tests.unit.fsck.test_index import DAMAGE as DAMAGE_OF_ROWS
from tests.unit.fsck.test_offline import CHECKPOINT_DAMAGE
from tests.unit.fsck.test_offline import DAMAGE as DAMAGE_OF_FILES

HERE = Path(__file__).parent


def asserted(path: Path) -> set[Kind]:
    """Kinds that an assertion of some test in this file names."""
    found = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef) or not function.name.startswith("test_"):
            continue
        for statement in ast.walk(function):
            if isinstance(statement, ast.Assert):
                found |= {
                    Kind[node.attr]
                    for node in ast.walk(statement.test)
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Kind"
                }
    return found


def test_every_kind_has_a_state_that_shows_it() -> None:
    shown = DAMAGE_OF_ROWS.keys() | {kind for _, kind, _ in DAMAGE_OF_FILES.values()}
    shown |= {kind for _, kind in CHECKPOINT_DAMAGE.values()}
    for name in ("test_index.py", "test_offline.py", "test_remote.py"):
        shown |= asserted(HERE / name)
    assert shown == set(Kind)


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_finding_is_a_line_an_object_and_an_exit_code(kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.add(Finding(kind, "inode 17", "It does not hold."))
    document = report.to_json() | {"left": {"clean": False, "lost": report.lost}}
    severity, repairable = facts_of(kind)
    render.findings(document)
    out = capsys.readouterr().out
    assert str(kind) in out
    assert str(severity) in out
    assert "It does not hold." in out
    assert json.loads(json.dumps(document))["findings"] == [
        {
            "kind": str(kind), "severity": str(severity), "subject": "inode 17", "sentence": "It does not hold.",
            "repairable": repairable,
        }
    ]  # fmt: skip
    assert exit_code(document) is (Exit.DATA if severity is Severity.LOSS else Exit.FOUND)
