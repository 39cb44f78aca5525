"""`trove repair` where there are versions: a lost version goes by its id, what has no bytes is said again."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qss.formats.volume import Kind
from qss.s3.backend import CreateUpload, PutRequest, UploadRef, UploadsQuery, VersionEntry, Versioning
from qss.trove.compaction import lives
from qss.trove.node import Node
from qss.trove.repair import Outcome, repair
from qss.trove.scan import Whole, scan
from tests.harness.trove_node import Bytes, node
from tests.harness.trove_versions import fill, told, versions_of

WITH_BYTES = {Kind.OBJECT, Kind.COMPOSITE, Kind.PART}
SAID_AGAIN = {Kind.BUCKET, Kind.DOCUMENT, Kind.AMEND, Kind.MARKER, Kind.UPLOAD}
ENDS = {Kind.TOMBSTONE, Kind.VERSION_GONE, Kind.BUCKET_GONE, Kind.UPLOAD_GONE}

assert WITH_BYTES | SAID_AGAIN | ENDS | {Kind.MARK} == set(Kind)


async def _seen(one: Node) -> dict[str, Any]:
    seen: dict[str, Any] = await told(one.store)
    totals = seen.pop("totals")
    assert totals == (len([each for each in seen.values() if isinstance(each, tuple)]), _held(seen))
    for name, each in seen.items():  # which one is the latest, `_latest_first` looks at
        if isinstance(each, VersionEntry):
            seen[name] = replace(each, latest=False)
        elif isinstance(each, tuple):
            seen[name] = replace(each[0], latest=False), *each[1:]
    seen["uploads"] = (await one.store.list_uploads(UploadsQuery("open"))).uploads
    for upload in seen["uploads"]:
        ref = UploadRef("open", upload.key, upload.upload_id)
        seen[f"parts of {upload.key}"] = await one.store.list_parts(ref)
    for bucket in ("open", "held"):
        entries = await versions_of(one.store, bucket)
        first = {each.object.key: each for each in reversed(entries)}
        assert [each for each in entries if each.latest] == [each for each in entries if each in first.values()]
    return seen


def _held(seen: dict[str, Any]) -> int:
    return sum(len(each[2]) for each in seen.values() if isinstance(each, tuple))


async def _fill(directory: Path) -> tuple[dict[str, Any], list[tuple[Whole, Path, bool]]]:
    one = node(directory)
    await fill(one.store)
    for key in ("begun", "aborted"):
        upload = await one.store.create_upload(CreateUpload("open", key))
        ref = UploadRef("open", key, upload.upload_id)
        await one.store.put_part(ref, 3, Bytes(b"a part"))
    await one.store.abort_upload(ref)
    records = [
        (found, volume.path, lives(one.engine, volume, found))
        for volume in one.engine.volumes.volumes.values()
        for found in scan(one.engine.volumes.disk, volume)
        if isinstance(found, Whole)
    ]
    seen = await _seen(one)
    await one.aclose()
    return seen, records


def _hurt(path: Path, found: Whole, spot: str) -> None:
    at = found.place.position + {"header": 10, "body": found.header.body_at, "end": found.header.table_at + 1}[spot]
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


async def _repaired(directory: Path) -> tuple[Outcome, list[dict[str, Any]], dict[str, Any], object]:
    one = node(directory)
    said: list[dict[str, Any]] = []
    outcome = await repair(one, said.append, dry_run=False)
    seen, usage = await _seen(one), _usage(one)
    await one.scrubber.round()
    assert one.status()["damaged"] == []
    await one.aclose()
    return outcome, said, seen, usage


def _usage(one: Node) -> object:
    return {bucket: one.quotas._usage(bucket) for bucket in ("open", "held")}


async def _try(
    origin: Path, directory: Path, before: dict[str, Any], case: tuple[Whole, Path, bool], spot: str
) -> None:
    found, path, living = case
    shutil.copytree(origin, directory)
    _hurt(directory / path.relative_to(origin), found, spot)
    outcome, said, after, usage = await _repaired(directory)
    kind = found.header.kind
    if living and kind in WITH_BYTES and said[0]["lost"] == "object":
        (line,) = said
        name = f"{line['bucket']}/{line['key']} {line.get('version', 'null')}"
        assert name in before
        assert after == {each: value for each, value in before.items() if each != name}
        assert (outcome.lost_objects, outcome.lost_bytes) == (1, line["bytes"])
    elif living and kind == Kind.PART:
        (line,) = said
        assert (line["lost"], outcome.lost_uploads) == ("part", 1)
        assert after["uploads"] == ()
    else:
        assert said == []
        assert after == before
        assert outcome.rewritten == (living and kind in SAID_AGAIN)
    shutil.rmtree(directory / "index")
    again = node(directory)
    assert again.report.rebuilt
    assert await _seen(again) == after
    assert _usage(again) == usage
    await again.aclose()


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.MARK}), ids=lambda kind: kind.name.lower())
def test_one_record_is_lost(tmp_path: Path, kind: Kind) -> None:
    async def main() -> None:
        before, records = await _fill(tmp_path / "origin")
        mine = [each for each in records if each[0].header.kind == kind]
        living = [each for each in mine if each[2]]
        # Not a dead composite: should the index be lost as well, its upload may be open again.
        dead = [] if kind == Kind.COMPOSITE else [each for each in mine if not each[2]]
        cases = [*living[:1], *(living[-1:] if kind in WITH_BYTES else ()), *dead[:1]]
        assert cases
        for number, case in enumerate(cases):
            for spot in ("header", "end", "body")[: 3 if case[0].header.body_len else 2]:
                await _try(tmp_path / "origin", tmp_path / f"{number}-{spot}", before, case, spot)

    asyncio.run(main())


def test_of_a_bucket_that_only_its_objects_know_the_versioning_is_kept(tmp_path: Path) -> None:
    async def fill_and_hurt() -> None:
        one = node(tmp_path)
        for name in ("plain", "versioned"):
            await one.store.create_bucket(name, "us-east-1")
        await one.store.set_versioning("versioned", Versioning.ENABLED)
        for name in ("plain", "versioned"):
            for body in (b"one", b"two"):
                await one.store.put(PutRequest(name, "k"), Bytes(body))
        (volume,) = one.engine.volumes.volumes.values()
        records = [each for each in scan(one.engine.volumes.disk, volume) if isinstance(each, Whole)]
        await one.aclose()
        for each in records:
            if each.header.kind == Kind.BUCKET:
                _hurt(volume.path, each, "header")

    asyncio.run(fill_and_hurt())
    shutil.rmtree(tmp_path / "index")

    async def mend(dry_run: bool) -> tuple[Outcome, list[dict[str, Any]]]:
        one = node(tmp_path)
        said: list[dict[str, Any]] = []
        outcome = await repair(one, said.append, dry_run=dry_run)
        await one.aclose()
        return outcome, said

    lines = [
        {"lost": "settings", "bucket": "plain", "versioning": None},
        {"lost": "settings", "bucket": "versioned", "versioning": "Enabled"},
    ]
    for dry_run in (True, False):
        outcome, said = asyncio.run(mend(dry_run))
        assert (said, outcome.lost_settings, outcome.sound) == (lines, 2, False)

    async def look() -> None:
        one = node(tmp_path)
        assert [each.versioning for each in await one.store.list_buckets()] == [None, Versioning.ENABLED]
        assert [len(await versions_of(one.store, name)) for name in ("plain", "versioned")] == [1, 2]
        await one.aclose()

    asyncio.run(look())
    outcome, said = asyncio.run(mend(dry_run=True))
    assert (said, outcome.sound) == ([], True)
    shutil.rmtree(tmp_path / "index")
    asyncio.run(look())
