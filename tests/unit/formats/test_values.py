"""`quick` changes what building a value costs, and nothing else that anybody could see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import pytest

from qss.values import quick


@dataclass(frozen=True, slots=True)
class Plain:
    """Words."""

    name: str
    size: int = 3
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def double(self) -> int:
        return 2 * self.size


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    """Words."""

    name: str
    size: int = 3
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def double(self) -> int:
        return 2 * self.size


def test_it_is_built_compared_hashed_and_shown_like_any_other() -> None:
    for make in (Plain, Quick):
        one = make("a")
        assert (one.name, one.size, one.tags, one.double) == ("a", 3, {}, 6)
        assert one == make("a", 3, {})
        assert one != make("a", 4)
        assert replace(one, size=5) == make(name="a", size=5)
        assert make("a").tags is not one.tags
        assert [each.name for each in fields(make)] == ["name", "size", "tags"]
        with pytest.raises(TypeError):
            make()  # type: ignore[call-arg]
    assert hash(Quick("a", 1, ())) == hash(Plain("a", 1, ()))  # type: ignore[arg-type]
    assert repr(Quick("a")) == repr(Plain("a")).replace("Plain", "Quick")


def test_it_has_slots_and_nothing_more() -> None:
    with pytest.raises(AttributeError):
        Quick("a").other = 1  # type: ignore[attr-defined]


def test_what_checks_itself_when_it_is_built_is_refused() -> None:
    with pytest.raises(AssertionError):

        @quick
        @dataclass(frozen=True, slots=True)
        class Checked:
            size: int

            def __post_init__(self) -> None:
                raise ValueError
