"""docs/security.md answers every attack of the list and names tests: they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ATTACKS = range(1, 24)
WITHOUT_TEST = {23}
"""Out of scope, and the page says so."""


def test_every_attack_has_an_answer_and_its_tests_exist() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (REPOSITORY / "docs" / "security.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(ATTACKS)
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named or int(number) in WITHOUT_TEST, f"attack {number} has no test"
        for file, name in named:
            found = {
                node.name
                for path in (REPOSITORY / "tests").rglob(file)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert name in found, f"attack {number}: there is no {file}::{name}"


def test_all_tests_that_the_page_names_exist() -> None:
    """Also those of what a Trove's adversaries can do."""
    page = (REPOSITORY / "docs" / "security.md").read_text()
    defined = {
        (path.name, node.name)
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", page))
    assert not named - defined
    assert set(re.findall(r"`(test_\w+\.py)`", page)) <= {file for file, _ in defined}
