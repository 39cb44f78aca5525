"""Edits of [[location]] sections change what they say and nothing else, or are refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.config import parse
from qss.config.write import NewLocation
from qss.config.write_locations import name_of, with_location, with_location_value, without_location
from qss.errors import ConfigInvalid

TEXT = """\
# ours
[code]
k = 2
m = 1

# the first
[[location]]
name = "a"  # in the cellar
url = "http://127.0.0.1:9001/bucket"

[[location]]
url = "http://127.0.0.1:9002/bbb?region=x"  # no name: the bucket
labels = { rack = "[[location]]" }

# the third
# is far away
[[location]]
url = "http://127.0.0.1:9003/bucket?name=c"
weight = 2.0

[log]  # what we want to know
level = "info"
"""
NEW = NewLocation("d", "http://127.0.0.1:9004/bucket", {"access_key": "env:A"}, {"rack": "r4"})


def names(text: str) -> list[str]:
    return [name_of(table) for table in tomllib.loads(text)["location"]]


def test_names_are_those_that_are_meant() -> None:
    assert names(TEXT) == ["a", "bbb", "c"]
    assert names(TEXT) == [each.name for each in parse(TEXT, Path("/x/qss.toml"), {}).locations]


def test_adding_keeps_every_line() -> None:
    after = with_location(TEXT, NEW)
    assert after.startswith(TEXT)
    assert names(after) == ["a", "bbb", "c", "d"]
    assert dict(parse(after, Path("/x/qss.toml"), {"A": "id"}).locations[3].labels) == {"rack": "r4"}


@pytest.mark.parametrize("name", ["a", "bbb", "c"])
def test_removing_takes_the_section_and_what_is_said_of_it(name: str) -> None:
    after = without_location(TEXT, name)
    gone = [line for line in TEXT.split("\n") if line not in after.split("\n")]
    assert names(after) == [each for each in ["a", "bbb", "c"] if each != name]
    assert all("code" not in line and "log" not in line and "ours" not in line for line in gone)
    assert ("# the third" in after) == (name != "c")
    assert ("# the first" in after) == (name != "a")


@pytest.mark.parametrize("name", ["a", "bbb", "c"])
def test_a_state_is_set_and_taken_away(name: str) -> None:
    draining = with_location_value(TEXT, name, "state", "draining")
    settings = parse(TEXT.replace("m = 1", "m = 0"), Path("/x/qss.toml"), {})
    assert not any(each.draining for each in settings.locations)
    after = parse(draining.replace("m = 1", "m = 0"), Path("/x/qss.toml"), {})
    assert [each.name for each in after.locations if each.draining] == [name]
    assert with_location_value(draining, name, "state", "draining") == draining
    assert with_location_value(draining, name, "state", None) == TEXT


def test_what_was_added_can_be_removed() -> None:
    assert without_location(with_location(TEXT, NEW), "d").rstrip() == TEXT.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        'location = [{ url = "http://127.0.0.1:9001/a" }]\n',
        'x = """\n[[location]]\n"""\n[[location]]\nurl = "http://127.0.0.1:9001/a"\n',
    ],
)
def test_what_is_written_in_another_way_is_left_to_people(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="by hand"):
        without_location(text, "a")


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigInvalid, match="a, bbb, c"):
        without_location(TEXT, "z")


@given(st.lists(st.sampled_from(["# word", "", 'x = "y"', "[section]", "[[other]]"]), max_size=6), st.integers(0, 3))
def test_any_file_keeps_all_else(lines: list[str], at: int) -> None:
    sections = [f'[[location]]\nname = "n{n}"\nurl = "http://127.0.0.1:900{n}/bucket"\n' for n in range(3)]
    text = "\n".join([*sections[:at], *(f"\n[s{n}]\n{line}" for n, line in enumerate(lines) if line[:1] != "["),
                      *sections[at:]])  # fmt: skip
    before = tomllib.loads(text)
    for edit in (lambda t: without_location(t, "n1"), lambda t: with_location_value(t, "n1", "weight", 3.0)):
        after = tomllib.loads(edit(text))
        assert {k: v for k, v in after.items() if k != "location"} == {
            k: v for k, v in before.items() if k != "location"
        }
        others = [table for table in before["location"] if table["name"] != "n1"]
        assert [table for table in after["location"] if table["name"] != "n1"] == others
