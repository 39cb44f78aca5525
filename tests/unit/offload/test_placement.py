"""Placement keeps its promises for any locations and any policy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.errors import ConfigInvalid, TooFewShards
from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.placement import LocationFacts, PlacementPolicy, check_policy, place, spares

FREE = PlacementPolicy()
FROZEN = ["site-5", "site-2", "site-3", "site-7", "site-4", "site-6"]


def sites(count: int, per_region: int = 0) -> list[LocationFacts]:
    labels = [{"region": f"r{number // per_region}"} if per_region else {} for number in range(count)]
    return [LocationFacts(LocationId(f"site-{number}"), labels=labels[number]) for number in range(count)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[SegmentId, int, list[LocationFacts], PlacementPolicy]:
    count = draw(st.integers(1, 30))
    locations = [
        LocationFacts(
            LocationId(f"l{number}"),
            draw(st.floats(0.001, 1e15)),
            draw(st.dictionaries(st.sampled_from(["region", "rack"]), st.sampled_from("abcd"))),
            draw(st.integers(0, 9)) > 0,
        )
        for number in range(count)
    ]
    policy = PlacementPolicy(draw(st.dictionaries(st.sampled_from(["region", "rack"]), st.integers(1, 4))))
    return SegmentId(draw(st.integers(1, 2**63))), draw(st.integers(1, count)), locations, policy


def keeps(chosen: list[LocationId], locations: list[LocationFacts], policy: PlacementPolicy) -> bool:
    by_name = {facts.location: facts for facts in locations}
    return all(
        count <= limit
        for label, limit in policy.max_per_domain.items()
        for count in Counter(by_name[c].labels[label] for c in chosen if label in by_name[c].labels).values()
    )


@settings(max_examples=300)
@given(problems())
def test_promises(problem: tuple[SegmentId, int, list[LocationFacts], PlacementPolicy]) -> None:
    segment, count, locations, policy = problem
    try:
        chosen = place(segment, count, locations, policy)
    except TooFewShards:
        return
    assert len(chosen) == count == len(set(chosen))
    assert keeps(chosen, locations, policy)
    assert set(chosen) <= {facts.location for facts in locations if facts.usable}
    assert place(segment, count, list(reversed(locations)), policy) == chosen  # the order of configuration is nothing


@settings(max_examples=200)
@given(problems())
def test_spares_keep_the_policy(problem: tuple[SegmentId, int, list[LocationFacts], PlacementPolicy]) -> None:
    segment, count, locations, policy = problem
    try:
        chosen = place(segment, count, locations, policy)
    except TooFewShards:
        return
    kept = {ShardNo(number): location for number, location in enumerate(chosen[1:])}
    extra = spares(segment, kept, locations, policy)
    assert chosen[0] in extra  # where it was is always a possibility
    for location in extra:
        assert location not in kept.values()
        assert keeps([*kept.values(), location], locations, policy)


@given(st.integers(1, 10), st.integers(0, 5), st.integers(1, 2**40), st.data())
def test_any_m_locations_lost_leave_k_shards(k: int, m: int, segment: int, data: st.DataObject) -> None:
    locations = sites(k + m + data.draw(st.integers(0, 5)))
    chosen = place(SegmentId(segment), k + m, locations, FREE)
    lost = data.draw(st.lists(st.sampled_from(chosen), min_size=m, max_size=m, unique=True))
    assert len(set(chosen) - set(lost)) >= k


@pytest.mark.parametrize(("k", "m", "limit"), [(4, 2, 2), (4, 2, 1), (10, 4, 4), (6, 3, 3)])
def test_any_domain_the_policy_covers_may_be_lost(k: int, m: int, limit: int) -> None:
    locations = sites(40, per_region=4)
    policy = PlacementPolicy({"region": limit})
    if limit * 10 < k + m:
        pytest.skip("cannot be placed")
    for segment in range(1, 200):
        chosen = place(SegmentId(segment), k + m, locations, policy)
        regions = Counter(facts.labels["region"] for facts in locations if facts.location in chosen)
        assert max(regions.values()) <= limit <= m


def test_one_location_more_moves_only_what_it_takes() -> None:
    before, after = sites(12), sites(13)
    moved = 0
    for segment in range(1, 1001):
        old = set(place(SegmentId(segment), 6, before, FREE))
        new = set(place(SegmentId(segment), 6, after, FREE))
        assert new - old <= {LocationId("site-12")}
        moved += len(new - old)
    assert 1000 * 6 / 13 * 0.85 < moved < 1000 * 6 / 13 * 1.15


def test_one_location_less_moves_only_what_it_held() -> None:
    before = sites(12)
    after = [replace(facts, usable=facts.location != "site-3") for facts in before]
    for segment in range(1, 501):
        old = place(SegmentId(segment), 6, before, FREE)
        new = place(SegmentId(segment), 6, after, FREE)
        assert set(old) - set(new) <= {LocationId("site-3")}


def test_load_follows_weight() -> None:
    locations = [replace(facts, weight=2.0 if number < 5 else 1.0) for number, facts in enumerate(sites(20))]
    held = Counter(place(SegmentId(segment), 1, locations, FREE)[0] for segment in range(1, 20_001))
    heavy = sum(held[facts.location] for facts in locations[:5]) / 5
    light = sum(held[facts.location] for facts in locations[5:]) / 15
    assert 1.8 < heavy / light < 2.2


def test_with_just_enough_locations_parity_goes_round() -> None:
    locations = sites(6)
    orders = [place(SegmentId(segment), 6, locations, FREE) for segment in range(1, 3001)]
    for number in range(6):
        at = Counter(order[number] for order in orders)
        assert len(at) == 6
        assert 400 < min(at.values()) <= max(at.values()) < 600


def test_the_choice_is_frozen() -> None:
    """Repair asks again where a segment belongs, perhaps years later: the answer must not change with a release."""
    assert place(SegmentId(1), 6, sites(9), FREE) == FROZEN


def test_too_few_now_is_a_sentence() -> None:
    locations = [replace(facts, usable=number > 1) for number, facts in enumerate(sites(6))]
    with pytest.raises(TooFewShards, match="6 shards need 6 locations, but only 4"):
        place(SegmentId(1), 6, locations, FREE)
    with pytest.raises(TooFewShards, match="region"):
        place(SegmentId(1), 6, sites(8, per_region=4), PlacementPolicy({"region": 2}))


def test_check_policy() -> None:
    assert check_policy(4, 2, sites(6), FREE) == []
    with pytest.raises(ConfigInvalid, match="6 locations, but there are 5"):
        check_policy(4, 2, sites(5), FREE)
    with pytest.raises(ConfigInvalid, match="region"):
        check_policy(4, 2, sites(8, per_region=4), PlacementPolicy({"region": 2}))
    assert check_policy(4, 2, sites(9, per_region=3), PlacementPolicy({"region": 2})) == []
    assert "losing one region" in check_policy(4, 2, sites(6, per_region=3), PlacementPolicy({"region": 3}))[0]
    with pytest.raises(ConfigInvalid, match="at least 1"):
        check_policy(4, 2, sites(6), PlacementPolicy({"region": 0}))
    with pytest.raises(ConfigInvalid, match="named 'site-0'"):
        check_policy(1, 1, [*sites(2), *sites(1)], FREE)
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigInvalid, match="weight"):
            check_policy(1, 1, [replace(facts, weight=weight) for facts in sites(2)], FREE)


def test_a_down_location_does_not_make_the_configuration_wrong() -> None:
    assert check_policy(4, 2, [replace(facts, usable=False) for facts in sites(6)], FREE) == []


def test_a_thousand_locations_are_hashed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    def counted(data: bytes) -> object:
        hashed.append(data)
        return blake3(data)

    monkeypatch.setattr("qss.offload.placement.blake3", counted)
    chosen = place(SegmentId(1), 256, sites(1000, per_region=5), PlacementPolicy({"region": 2}))
    assert len(set(chosen)) == 256
    assert len(hashed) == 1000


def _small_worlds() -> Iterator[tuple[int, int, list[LocationFacts], PlacementPolicy]]:
    """Every k, m and policy for one label over every way to spread up to 7 locations over up to 3 racks."""
    for racks in ("aabb", "abc", "aabbc", "aabbcc", "aaabbc", "abcabca", "aaaabbc"):
        locations = [LocationFacts(LocationId(f"l{n}"), labels={"rack": rack}) for n, rack in enumerate(racks)]
        for k, m, limit in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3)):
            if k + m <= len(locations):
                yield k, m, locations, PlacementPolicy({"rack": limit})


def test_whatever_is_lost_leaves_k_shards_in_every_small_world() -> None:
    """Exhaustive: any m locations, and, where the policy covers it, any one rack. What cannot be kept is refused when
    it is configured; what is accepted can be placed for every segment."""
    accepted = refused = 0
    for k, m, locations, policy in _small_worlds():
        try:
            warnings = check_policy(k, m, locations, policy)
        except ConfigInvalid:
            racks = Counter(facts.labels["rack"] for facts in locations).values()
            assert sum(min(count, policy.max_per_domain["rack"]) for count in racks) < k + m, "it could be placed"
            refused += 1
            continue
        accepted += 1
        covered = policy.max_per_domain["rack"] <= m
        assert covered == (not warnings)
        for segment in range(1, 12):
            chosen = set(place(SegmentId(segment), k + m, locations, policy))
            for lost in itertools.combinations(chosen, m):
                assert len(chosen.difference(lost)) >= k
            for rack in "abc" if covered else "":
                left = [f for f in locations if f.location in chosen and f.labels["rack"] != rack]
                assert len(left) >= k
    assert accepted > 40
    assert refused > 20


@settings(max_examples=200)
@given(problems(), st.data())
def test_a_change_of_one_location_moves_at_most_what_it_must(
    problem: tuple[SegmentId, int, list[LocationFacts], PlacementPolicy], data: st.DataObject
) -> None:
    """No policy: one that leaves takes its own shard along and no other moves; read backwards: one that comes."""
    segment, count, locations, _ = problem
    locations = [replace(facts, usable=True) for facts in locations]
    other = data.draw(st.sampled_from(locations)).location
    fewer = [replace(facts, leaving=facts.location == other) for facts in locations]
    whole = set(place(segment, count, locations, FREE))
    try:
        without = set(place(segment, count, fewer, FREE))
    except TooFewShards:
        assert count == len(locations)
        return
    assert other not in without
    assert whole - without == whole & {other}
    assert len(without - whole) == len(whole & {other})


def test_a_leaving_location_is_not_counted_on() -> None:
    leaving = [replace(facts, leaving=number == 0) for number, facts in enumerate(sites(6))]
    with pytest.raises(ConfigInvalid, match="6 locations, but there are 5"):
        check_policy(4, 2, leaving, FREE)
    assert check_policy(4, 1, leaving, FREE) == []
