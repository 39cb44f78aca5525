"""What the documents name exists, and what exists is named: keys, commands, options, codes, metrics, routes, tests."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from qss.app.exits import Exit
from qss.app.mount_methods import _status
from qss.cache.options import CacheOptions, PathPolicy, RetentionOptions
from qss.cli.main import app as qssctl
from qss.cli.trove import app as trove
from qss.config import HookOptions, LogOptions, location, schema
from qss.config import trove as trove_toml
from qss.config.mount_options import FLAGS, VALUES
from qss.config.settings import MountSettings
from qss.config.write import NewConfig, render
from qss.offload.durability import default_code
from qss.offload.keys import FsKeys
from qss.offload.options import LocationOptions, OffloadOptions
from qss.trove import meters, metrics, watching
from qss.trove.admin import Admin
from qss.trove.admin_buckets import BucketRoutes
from qss.trove.admin_shares import ShareRoutes
from qss.trove.admin_upkeep import UpkeepRoutes
from qss.trove.admin_users import UserRoutes

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [path for path in (*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")) if path.name != "CHANGELOG.md"]
"""CHANGELOG tells of the past."""
HERE = Path("/etc/qss")

SECTIONS: dict[str, tuple[schema.Fields, type | None]] = {
    "[filesystem]": (schema.filesystem(HERE), None),
    "[code]": (schema.CODE, OffloadOptions),
    "[cache]": (schema.CACHE, CacheOptions),
    "[retention]": ({k: v for k, v in schema.RETENTION.items() if k != "paths"}, RetentionOptions),
    '[retention.paths."/videos"]': (schema.PATH_POLICY, PathPolicy),
    "[snapshots]": (schema.SNAPSHOTS, None),
    "[offload]": (schema.OFFLOAD, OffloadOptions),
    "[mount]": (schema.MOUNT, MountSettings),
    "[hooks]": (schema.hooks(HERE), HookOptions),
    "[log]": (schema.logs(HERE), LogOptions),
    "[[location]]": (schema.location(HERE), LocationOptions),
}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in re.split(r"(?<!\S)\|(?!\S)", line)[1:-1]]


def code_in(text: str) -> Iterator[str]:
    """Lines of code: fenced, indented, between backticks."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)


