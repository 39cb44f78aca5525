"""Versions, delete markers, locks and documents of a node against lists; killed, restarted, index lost, power cut."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qss.s3.backend import (
    ALWAYS,
    CreateUpload,
    DeleteRequest,
    ListQuery,
    PutRequest,
    UploadRef,
    Versioning,
    VersionsQuery,
    WantedPart,
)
from qss.s3.lock import LockChange
from qss.trove.compaction import compact_one
from tests.harness.trove_node import Bytes, PowerCutDisk, drop_dead, node

KEYS = ["a", "b", "a!", "é" * 300 + "1", "é" * 300]
SIZES = [0, 1, 4096, 70_000, 1_048_577]


@dataclass(frozen=True)
class Version:
    id: str
    data: bytes | None  # None: a delete marker
    tags: tuple[tuple[str, str], ...] = ()


class VersionsModel(RuleBasedStateMachine):
    """Two buckets, since one without versioning shares the index with one that has it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="trove-versions-"))
        self.loop = asyncio.new_event_loop()
        self.disk = PowerCutDisk()
        self.node = node(self.root / "n", self.disk)
        self.model: dict[tuple[str, str], list[Version]] = {}
        self.states: dict[str, Versioning | None] = {"one": None, "two": None}
        self.documents: dict[str, bytes] = {}
        self.locked = False
        self.seed = 0

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def make(self) -> None:
        for bucket in self.states:
            self.run(self.node.store.create_bucket(bucket, "us-east-1"))

    def fresh(self, size: int) -> bytes:
        self.seed += 1
        return random.Random(self.seed).randbytes(size)

    def add(self, bucket: str, key: str, version_id: str | None, data: bytes | None) -> None:
        """What a write of the model does. An id of None: the bucket has no versioning."""
        added = Version(version_id or "null", data)
        versions = self.model.get((bucket, key), [])
        if added.id == "null":
            versions = [each for each in versions if each.id != "null"]
        self.model[bucket, key] = [added, *versions]

    @rule(state=st.sampled_from(Versioning))
    def switch(self, state: Versioning) -> None:
        if self.locked:
            state = Versioning.ENABLED
        self.run(self.node.store.set_versioning("one", state))
        self.states["one"] = state

    @rule(bucket=st.sampled_from(["one", "two"]), key=st.sampled_from(KEYS), size=st.sampled_from(SIZES))
    def put(self, bucket: str, key: str, size: int) -> None:
        data = self.fresh(size)
        stored = self.run(self.node.store.put(PutRequest(bucket, key), Bytes(data)))
        if self.states[bucket] is not Versioning.ENABLED:
            assert stored.version_id == (None if self.states[bucket] is None else "null")
        self.add(bucket, key, stored.version_id, data)

    @rule(bucket=st.sampled_from(["one", "two"]), key=st.sampled_from(KEYS))
    def upload(self, bucket: str, key: str) -> None:
        async def all_of_it(data: bytes) -> str | None:
            store = self.node.store
            ref = UploadRef(bucket, key, (await store.create_upload(CreateUpload(bucket, key))).upload_id)
            part = await store.put_part(ref, 3, Bytes(data))
            return (await store.complete_upload(ref, [WantedPart(3, part.etag)], ALWAYS)).version_id

        data = self.fresh(3000)
        self.add(bucket, key, self.run(all_of_it(data)), data)

    @rule(bucket=st.sampled_from(["one", "two"]), key=st.sampled_from(KEYS))
    def delete(self, bucket: str, key: str) -> None:
        outcome = self.run(self.node.store.delete(bucket, [DeleteRequest(key)]))[0]
        assert outcome.error is None
        if self.states[bucket] is None:
            self.model.pop((bucket, key), None)
        else:
            self.add(bucket, key, outcome.version_id, None)

    def drawn(self, data: st.DataObject) -> tuple[str, str, int] | None:
        """A version that is there: bucket, key, place in the list."""
        places = [(*name, place) for name, versions in self.model.items() for place in range(len(versions))]
        return data.draw(st.sampled_from(places)) if places else None

    @rule(data=st.data())
    def delete_a_version(self, data: st.DataObject) -> None:
        found = self.drawn(data)
        if found is None:
            return
        bucket, key, place = found
        versions = self.model[bucket, key]
        request = DeleteRequest(key, versions[place].id)
        assert self.run(self.node.store.delete(bucket, [request]))[0].error is None
        self.model[bucket, key] = versions[:place] + versions[place + 1 :]
        if not self.model[bucket, key]:
            del self.model[bucket, key]

    @rule(data=st.data())
    def tag(self, data: st.DataObject) -> None:
        found = self.drawn(data)
        if found is None or self.model[found[:2]][found[2]].data is None:
            return
        bucket, key, place = found
        versions = self.model[bucket, key]
        self.seed += 1
        tags = (("t", str(self.seed)),)
        self.run(self.node.store.put_tags(bucket, key, tags, versions[place].id))
        versions[place] = replace(versions[place], tags=tags)

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        found = self.drawn(data)
        if self.states["one"] is not Versioning.ENABLED or found is None or found[0] == "two":
            return
        bucket, key, place = found
        versions = self.model[bucket, key]
        if versions[place].data is None:
            return
        self.run(self.node.store.set_lock("one", None))
        self.locked = True
        self.run(self.node.store.put_lock(bucket, key, LockChange(legal_hold=True), versions[place].id))
        outcome = self.run(self.node.store.delete(bucket, [DeleteRequest(key, versions[place].id)]))[0]
        assert outcome.error is not None
        self.run(self.node.store.put_lock(bucket, key, LockChange(legal_hold=False), versions[place].id))

    @rule(size=st.sampled_from([0, 5, 70_000]))
    def document(self, size: int) -> None:
        content = self.fresh(size)
        self.run(self.node.store.put_document("one", "lifecycle", content or None))
        self.documents["one"] = content

    @rule()
    def checkpoint(self) -> None:
        self.node._prune_graves()
        self.run(self.node.engine.checkpoint())

    @rule()
    def compact(self) -> None:
        self.run(compact_one(self.node.engine, 0.0, 0))

    @rule()
    def stop_and_start(self) -> None:
        self.run(self.node.aclose())
        self.node = node(self.root / "n", self.disk)
        assert not self.node.report.rebuilt

    @rule()
    def kill_and_start(self) -> None:
        drop_dead(self.node)
        self.node = node(self.root / "n", self.disk)

    @rule(seed=st.integers(0, 1000))
    def cut_the_power(self, seed: int) -> None:
        drop_dead(self.node)
        self.disk.cut_power(random.Random(seed))
        shutil.rmtree(self.root / "n" / "index")
        self.node = node(self.root / "n", self.disk)
        assert self.node.report.rebuilt

    @invariant()
    def says_what_the_model_says(self) -> None:
        if not self.node.engine.index.totals.newest:
            return
        for bucket, state in self.states.items():
            assert self.run(self.node.store.head_bucket(bucket)).versioning is state
            page = self.run(self.node.store.list_versions(VersionsQuery(bucket)))
            wanted = {key: versions for (name, key), versions in self.model.items() if name == bucket}
            assert [(each.object.key, each.object.version_id, each.marker) for each in page.entries] == [
                (key, each.id, each.data is None) for key in sorted(wanted, key=str.encode) for each in wanted[key]
            ]
            there = sorted((key for key, versions in wanted.items() if versions[0].data is not None), key=str.encode)
            listed = self.run(self.node.store.list_objects(ListQuery(bucket)))
            assert [each.key for each in listed.objects] == there
            for key, versions in wanted.items():
                for each in versions:
                    if each.data is not None:
                        self.run(self.reads(bucket, key, each))
        bodies = [each.data for versions in self.model.values() for each in versions if each.data is not None]
        totals = self.node.engine.index.totals
        assert (totals.objects, totals.object_bytes) == (len(bodies), sum(map(len, bodies)))
        assert self.run(self.node.store.get_document("one", "lifecycle")) == (self.documents.get("one") or None)
        assert not self.node.status()["damaged"]

    async def reads(self, bucket: str, key: str, version: Version) -> None:
        reader = await self.node.store.open(bucket, key, version.id)
        try:
            assert b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.info.size)]) == version.data
            assert reader.info.attributes.tags == version.tags
        finally:
            await reader.aclose()

    def teardown(self) -> None:
        self.run(self.node.aclose())
        self.loop.close()
        shutil.rmtree(self.root)


TestVersionsModel = VersionsModel.TestCase
TestVersionsModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
