"""A node against a dict: puts, deletes, listings, uploads, compaction; killed, restarted, index lost, power cut."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
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
    WantedPart,
)
from qss.trove.compaction import compact_one
from tests.harness.trove_node import Bytes, PowerCutDisk, content, drop_dead, node

KEYS = ["a", "b", "dir/a", "dir/b", "é" * 300 + "1", "é" * 300 + "2", "é" * 300]
SIZES = [0, 1, 4096, 65536, 65537, 200_000, 1_048_577, 1_500_000]
PART = bytes(5 * 1024 * 1024)


class NodeModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="trove-model-"))
        self.loop = asyncio.new_event_loop()
        self.disk = PowerCutDisk()
        self.node = node(self.root / "n", self.disk)
        self.model: dict[str, bytes] = {}
        self.seed = 0

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def fresh(self, size: int) -> bytes:
        self.seed += 1
        return random.Random(self.seed).randbytes(size)

    @initialize()
    def bucket(self) -> None:
        self.run(self.node.store.create_bucket("bkt", "us-east-1"))

    @rule(key=st.sampled_from(KEYS), size=st.sampled_from(SIZES))
    def put(self, key: str, size: int) -> None:
        body = self.fresh(size)
        self.run(self.node.store.put(PutRequest("bkt", key), Bytes(body)))
        self.model[key] = body

    @rule(size=st.sampled_from(SIZES))
    def put_many_at_once(self, size: int) -> None:
        bodies = {key: self.fresh(size) for key in KEYS}

        async def all_of_them() -> None:
            await asyncio.gather(
                *(self.node.store.put(PutRequest("bkt", key), Bytes(body)) for key, body in bodies.items())
            )

        self.run(all_of_them())
        self.model |= bodies

    @rule(key=st.sampled_from(KEYS), size=st.sampled_from(SIZES[2:]))
    def put_that_breaks_off(self, key: str, size: int) -> None:
        try:
            self.run(self.node.store.put(PutRequest("bkt", key), Bytes(self.fresh(size), piece=2000, fails_at=2000)))
        except ConnectionResetError:
            return
        raise AssertionError("a broken body was accepted")

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        outcomes = self.run(self.node.store.delete("bkt", [DeleteRequest(key)]))
        assert outcomes[0].error is None
        self.model.pop(key, None)

    @rule(key=st.sampled_from(KEYS), last=st.sampled_from([1, 70_000]))
    def upload_in_parts(self, key: str, last: int) -> None:
        async def all_of_it() -> bytes:
            store = self.node.store
            upload = await store.create_upload(CreateUpload("bkt", key))
            ref = UploadRef("bkt", key, upload.upload_id)
            tail = self.fresh(last)
            await store.put_part(ref, 1, Bytes(b"replaced"))
            await store.put_part(ref, 9, Bytes(b"never listed"))
            first = await store.put_part(ref, 1, Bytes(PART))
            second = await store.put_part(ref, 3, Bytes(tail))
            await store.complete_upload(ref, [WantedPart(1, first.etag), WantedPart(3, second.etag)], ALWAYS)
            return PART + tail

        self.model[key] = self.run(all_of_it())

    @rule(key=st.sampled_from(KEYS))
    def upload_that_is_aborted(self, key: str) -> None:
        async def all_of_it() -> None:
            upload = await self.node.store.create_upload(CreateUpload("bkt", key))
            ref = UploadRef("bkt", key, upload.upload_id)
            await self.node.store.put_part(ref, 1, Bytes(b"x" * 70_000))
            await self.node.store.abort_upload(ref)

        self.run(all_of_it())

    @rule(encrypted=st.booleans())
    def encrypt_from_now_on(self, encrypted: bool) -> None:
        self.run(self.node.store.set_encryption("bkt", encrypted))

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
        assert not self.node.report.rebuilt

    @rule()
    def lose_the_index(self) -> None:
        self.run(self.node.aclose())
        shutil.rmtree(self.root / "n" / "index")
        self.node = node(self.root / "n", self.disk)
        assert self.node.report.rebuilt

    @rule(seed=st.integers(0, 1000), unfinished=st.booleans(), size=st.sampled_from(SIZES))
    def cut_the_power(self, seed: int, unfinished: bool, size: int) -> None:
        """Also in the middle of a put that is not acknowledged: afterwards it is there whole, or what was before is."""
        maybe: bytes | None = None
        if unfinished:
            maybe = self.fresh(size)

            async def begin() -> None:
                self.node.engine.volumes.sync = lambda volumes: None  # type: ignore[method-assign]
                await self.node.store.put(PutRequest("bkt", "a"), Bytes(maybe))

            self.run(begin())
        drop_dead(self.node)
        self.disk.cut_power(random.Random(seed))
        shutil.rmtree(self.root / "n" / "index")  # without syncs of its own it may be anything: not trusted
        self.node = node(self.root / "n", self.disk)
        if maybe is not None:
            now = self.now("a")
            assert now in (maybe, self.model.get("a"))
            if now is not None:
                self.model["a"] = now

    def now(self, key: str) -> bytes | None:
        page = self.run(self.node.store.list_objects(ListQuery("bkt", prefix=key)))
        if not any(each.key == key for each in page.objects):
            return None
        return bytes(self.run(content(self.node.store, "bkt", key)))

    @invariant()
    def says_what_the_model_says(self) -> None:
        try:
            page = self.run(self.node.store.list_objects(ListQuery("bkt")))
        except Exception:
            assert not self.model
            return
        assert [each.key for each in page.objects] == sorted(self.model, key=str.encode)
        assert {each.key: each.size for each in page.objects} == {key: len(body) for key, body in self.model.items()}
        totals = self.node.engine.index.totals
        assert (totals.objects, totals.object_bytes) == (len(self.model), sum(map(len, self.model.values())))
        for key, body in self.model.items():
            assert self.run(content(self.node.store, "bkt", key)) == body
        assert not self.node.status()["damaged"]

    def teardown(self) -> None:
        self.run(self.node.aclose())
        self.loop.close()
        shutil.rmtree(self.root)


TestNodeModel = NodeModel.TestCase
TestNodeModel.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
