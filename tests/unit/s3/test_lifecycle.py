"""Lifecycle rules: documents ↔ rules, and what is due when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.s3.backend import StoredObject, Upload, VersionEntry
from qss.s3.errors import Code, S3Error
from qss.s3.lifecycle import Filter, Rule, Standing, Standings, due, rounded_ns, stale
from qss.s3.lifecycle_documents import rules_body, rules_document, rules_of
from qss.s3.lock import DAY_NS

HOUR_NS = DAY_NS // 24


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def entry(
    modified_ns: int = 0, *, key: str = "k", size: int = 10, latest: bool = True, marker: bool = False
) -> VersionEntry:
    return VersionEntry(StoredObject(key, size, "e", modified_ns, version_id="v"), latest, marker)


def test_days_end_at_midnight() -> None:
    """The user guide's own example."""
    assert rounded_ns(ns("2014-01-15T10:30:00"), 3, DAY_NS) == ns("2014-01-19T00:00:00")
    assert rounded_ns(ns("2014-01-15T00:00:00"), 1, DAY_NS) == ns("2014-01-16T00:00:00")


@pytest.mark.parametrize(
    ("rule", "standing", "first_ns"),
    [
        (Rule("r", True, days=1), Standing(entry(HOUR_NS), None), 2 * DAY_NS),
        (Rule("r", True, date_ns=5 * DAY_NS), Standing(entry(HOUR_NS), None), 5 * DAY_NS),
        (Rule("r", False, days=1), Standing(entry(HOUR_NS), None), None),
        (Rule("r", True, noncurrent_days=1), Standing(entry(HOUR_NS), None), None),
        (Rule("r", True, days=1), Standing(entry(latest=False), HOUR_NS), None),
        (Rule("r", True, noncurrent_days=2), Standing(entry(latest=False), HOUR_NS), 3 * DAY_NS),
        (Rule("r", True, noncurrent_days=1), Standing(entry(latest=False, marker=True), HOUR_NS), 2 * DAY_NS),
        (Rule("r", True, noncurrent_days=1, newer_kept=2), Standing(entry(latest=False), HOUR_NS, 1), None),
        (Rule("r", True, noncurrent_days=1, newer_kept=2), Standing(entry(latest=False), HOUR_NS, 2), 2 * DAY_NS),
        (Rule("r", True, lone_markers=True), Standing(entry(marker=True), None, alone=True), 0),
        (Rule("r", True, lone_markers=True), Standing(entry(marker=True), None), None),
        (Rule("r", True, lone_markers=True), Standing(entry(), None, alone=True), None),
        (Rule("r", True, days=1), Standing(entry(HOUR_NS, marker=True), None, alone=True), 2 * DAY_NS),
        (Rule("r", True, days=1), Standing(entry(HOUR_NS, marker=True), None), None),
        (Rule("r", True, abort_days=1), Standing(entry(), None, alone=True), None),
    ],
)
def test_due_from_then_on(rule: Rule, standing: Standing, first_ns: int | None) -> None:
    for now_ns in range(0, 8 * DAY_NS, HOUR_NS):
        assert bool(list(due([rule], standing, now_ns, DAY_NS))) == (first_ns is not None and now_ns >= first_ns)


@pytest.mark.parametrize(
    ("found", "of", "taken"),
    [
        (Filter(), entry(), True),
        (Filter("k"), entry(), True),
        (Filter("l"), entry(), False),
        (Filter(larger_than=10), entry(), False),
        (Filter(larger_than=9), entry(), True),
        (Filter(smaller_than=10), entry(), False),
        (Filter(smaller_than=11), entry(), True),
        (Filter("k"), entry(marker=True), True),
        (Filter(smaller_than=11), entry(marker=True), False),
        (Filter(tags=(("a", "1"),)), entry(marker=True), False),
        (Filter(tags=(("a", "1"),)), entry(), True),  # tags are looked at later
    ],
)
def test_filters(found: Filter, of: VersionEntry, taken: bool) -> None:
    assert found.takes(of) is taken


def test_tags_have_all_to_be_there() -> None:
    wanted = Filter(tags=(("a", "1"), ("b", "2")))
    assert wanted.takes_tags((("b", "2"), ("c", "3"), ("a", "1")))
    assert not wanted.takes_tags((("a", "1"), ("b", "3")))


