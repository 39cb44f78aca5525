import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qss.config import parse
from qss.config.write import NewConfig, NewLocation, literal, relative, render, with_values

safe_text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), safe_text)


@given(values)
def test_literals_read_back(value):
    assert tomllib.loads(f"x = {literal(value)}")["x"] == value


def new(**changes):
    locations = [
        NewLocation(f"n{i}", f"http://127.0.0.1:900{i}/bucket?region=x", {"access_key": "env:A"}, {"rack": f"r{i}"})
        for i in range(3)
    ]
    fields = {"state": "state", "key_file": "state/key", "mountpoint": "mnt", "k": 2, "m": 1}
    return NewConfig(**fields | {"locations": locations, "extra": {}} | changes)


def test_what_is_written_reads_back():
    text = render(new(extra={"cache": {"seal_after": "2s"}, "log": {"level": "debug"}}))
    settings = parse(text, Path("/x/qss.toml"), {"A": "id"})
    assert (settings.offload.k, settings.offload.m) == (2, 1)
    assert settings.state == Path("/x/state")
    assert settings.mountpoint == Path("/x/mnt")
    assert [each.name for each in settings.locations] == ["n0", "n1", "n2"]
    assert settings.locations[1].labels == {"rack": "r1"}
    assert settings.cache.seal_after_s == 2
    assert settings.log.level == "debug"


@given(safe_text, safe_text)
def test_any_path_can_be_written(state, key):
    document = tomllib.loads(render(new(state=state, key_file=key)))
    assert document["filesystem"] == {"state": state, "key_file": key, "mountpoint": "mnt"}


@given(
    st.dictionaries(st.sampled_from(["max_size", "max_age", "min_free", "other"]), values, min_size=1), st.booleans()
)
def test_an_edit_changes_only_what_it_names(changes, twice):
    text = render(new())
    before = tomllib.loads(text)
    after = tomllib.loads(with_values(with_values(text, "retention", changes) if twice else text, "retention", changes))
    assert after.pop("retention") == before.pop("retention") | changes
    assert after == before


def test_an_edit_keeps_comments_and_order():
    text = '# top\n[retention]\n# max_size = "10G"  # local copies\nmax_age = "7d" # a week\n\n[log]\nlevel = "info"\n'
    edited = with_values(text, "retention", {"max_size": "1G", "max_age": "1d"})
    assert edited == (
        '# top\n[retention]\nmax_size = "1G"  # local copies\nmax_age = "1d" # a week\n\n[log]\nlevel = "info"\n'
    )


def test_a_missing_section_is_added():
    assert tomllib.loads(with_values("x = 1", "log", {"level": "info"})) == {"x": 1, "log": {"level": "info"}}


def test_relative():
    assert relative(Path("/a/b/c"), Path("/a")) == "b/c"
    assert relative(Path("/b"), Path("/a")) == "/b"
