import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.config import find_config, load, parse
from qss.config.read import SECTIONS, uncovered
from qss.errors import ConfigInvalid
from qss.limits import GIB, MIB

SOURCE = Path("/etc/qss/qss.toml")
LOCATIONS = "\n".join(f'[[location]]\nurl = "http://127.0.0.1:900{n}/bucket-{n}"' for n in range(6))


def refusal(text, environ=None, source=SOURCE):
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, source, environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults():
    settings = parse(LOCATIONS, SOURCE, {})
    assert (settings.offload.k, settings.offload.m) == (4, 2)
    assert settings.state == Path("/etc/qss/state")
    assert settings.key_file == Path("/etc/qss/state/key")
    assert settings.run_dir == Path("/etc/qss/state/run")
    assert [each.name for each in settings.locations] == [f"bucket-{n}" for n in range(6)]
    assert settings.mountpoint is None


def test_values():
    settings = parse(
        '[filesystem]\nstate = "/var/qss"\nkey_file = "k"\nmountpoint = "mnt"\n'
        '[code]\nk = 2\nm = 1\n[cache]\nsegment_size = "16M"\nseal_after = "2s"\n'
        '[retention]\nmax_size = "1G"\nmax_age = "7d"\n[offload]\nmax_per_domain = { rack = 1 }\n'
        '[mount]\nallow_other = true\n[hooks]\ndir = "h"\n[log]\nlevel = "debug"\n' + LOCATIONS,
        SOURCE,
        {},
    )
    assert settings.state == Path("/var/qss")
    assert settings.key_file == Path("/etc/qss/k")
    assert settings.mountpoint == Path("/etc/qss/mnt")
    assert (settings.offload.k, settings.offload.m, settings.offload.max_per_domain) == (2, 1, {"rack": 1})
    assert settings.cache.segment_bytes == 16 * MIB
    assert settings.cache.retention.size_bytes_max == GIB
    assert settings.cache.retention.age_s_max == 604_800
    assert settings.mount.allow_other
    assert settings.hooks.folder == Path("/etc/qss/h")


def test_location_urls():
    text = (
        '[code]\nk = 1\nm = 0\n[[location]]\nname = "a"\nurl = "https://s3.example:9000/bucket/some/prefix?region=eu"\n'
        'access_key = "env:A"\nsecret_key = "env:S"\nlabels = { rack = "r1" }\nweight = 2'
    )
    (location,) = parse(text, SOURCE, {"A": "id", "S": "hush"}).locations
    assert (location.endpoint, location.bucket, location.prefix) == ("https://s3.example:9000", "bucket", "some/prefix")
    assert (location.region, location.access_key, location.secret_key) == ("eu", "id", "hush")
    assert (location.labels, location.weight) == ({"rack": "r1"}, 2.0)
    assert "hush" not in repr(location)
    assert not location.metered
    (location,) = parse(text + "\nmetered = true", SOURCE, {"A": "id", "S": "hush"}).locations
    assert location.metered
    (location,) = parse(text.replace("?region=eu", "?metered=true"), SOURCE, {"A": "id", "S": "hush"}).locations
    assert location.metered
    assert "metered must be true or false" in refusal(text.replace("?region=eu", "?metered=1"))


def test_credentials_default_to_the_environment():
    (location, *_) = parse(LOCATIONS, SOURCE, {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s"}).locations
    assert (location.access_key, location.secret_key) == ("id", "s")


def test_unknown_keys_name_the_nearest():
    assert refusal("[cahce]") == 'qss.toml: "cahce" is not known; did you mean "cache"?'
    assert refusal('[cache]\nsegmentsize = "1G"').endswith('"segmentsize" is not known; did you mean "segment_size"?')
    assert 'did you mean "secret_key_file"' in refusal('[[location]]\nsecret_file = "x"\n')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[cache]\nsegment_size = "1X"', "is not a size"),
        ("[cache]\nsegment_size = 1", "out of range"),
        ("[cache]\nseal_after = true", "is not a duration"),
        ('[code]\nk = "4"', "whole number"),
        ("[code]\nk = 0", "whole number"),
        ("cache = 1", "section"),
        ("[location]", "[[location]]"),
        ("[[location]]", "needs url"),
        ('[[location]]\nurl = "ftp://x/bucket"', "S3 address"),
        ('[[location]]\nurl = "http://x:99999/bucket"', "does not hold"),
        ('[[location]]\nurl = "http://x/"', "names no bucket"),
        ('[[location]]\nurl = "http://u:p@x/bucket"', "no user and password"),
        ('[[location]]\nurl = "http://x/bucket?region=a&sekret=b"', "did you mean"),
        ('[[location]]\nname = "a/b"\nurl = "http://x/bucket"', "is no name"),
        ('[[location]]\nsecret_key = "env:NOPE"\nurl = "http://x/bucket"', "NOPE is not set"),
        ("x = ", "is not TOML"),
        ("[retention]\npaths = 1", "write sections"),
        ('[retention.paths."videos"]\nmax_age = "1h"', "from the root"),
        ('[retention.paths."/videos"]\nmin_free = "1G"', "did you mean"),
        ("", "at least 6 locations, and there are 0"),
        (LOCATIONS.replace("9001/bucket-1", "9000/bucket-0?name=z"), "same address"),
        (LOCATIONS.replace("bucket-1", "bucket-0"), "same name"),
        ("[offload]\nmargin = 3\n" + LOCATIONS, "margin must be"),
        ("[code]\nk = 200\nm = 100\n" + LOCATIONS, "at most 256"),
    ],
)
def test_refusals_are_one_sentence(text, says):
    assert says in refusal(text)