def table_of_keys() -> dict[str, dict[str, str]]:
    """Section → key → its default as it is written there."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for first, keys, default, *_ in rows(page("configuration.md")):
        if first.startswith("`["):
            section = first.strip("`")
        names = re.findall(r"`(\w+)`", keys)
        values = [each.strip("` ") for each in default.split(",")]
        values = values * len(names) if len(values) == 1 else values  # one for all
        if section and names:
            found.setdefault(section, {}).update(zip(names, values, strict=True))
    return found


def test_configuration_lists_every_key_and_no_other() -> None:
    table = table_of_keys()
    assert {name: set(keys) for name, keys in table.items()} == {
        name: set(fields) for name, (fields, _) in SECTIONS.items()
    }


@pytest.mark.parametrize("section", [name for name, (_, options) in SECTIONS.items() if options is not None])
def test_configuration_tells_the_defaults(section: str) -> None:
    fields, options = SECTIONS[section]
    assert options is not None
    defaults = {
        each.name: each.default_factory() if callable(each.default_factory) else each.default
        for each in dataclasses.fields(options)
    }
    for key, written in table_of_keys()[section].items():
        try:
            value = tomllib.loads(f"value = {written}")["value"]
        except tomllib.TOMLDecodeError:
            continue  # in words
        assert fields[key].parse(value) == defaults[fields[key].target], f"{section} {key}"


def test_a_new_configuration_file_tells_the_defaults() -> None:
    section = ""
    told = []
    for line in render(NewConfig("state", "key", None, 4, 2, [], {})).splitlines():
        if line.startswith("["):
            section = line
        elif (found := re.match(r"# (\w+) = ([^ ]+)", line)) and section != "[filesystem]":
            assert table_of_keys()[section][found[1]] == found[2], line
            told.append(found[1])
    assert len(told) >= 8


def test_trove_toml_urls_of_locations_and_mount_options_are_told() -> None:
    told = page("trove.md")
    assert [key for key in trove_toml.KEYS if f"`{key}`" not in told] == []
    told = page("first-mount.md")
    assert [key for key in location._QUERY if not re.search(rf"`{key}[`=]", told)] == []
    told = page("operations.md")
    assert [name for name in (*FLAGS, *(f"{each}=" for each in VALUES)) if f"`{name}`" not in told] == []


def test_exit_codes_are_those_of_the_table() -> None:
    table = page("operations.md").partition("## Exit codes")[2].partition("\n## ")[0]
    codes = {int(code) for code, *_ in rows(table) if code.isdecimal()}
    assert codes == {*map(int, Exit), 130}


def test_status_lists_its_keys() -> None:
    (document,) = [
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(_status)))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict)
    ]
    keys = {key.value for key in document.keys if isinstance(key, ast.Constant)}
    table = page("operations.md").partition("## status --json")[2].partition("\n## ")[0]
    told = {name for first, *_ in rows(table) for name in re.findall(r"`(\w+)`", first)}
    assert told == keys


def test_metrics_are_told() -> None:
    names = {
        name
        for module in (metrics, meters, watching)
        for name in re.findall(r'"(trove_[a-z_]+)"', inspect.getsource(module))
    }
    assert set(re.findall(r"\btrove_[a-z_]+\b", page("trove.md"))) == names
    assert set(re.findall(r"\btrove_[a-z_]+\b", page("operations.md"))) <= names


def without_names(route: str) -> str:
    return re.sub(r"\{\w+\}", "{}", route)


def test_routes_of_the_admin_api_are_told() -> None:
    node: Any = None  # routes are the same for each
    more = [
        BucketRoutes(node),
        ShareRoutes(node, str),
        UpkeepRoutes(node),
        UserRoutes(node),
        watching.Watching(meters.Meters(node), None),
    ]
    routes = Admin(node, "", [route for each in more for route in each.routes]).routes
    told = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^\s`?]*)", page("trove.md")))
    ours = {f"{route.method} {route.path}" for route in routes}
    assert ours - told == set()
    of_other_fronts = {each for each in told if each.split("/")[1] in ("files", "-", "bucket")}
    assert {without_names(each) for each in told - of_other_fronts} <= {without_names(each) for each in ours}


@cache
def programs() -> dict[str, Any]:
    return {"qssctl": typer.main.get_command(qssctl), "trove": typer.main.get_command(trove)}


def commands_of(command: Any) -> dict[str, Any]:
    """Those below a group; typer's classes are not click's."""
    return getattr(command, "commands", {})


def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in commands_of(command).items():
        yield from below(f"{path} {name}", each)


def options_of(command: Any) -> dict[str, bool]:
    """Whether each takes a value."""
    found = {name: not getattr(each, "is_flag", False) for each in command.params for name in each.opts}
    return {name: takes for name, takes in found.items() if name.startswith("-")} | {"--help": False}


def unknown_in(line: str) -> str | None:
    """What is no command or option in a command line as documents write it: `[…]` around what may be left out."""
    words = re.findall(r"'[^']*'|\"[^\"]*\"|\S+", re.sub(r"[\[\]…]", " ", line))
    command, path = programs()[words[0]], words[0]
    options, rest = options_of(command), iter(words[1:])
    for word in rest:
        name, equals, _ = word.partition("=")
        if name.startswith("-") and len(name) > 1:
            if name not in options:
                return f"{path} {name}"
            if options[name] and not equals:
                next(rest, None)
        elif groups := commands_of(command):
            if not re.fullmatch(r"[a-z-]+", word):
                return None  # prose
            if word not in groups:
                return f"{path} {word}"
            command, path = groups[word], f"{path} {word}"
            options = options_of(command)
    return None


def test_commands_and_options_in_the_documents_exist() -> None:
    wrong, seen = [], 0
    for path in PAGES:
        if path.parent.name == "formats":  # names of keys begin with "trove"
            continue
        for line in code_in(path.read_text()):
            found = re.search(r"(?:^|[ (])((?:qssctl|trove) .*)", re.split(r" #|  ", line)[0])
            if found is not None and not line.startswith("ln "):
                seen += 1
                wrong += [f"{path.name}: {each}" for each in [unknown_in(found[1])] if each is not None]
    assert wrong == []
    assert seen > 100


def test_every_command_and_option_stands_in_the_documents() -> None:
    text = "\n".join(path.read_text() for path in PAGES)
    silent = []
    for program, command in programs().items():
        for path, each in below(program, command):
            if path not in text:
                silent.append(path)
            silent += [f"{path} {name}" for name in options_of(each) if name.startswith("--") and name not in text]
    assert silent == []


def test_the_environment_is_told() -> None:
    """What the programs read, and what tests and scripts take from whoever runs them."""
    named = re.compile(r"\b(?:QSS|TROVE)_[A-Z_]+\b")
    text = "\n".join(path.read_text() for path in PAGES)
    code = [*(REPOSITORY / "qss").rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]
    code += [path for path in (REPOSITORY / "scripts").glob("*") if path.is_file()]
    read = {name for path in code for name in re.findall(r"[\"'${]((?:QSS|TROVE)_[A-Z_]+)[\"':}]", path.read_text())}
    assert set(named.findall(text)) == read


def test_modules_of_the_s3_package_stand_in_its_table() -> None:
    package = REPOSITORY / "qss" / "s3"
    table = "\n".join(line for line in page("s3.md").splitlines() if line.startswith("|"))
    told = set(re.findall(r"`(\w+\.py)`", table))
    ours = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert told == ours
    told = set(re.findall(r"`(\w+)`", next(line for line in table.splitlines() if line.startswith("| `access/`"))))
    assert told == {path.stem for path in (package / "access").glob("*.py")} - {"__init__"}


def test_files_modules_and_decisions_that_the_documents_name_exist() -> None:
    tests = {path.name for path in (REPOSITORY / "tests").rglob("*.py")}
    decisions = {path.name[:4] for path in (DOCS / "adr").glob("*.md")}
    wrong = []
    for path in PAGES:
        text = path.read_text()
        gone = [name for name in re.findall(r"\btest_\w+\.py\b", text) if name not in tests]
        gone += [name for name in re.findall(r"`((?:qss|tests|scripts|docs)/[\w./@-]+)`", text) if not exists(name)]
        gone += [name for name in re.findall(r"`(qss(?:\.\w+)+)`", text) if not importable(name)]
        gone += [name for name in re.findall(r"\b(?:ADR |adr/)(\d{4})", text) if name not in decisions]
        gone += [
            name for name, file in re.findall(r"\[(\d{4})\]\(([^)]*)\)", text) if not Path(file).name.startswith(name)
        ]
        wrong += [f"{path.relative_to(REPOSITORY)}: {name}" for name in gone]
    assert wrong == []


def exists(name: str) -> bool:
    return (REPOSITORY / name).exists()


def importable(name: str) -> bool:
    """A module or package, or one and a name in it."""
    where, _, last = name.replace(".", "/").rpartition("/")
    if exists(f"{where}/{last}") or exists(f"{where}/{last}.py") or last in ("toml", "log", "key"):  # files of users
        return True
    return exists(f"{where}.py") and re.search(rf"\b{last}\b", (REPOSITORY / f"{where}.py").read_text()) is not None


def test_formats_list_the_rows_of_meta_and_what_keys_are_derived_for() -> None:
    """A context or a row that only the code knows could be given twice."""
    source = "\n".join(path.read_text() for path in (REPOSITORY / "qss").rglob("*.py"))
    told = " ".join("\n".join(path.read_text() for path in (DOCS / "formats").glob("*.md")).split())
    rows_of_meta = set(re.findall(r'b"((?:cache|fs|index)\.[a-z_]+)"', source))
    assert (
        set(re.findall(r"^\| `((?:cache|fs|index)\.\w+)` \|", page("formats/journal.md"), re.MULTILINE)) == rows_of_meta
    )
    contexts = set(re.findall(r'"((?:qss|trove)[a-z ]* v\d \d{4}-\d\d [a-z ]+)"', source))
    assert set(re.findall(r"`\"?((?:qss|trove)[a-z ]* v\d \d{4}-\d\d [a-z ]+)\"?`", told)) == contexts
    names = set(re.findall(r'self\._name\(b"(\w+)"', inspect.getsource(FsKeys)))
    assert set(re.findall(r"\| `(\w+)` \| (?:empty|generation|segment)", told)) == names


def test_layers_are_those_that_lint_imports_holds() -> None:
    drawn = page("architecture.md").partition("## Layers")[2].split("```")[1]
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    assert [re.split(r" {2,}", line)[0] for line in drawn.strip().splitlines()] == layers


def test_each_decision_has_a_number_of_its_own_and_says_it() -> None:
    paths = sorted((DOCS / "adr").glob("*.md"))
    assert len({path.name[:4] for path in paths}) == len(paths)
    assert [path.name for path in paths if not path.read_text().startswith(f"# {path.name[:4]} ")] == []


def test_readme_leads_to_every_page() -> None:
    told = (REPOSITORY / "README.md").read_text()
    assert [path.name for path in DOCS.glob("*.md") if f"(docs/{path.name})" not in told] == []


def test_every_test_that_cuts_the_power_stands_among_the_crash_points() -> None:
    told = page("crash-points.md")
    assert [path.name for path in (REPOSITORY / "tests" / "crash").glob("test_*.py") if path.name not in told] == []


def test_links_to_headings_lead_to_one() -> None:
    wrong = []
    for path in PAGES:
        for file, heading in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", path.read_text()):
            target = path.parent / file if file else path
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            if heading not in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}:
                wrong.append(f"{path.relative_to(REPOSITORY)} → {file}#{heading}")
    assert wrong == []


def test_the_usual_codes_are_told() -> None:
    told = page("first-mount.md").partition("Without `--k` and `--m`")[2].partition("\n")[0]
    codes = dict.fromkeys(f"{k}+{m}" for k, m in map(default_code, range(1, 20)))
    assert re.findall(r"\d+\+\d+", told) == list(codes)
