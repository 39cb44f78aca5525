import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss import errors
from qss.control.messages import (
    Failure,
    LineSplitter,
    Progress,
    RemoteBug,
    Reply,
    Request,
    decode,
    encode,
    error_of,
    failure_of,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
json_objects = st.dictionaries(st.text(), json_values)
messages = st.one_of(
    st.builds(Request, st.integers(), st.text(), json_objects),
    st.builds(Reply, st.integers(), json_values),
    st.builds(Failure, st.none() | st.integers(), st.integers(), st.text(), json_objects),
    st.builds(Progress, st.integers(), json_objects),
)


@given(messages)
def test_round_trip(message):
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == message


@given(st.binary())
def test_any_bytes_are_a_message_or_corrupt(data):
    with contextlib.suppress(errors.CorruptData):
        decode(data)


@given(json_values)
def test_any_json_is_a_message_or_corrupt(value):
    import json

    for body in (value, {"jsonrpc": "2.0", "id": value, "method": value}, {"jsonrpc": "2.0", "id": 1, "error": value}):
        with contextlib.suppress(errors.CorruptData):
            decode(json.dumps(body).encode())


def test_deep_nesting_is_corrupt_and_no_crash():
    with pytest.raises(errors.CorruptData):
        decode(b"[" * 200_000)


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.integers(1, 7))
def test_splitter_gives_lines_however_they_arrive(lines, step):
    data = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    got = [line for at in range(0, len(data), step) for line in splitter.feed(data[at : at + step])]
    assert got == lines


@pytest.mark.parametrize("data", [b"x" * 11, b"x" * 11 + b"\n", b"ok\n" + b"x" * 11])
def test_splitter_refuses_long_lines(data):
    with pytest.raises(errors.CorruptData):
        LineSplitter(10).feed(data)


def test_every_error_class_survives_the_trip():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.QssError)]
    for kind in classes:
        if kind is errors.QssError:
            continue
        if issubclass(kind, errors.NoSpace):
            error = kind("disk")
        elif issubclass(kind, errors.FsError):
            error = kind(5)
        else:
            error = kind("why")
        back = error_of(decode(encode(failure_of(1, error))))
        assert str(back) == str(error)
        if isinstance(error, errors.FsError):
            assert isinstance(back, errors.FsError)
            assert back.errno == error.errno
        else:
            assert type(back) is kind


def test_retry_after_is_carried():
    back = error_of(failure_of(1, errors.Busy("later", retry_after_s=2.5)))
    assert isinstance(back, errors.Busy)
    assert back.retry_after_s == 2.5


def test_subclasses_from_elsewhere_become_the_nearest_known_class():
    class Special(errors.AccessDenied):
        pass

    assert type(error_of(failure_of(1, Special("no")))) is errors.AccessDenied


def test_unknown_failures_are_remote_bugs():
    assert type(error_of(Failure(1, -32603, "boom"))) is RemoteBug
    assert type(error_of(Failure(1, -32000, "boom", {"class": "Nonsense"}))) is RemoteBug