def test_stale_uploads() -> None:
    rules = [Rule("r", True, Filter("k"), abort_days=1)]
    for key, now_ns, wanted in (("k1", 2 * DAY_NS, True), ("k1", 2 * DAY_NS - 1, False), ("x", 9 * DAY_NS, False)):
        assert stale(rules, Upload(key, "id", HOUR_NS), now_ns, DAY_NS) is wanted


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), unique=True, max_size=12), st.data())
def test_standings_say_what_the_whole_list_says(made: list[tuple[str, int]], data: st.DataObject) -> None:
    ordered = [entry(at, key=key) for key, at in sorted(made, key=lambda one: (one[0], -one[1]))]
    told, standings = [], Standings()
    for index, one in enumerate(ordered):
        told.append(standings.take(one))
        same = [each for each in ordered[: index + 1] if each.object.key == one.object.key]
        if data.draw(st.booleans()):  # a listing that began this key anew
            told += [standings.take(again) for again in same]
    told.append(standings.end())
    found = [each for each in told if each is not None]
    assert [each.entry for each in found] == ordered
    for each in found:
        versions = [one for one in ordered if one.object.key == each.entry.object.key]
        place = versions.index(each.entry)
        assert each.successor_ns == (versions[place - 1].object.modified_ns if place else None)
        assert each.newer == max(place - 1, 0)
        assert each.alone == (len(versions) == 1)


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
small = st.integers(1, 1000)
filters = st.builds(
    Filter,
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=10),
    st.lists(st.tuples(texts, texts), unique_by=lambda tag: tag[0], max_size=3).map(tuple),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(200, 1000),
)
rules = st.one_of(
    st.builds(Rule, texts, st.booleans(), filters, days=small, noncurrent_days=small, newer_kept=st.integers(0, 100)),
    st.builds(Rule, texts, st.booleans(), filters, date_ns=small.map(lambda day: day * DAY_NS)),
    st.builds(
        Rule,
        texts,
        st.booleans(),
        st.builds(Filter, texts, old_style=st.booleans()),
        lone_markers=st.booleans(),
        abort_days=small,
    ),
)


@given(st.lists(rules, unique_by=lambda rule: rule.id, min_size=1, max_size=4).map(tuple))
def test_documents_round_trip(wanted: tuple[Rule, ...]) -> None:
    assert rules_body(rules_document(wanted)) == wanted


def of(*content: str) -> bytes:
    listed = "".join(f"<Rule>{each}</Rule>" for each in content)
    return f"<LifecycleConfiguration>{listed}</LifecycleConfiguration>".encode()


ON = "<Status>Enabled</Status>"
ALL = "<Filter/>"
DAYS = "<Expiration><Days>1</Days></Expiration>"


def test_rules_without_a_name_get_one() -> None:
    one, two = rules_body(of(f"{ON}{ALL}{DAYS}", f"{ON}<Filter><Prefix>x</Prefix></Filter>{DAYS}"))
    assert one.id != two.id
    assert rules_body(rules_document([one, two])) == (one, two)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ((), Code.MALFORMED_XML),
        ((f"{ALL}{DAYS}",), Code.MALFORMED_XML),
        ((f"<Status>enabled</Status>{ALL}{DAYS}",), Code.MALFORMED_XML),
        ((f"{ON}{DAYS}",), Code.MALFORMED_XML),
        ((f"{ON}{ALL}<Prefix/>{DAYS}",), Code.MALFORMED_XML),
        ((f"{ON}{ALL}",), Code.INVALID_REQUEST),
        ((f"{ON}{ALL}{DAYS.replace('1', '0')}",), Code.INVALID_ARGUMENT),
        ((f"{ON}{ALL}{DAYS.replace('1', 'x')}",), Code.MALFORMED_XML),
        ((f"{ON}{ALL}<Expiration/>",), Code.MALFORMED_XML),
        ((f"{ON}{ALL}<Expiration><Days>1</Days><Date>2030-01-01T00:00:00Z</Date></Expiration>",), Code.MALFORMED_XML),
        ((f"{ON}{ALL}<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>",), Code.INVALID_ARGUMENT),
        ((f"{ON}{ALL}<Expiration><Date>soon</Date></Expiration>",), Code.MALFORMED_XML),
        ((f"<ID>{'i' * 256}</ID>{ON}{ALL}{DAYS}",), Code.INVALID_ARGUMENT),
        ((f"<ID>a</ID>{ON}{ALL}{DAYS}",) * 2, Code.INVALID_ARGUMENT),
        ((f"{ON}{ALL}{DAYS}<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>",),
         Code.NOT_IMPLEMENTED),
        ((f"{ON}<Filter><Prefix>a</Prefix><ObjectSizeLessThan>1</ObjectSizeLessThan></Filter>{DAYS}",),
         Code.MALFORMED_XML),
        ((f"{ON}<Filter><Odd/></Filter>{DAYS}",), Code.MALFORMED_XML),
        ((f"{ON}<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>"
          "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>",),
         Code.INVALID_REQUEST),
        ((f"{ON}{ALL}<NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>",),
         Code.INVALID_ARGUMENT),
    ],
)  # fmt: skip
def test_documents_to_refuse(content: tuple[str, ...], code: Code) -> None:
    with pytest.raises(S3Error) as caught:
        rules_body(of(*content))
    assert caught.value.code is code


def test_a_stored_document_that_does_not_read_is_damage() -> None:
    with pytest.raises(CorruptData):
        rules_of(b"<Lifecycle")