def test_a_secret_is_never_shown():
    for text in (
        '[[location]]\nurl = "http://x/bucket?secret_key=hush"',
        "[[location]]\nsecret_key = 123456\n",
        '[[location]]\nurl = "http://x?secret_key=hush"',
    ):
        message = refusal(text)
        assert "hush" not in message
        assert "123456" not in message


@given(st.text())
def test_any_text_is_settings_or_refused(text):
    with contextlib.suppress(ConfigInvalid):
        parse(text, SOURCE, {})


scalars = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}))


@given(st.sampled_from(SECTIONS), st.data())
def test_any_value_of_any_key_is_read_or_refused(section, data):
    from qss.config import schema
    from qss.config.write import literal

    tables = {
        "filesystem": schema.filesystem(Path("/x")), "code": schema.CODE, "cache": schema.CACHE,
        "retention": schema.RETENTION, "offload": schema.OFFLOAD, "mount": schema.MOUNT,
        "snapshots": schema.SNAPSHOTS,
        "hooks": schema.hooks(Path("/x")), "log": schema.logs(Path("/x")), "location": schema.location(Path("/x")),
    }  # fmt: skip
    key = data.draw(st.sampled_from(sorted(tables[section])))
    value = data.draw(scalars)
    text = "{}" if value == {} else literal(value).replace("NaN", "nan").replace("Infinity", "inf")
    header = "[[location]]" if section == "location" else f"[{section}]"
    with contextlib.suppress(ConfigInvalid):
        parse(f"{header}\n{key} = {text}\n", SOURCE, {})


def test_every_option_can_be_set():
    assert uncovered() == {
        "CacheOptions": {"retention", "safe_missing_max", "history_s"},  # the last two follow from [offload]
        "RetentionOptions": set(),
        "OffloadOptions": set(),
        "MountSettings": set(),
    }


def test_a_file_with_a_secret_must_be_private(tmp_path):
    path = tmp_path / "qss.toml"
    path.write_text(LOCATIONS.replace("[[location]]", '[[location]]\nsecret_key = "hush"', 1))
    path.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        load(path, {})
    path.chmod(0o600)
    assert load(path, {}).locations[0].secret_key == "hush"
    path.write_text(LOCATIONS.replace("[[location]]", '[[location]]\nsecret_key = "env:X"', 1))
    path.chmod(0o644)
    assert load(path, {"X": "y"}).locations[0].secret_key == "y"


def test_a_secret_file_must_be_private_and_there(tmp_path):
    path = tmp_path / "qss.toml"
    path.write_text(LOCATIONS.replace("[[location]]", '[[location]]\nsecret_key_file = "s"', 1))
    with pytest.raises(ConfigInvalid, match="is not at"):
        load(path, {})
    (tmp_path / "s").write_text("hush")
    (tmp_path / "s").chmod(0o640)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        load(path, {})
    (tmp_path / "s").chmod(0o600)
    assert load(path, {}).locations[0].secret_file == tmp_path / "s"


def test_where_the_file_is_found(tmp_path):
    home, here, named, variable = (tmp_path / name for name in ("home", "here", "named.toml", "variable.toml"))
    (home / ".config" / "qss").mkdir(parents=True)
    here.mkdir()
    environ = {"HOME": str(home)}
    with pytest.raises(ConfigInvalid, match="no configuration file: name one with --config"):
        find_config(None, environ, here)
    for path in (home / ".config" / "qss" / "qss.toml", here / "qss.toml"):
        path.touch()
        assert find_config(None, environ, here) == path
    variable.touch()
    assert find_config(None, environ | {"QSS_CONFIG": str(variable)}, here) == variable
    with pytest.raises(ConfigInvalid, match=r"there is no configuration file .*named"):
        find_config(named, environ, here)
    named.touch()
    assert find_config(named, environ | {"QSS_CONFIG": str(variable)}, here) == named


def test_settings_are_frozen():
    settings = parse(LOCATIONS, SOURCE, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.state = Path("/")
