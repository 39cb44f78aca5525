"""The habits of CONTRIBUTING.md that a machine can hold: sizes, banned names, the outside world behind qss.host."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted((REPOSITORY / "qss").rglob("*.py"))

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80
NAMES_SAYING_NOTHING = {"utils", "util", "common", "helpers", "helper", "base", "misc", "types", "constants"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_module_fits_in_a_head(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= FILE_LINES_MAX, "which second thing has this module started to do?"
    assert path.stem not in NAMES_SAYING_NOTHING
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_every_format_has_its_page_and_its_vectors() -> None:
    """A module of qss.formats, a page in docs/formats and frozen bytes in tests/vectors belong together."""
    for path in sorted((REPOSITORY / "qss" / "formats").glob("*.py")):
        if path.stem == "__init__":
            continue
        assert (REPOSITORY / "docs" / "formats" / f"{path.stem}.md").is_file(), path.stem
        vectors = REPOSITORY / "tests" / "vectors" / path.stem
        assert vectors.is_dir(), path.stem
        assert any(vectors.iterdir()), path.stem


def test_environment_and_configuration_are_read_in_one_place() -> None:
    """Only qss.config reads os.environ; the apps pass an environment on to their children."""
    allowed = {"config", "app", "cli"}
    for path in MODULES:
        package = path.relative_to(REPOSITORY / "qss").parts[0].removesuffix(".py")
        if package not in allowed and path.stem != "testing":  # which starts processes, as an app does
            assert not re.search(r"os\.(environ|getenv)", path.read_text()), path


def test_relative_links_in_the_documents_lead_somewhere() -> None:
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link and not link.startswith("mailto:"):
                assert (page.parent / link).exists(), f"{page.relative_to(REPOSITORY)} → {link}"
