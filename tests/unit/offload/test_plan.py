"""Plans of uploads and fetches, against every order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import TooFewShards
from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.placement import LocationFacts, PlacementPolicy, room_for
from qss.offload.plan import METERED_WAITS, FetchPlan, GiveUp, PutShard, Source, UploadPlan, choose_homes, rank_sources

A, B, C, D = map(LocationId, "abcd")


def sources(count: int) -> list[Source]:
    return [Source(ShardNo(n), LocationId(f"l{n}")) for n in range(count)]


def test_an_upload_that_goes_well() -> None:
    plan = UploadPlan({ShardNo(0): A, ShardNo(1): B}, [], 2)
    assert plan.start() == [PutShard(ShardNo(0), A), PutShard(ShardNo(1), B)]
    assert not plan.finished
    plan.on_placed(ShardNo(1))
    assert plan.placed == (None, B)
    plan.on_placed(ShardNo(0))
    assert plan.finished
    assert plan.enough
    assert plan.placed == (A, B)


def test_a_failed_shard_goes_to_the_spares_then_stays_missing() -> None:
    plan = UploadPlan({ShardNo(0): A, ShardNo(1): B}, [C], 1)
    plan.start()
    assert plan.on_failed(ShardNo(0)) == PutShard(ShardNo(0), C)
    assert plan.on_failed(ShardNo(0)) == GiveUp(ShardNo(0))
    assert plan.on_failed(ShardNo(1)) == GiveUp(ShardNo(1))
    assert plan.finished
    assert not plan.enough
    assert plan.placed == (None, None)


def test_homes_when_all_are_usable_and_when_too_few_are() -> None:
    facts = [LocationFacts(name) for name in (A, B, C, D)]
    homes, spares = choose_homes(SegmentId(1), 3, facts, PlacementPolicy())
    assert len(set(homes.values())) == 3
    assert set(spares) == {A, B, C, D} - set(homes.values())
    down = [LocationFacts(A), LocationFacts(B, usable=False), LocationFacts(C, usable=False), LocationFacts(D)]
    homes, spares = choose_homes(SegmentId(1), 3, down, PlacementPolicy())
    assert len(set(homes.values())) == 3
    assert set(spares) <= {A, D}
    with pytest.raises(TooFewShards):
        choose_homes(SegmentId(1), 5, facts, PlacementPolicy())


def test_sources_up_before_down_fast_before_slow_data_before_parity() -> None:
    up = {A: True, B: True, C: False, D: True}
    ranked = rank_sources((C, A, None, B, D), 2, up, {A: 0.5, B: 0.01, D: 0.01})
    assert [source.location for source in ranked] == [B, D, A, C]
    assert rank_sources((LocationId("gone"),), 1, up, {}) == []


@given(st.integers(1, 6), st.integers(0, 4), st.data())
def test_any_order_of_answers_ends_done_or_hopeless(k: int, m: int, data) -> None:
    plan = FetchPlan(k, sources(k + m))
    asked = [source.shard for source in plan.start()]
    assert len(asked) == k
    ever, good = set(asked), set()
    while not (plan.done or plan.hopeless):
        assert asked, "waiting for nobody"
        event = data.draw(st.sampled_from(["good", "bad", "slow"]))
        more = None
        if event == "slow":
            more = plan.on_slow()
            if more is None:
                event = data.draw(st.sampled_from(["good", "bad"]))
        if event != "slow":
            shard = asked.pop(data.draw(st.integers(0, len(asked) - 1)))
            if event == "good":
                good.add(shard)
                plan.on_good(shard)
            else:
                more = plan.on_bad(shard)
        if more is not None:
            assert more.shard not in ever
            ever.add(more.shard)
            asked.append(more.shard)
    assert plan.good == good
    assert plan.done == (len(good) >= k)


def test_without_trouble_only_k_are_asked() -> None:
    plan = FetchPlan(2, sources(4))
    for source in plan.start():
        plan.on_good(source.shard)
    assert plan.done
    assert plan.good == {0, 1}
    assert FetchPlan(3, sources(2)).hopeless


def test_a_spare_takes_a_shard_only_where_the_policy_allows() -> None:
    racks = {A: "r1", B: "r2", C: "r2", D: "r1"}
    facts = [LocationFacts(name, labels={"rack": rack}) for name, rack in racks.items()]
    fits = room_for(facts, PlacementPolicy({"rack": 1}))
    plan = UploadPlan({ShardNo(0): A, ShardNo(1): B}, [C, D], 1, fits=fits)
    plan.start()
    assert plan.on_failed(ShardNo(0)) == PutShard(ShardNo(0), D), "C shares a rack with B"
    assert plan.on_failed(ShardNo(0)) == GiveUp(ShardNo(0))
    assert plan.on_failed(ShardNo(1)) == PutShard(ShardNo(1), C)


def test_what_costs_money_is_asked_last_and_for_dawdling_only_after_long() -> None:
    up = dict.fromkeys((A, B, C, D), True)
    ranked = rank_sources((A, B, C, D), 2, up, {A: 0.01, B: 0.01, C: 0.5, D: 0.01}, metered={A})
    assert [source.location for source in ranked] == [B, D, C, A], "a slow one is asked before one that costs"
    plan = FetchPlan(3, ranked)
    assert A not in {source.location for source in plan.start()}
    assert [plan.on_slow() for _ in range(METERED_WAITS - 1)] == [None] * (METERED_WAITS - 1)
    plan.on_good(ShardNo(1))
    assert [plan.on_slow() for _ in range(METERED_WAITS)] == [None] * (METERED_WAITS - 1) + [ranked[-1]]
    plan = FetchPlan(3, ranked)
    plan.start()
    assert plan.on_bad(ShardNo(1)) == ranked[-1], "who fails is replaced at once"


def test_one_that_is_down_is_asked_after_one_that_costs() -> None:
    ranked = rank_sources((A, B, C), 2, {A: False, B: True, C: True}, {}, metered={B})
    assert [source.location for source in ranked] == [C, B, A]
