"""qssctl recover: a file system back on an empty state directory, from its key and any k locations.

1. a mark in the state directory: a recovery has begun        crash: it may be begun again
2. root → its journals → index → where the segments are; what is lost is said, and that is the end without --partial
3. claim the next epoch with a root: the machine that was lost must not write any more
4. key, configuration (where there is none), identity         crash before: begin again; after: it is mounted
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio

from qss.app import wire
from qss.app.create import Plan, sections_of, written
from qss.app.holding import refuse_if_held
from qss.app.identity import Identity, read_identity, write_identity
from qss.app.locations import open_nodes
from qss.app.losses import Loss, assess, loss_of, lost_path, write_loss
from qss.app.offload import make_roots
from qss.app.running import state_lock, write_whole
from qss.app.seat import hold_of
from qss.app.unlock import by_words, open_file, open_key
from qss.cache.lost import needed
from qss.cache.segment_log import FOLDERS, log_path
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.config.write import NewLocation
from qss.errors import PreconditionFailed, Refused, Unreachable
from qss.formats.keyfile import Note
from qss.formats.root import Root
from qss.formats.tables import Table
from qss.host import Host
from qss.ids import SegmentId
from qss.offload.hold import HoldBook
from qss.offload.keyfiles import copy_key_file, write_key_file
from qss.offload.keys import FsKeys, MasterKey, fs_id_of
from qss.offload.recovery import Chosen, Recovery, RecoveryReport, newest_root, utc_text
from qss.offload.roots import RootBook, Roots
from qss.offload.vault import Vault
from qss.segments import RestorePoint, SegmentKind

_MARK: Final = "recovering"
CLAIM_S_MAX: Final = 20.0
"""How long the locations may take for a root."""
TAKE_OVER_GAP: Final = 2**20
"""Numbers of segments left out by a recovery; 64 TiB of segments, and room for 4,000 recoveries."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What of it, and under which conditions."""

    take_over: bool = False  # even if another machine holds it
    partial: bool = False  # even if something is lost, or only an older root can be had
    at_ns: int | None = None  # the newest root that is not younger; None: the newest


@dataclass(frozen=True, slots=True)
class _Outcome:
    report: RecoveryReport
    loss: Loss
    inodes: int = 0
    segments: int = 0
    restored: bool = True


Task = Callable[[Settings, MasterKey], dict[str, Any]]
"""What is recovered; the document of `qssctl recover --json`."""


def recover_configured(settings: Settings, key: Path | None, state: Path | None, task: Task) -> dict[str, Any]:
    """With the locations of a configuration file. Raises QssError; then it may be begun again."""
    if state is not None:
        state = state.absolute()
        key_file = state / "key" if settings.key_file.is_relative_to(settings.state) else settings.key_file
        settings = replace(settings, state=state, key_file=key_file)
    settings = replace(settings, unlock=replace(settings.unlock, key_file=key))
    return task(settings, open_key(settings))


def recover_from(plan: Plan, environ: Mapping[str, str], task: Task, *, keep: bool = True) -> dict[str, Any]:
    """With locations named one by one; the root says what they were called and which others there are. `keep`: write
    the configuration file at the end."""
    if plan.config.exists():
        raise Refused(f"{plan.config} is there already: leave out --location to use it, or choose another --config")
    master = open_file(plan.key, plan.unlock)
    sections = sections_of(plan, environ)
    _, provisional = written(plan, sections, 1, len(sections) - 1, environ)
    root = trio.run(find_root, provisional, FsKeys.derive(master))
    k = root.k if plan.k is None else plan.k
    m = root.m if plan.m is None else plan.m
    text, settings = written(plan, as_the_root_knows_them(sections, root), k, m, environ)
    report = task(settings, master)
    if keep and report.get("restored", True):
        plan.config.parent.mkdir(parents=True, exist_ok=True)
        write_whole(plan.config, text, 0o600)
    return report


def as_the_root_knows_them(given: Sequence[NewLocation], root: Root) -> list[NewLocation]:
    """The given locations under the names they have in the root, since names are part of where objects are; and those
    the root knows besides, with the credentials of the first given one. Pure."""
    places = {place.name: place.url for place in root.locations}
    names = {url: name for name, url in places.items()}
    found: list[NewLocation] = []
    for each in given:
        name = each.name if each.name in places else names.get(each.url.partition("?")[0], each.name)
        found.append(replace(each, name=str(name)))
    there = {each.name for each in found}
    others = [
        NewLocation(str(place.name), place.url, given[0].settings, dict(place.labels))
        for place in root.locations
        if place.name not in there
    ]
    return found + others


async def find_root(settings: Settings, keys: FsKeys) -> Root:
    """The newest root that locations show. Raises WrongKey when they have none of this key, Unreachable."""
    host = Host()
    async with open_nodes(settings, host) as nodes:
        return await newest_root(RootBook(nodes, keys, host))


def recover_newest(settings: Settings, master: MasterKey, wish: Wish) -> dict[str, Any]:
    """The file system of the newest root that can be restored; this machine is the one that writes from now on.

    Where content is lost beyond what the code makes good, or the logs of the newest root, and that is not accepted
    (`wish.partial`), nothing is changed and the answer says what is lost. Raises Refused when a machine lives that
    holds it, unless it is to be taken over.
    """
    fresh = not settings.state.exists()
    with state_lock(settings.state):
        begin(settings)  # 1.
        outcome = trio.run(_bring_back, settings, FsKeys.derive(master), wish)  # 2., 3.
        if outcome.restored:
            write_loss(settings, outcome.loss)
            finish(settings, master, Identity(fs_id_of(master).hex(), Host().clock.now_ns()))  # 4.
        else:
            undo(settings, fresh)
    return _as_report(settings, outcome)


def undo(settings: Settings, fresh: bool) -> None:
    """As if it had not begun. `fresh`: the state directory was not there before."""
    for folder in (settings.cache_dir, settings.offload_dir):
        shutil.rmtree(folder, ignore_errors=True)
    (settings.state / _MARK).unlink()
    if fresh:
        shutil.rmtree(settings.state)


def finish(settings: Settings, master: MasterKey, identity: Identity) -> None:
    """The last step: from here on it is a file system."""
    if not settings.key_file.exists():
        settings.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        given, host = settings.unlock.key_file, Host()
        if given is not None and not by_words(settings.unlock):  # with its locks: what had a passphrase keeps it
            copy_key_file(given, settings.key_file)
        else:
            write_key_file(settings.key_file, master, host.entropy, note=Note(created_s=host.clock.now_ns() // 10**9))
    write_identity(settings.state, identity)
    (settings.state / _MARK).unlink()


def begin(settings: Settings) -> None:
    """Only into an empty state directory, or one where a recovery stopped in the middle. Raises Refused."""
    mark = settings.state / _MARK
    if read_identity(settings.state) is not None:
        raise Refused(f"{settings.state} holds a file system already: recover into an empty state directory")
    if mark.exists():
        for folder in (settings.cache_dir, settings.offload_dir):
            shutil.rmtree(folder, ignore_errors=True)
    elif settings.cache_dir.exists() or settings.offload_dir.exists():
        raise Refused(f"{settings.state} is not empty: recover into an empty state directory")
    mark.touch(mode=0o600)


async def _bring_back(settings: Settings, keys: FsKeys, wish: Wish) -> _Outcome:
    host = Host()
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        (settings.cache_dir / FOLDERS[kind]).mkdir(mode=0o700, parents=True)
    async with open_nodes(settings, host) as nodes:
        vault = Vault(nodes, keys, settings.offload, host, settings.offload_dir)
        recovery = Recovery(vault, RootBook(nodes, keys, host))
        holds = HoldBook(nodes, keys, host)
        if not wish.take_over:
            await refuse_if_held(holds, await recovery.find_root())
        chosen = await recovery.choose(lambda segment, kind: log_path(settings.cache_dir, kind, segment), wish.at_ns)
        if not (chosen.paths or wish.partial):
            raise Refused(
                "nothing of this file system has been stored yet: there is nothing to bring back, and what is still on"
                " its machine can be mounted there (recover --partial takes it over, empty)"
            )
        if chosen.skipped and not wish.partial:  # what came after this root would be given up; locations may come back
            return _Outcome(chosen.report([], []), Loss({}), restored=False)
        outcome = await _rebuilt(settings, host, recovery, chosen, wish.partial)
        if outcome.restored:
            roots = make_roots(settings, keys, nodes, host)
            roots.take_over(chosen.newest, first_number(chosen))  # 3.
            there = await holds.read()
            if there is not None:
                roots.raise_epoch(there.epoch)
            newest = chosen.root.order == chosen.newest.order
            if chosen.majority and newest:  # else the user may still want the newer one from here
                await _claim(roots, roots.raised(chosen.root.point))
            await holds.write(replace(hold_of(settings, roots.known, host), released=True))  # it does not run yet
            if wish.take_over and there is not None and holds.may_live(there):
                await trio.sleep(there.watch_s)  # it has learnt it by then, or has no lease any more
    return outcome


async def _rebuilt(settings: Settings, host: Host, recovery: Recovery, chosen: Chosen, partial: bool) -> _Outcome:
    """The cache of this root, if nothing is lost or that is accepted."""
    only(settings.cache_dir, chosen.paths)
    # Behind all numbers the other machine may still give out before it learns that it has lost: names of shards
    # follow from numbers, and it would write over ours.
    point = chosen.root.point
    behind = first_number(chosen)
    made = await SegmentCache.rebuild(settings.cache_dir, host, settings.cache, list(chosen.paths), behind)
    found, lost = await recovery.find_all(made.unplaced)
    cache = await SegmentCache.open(settings.cache_dir, host, settings.cache, None)
    try:
        need = needed(cache, point.logs)
        lost += await assess(recovery, need, made.unplaced, chosen.root.k)
        loss, report = await loss_of(cache, lost, need), chosen.report(found, lost)
        if not (loss.nothing or partial):
            return _Outcome(report, loss, restored=False)
        for sealed, receipt in found:
            await cache.adopt(sealed, receipt)
        cache.lost.adopt(loss.segments, (chosen.root.k, chosen.root.m), point.cut_ns)
        if point.journals:
            await cache.mark_published(point)  # never a root behind it, though some shards may be missing yet
        segments, inodes = cache.count(Table.SEGMENTS), cache.count(Table.INODES)
        return _Outcome(report, loss, inodes, segments)
    finally:
        await cache.close()


def first_number(chosen: Chosen) -> SegmentId:
    """Of the segments that are written after this recovery. Every root from now on says so (`Roots.raised`): who
    recovers from one of them begins behind all that was sent since, though nothing may have been published."""
    return SegmentId(max(chosen.root.point.next_segment, chosen.newest.point.next_segment) + TAKE_OVER_GAP)


def only(cache: Path, logs: Collection[Path]) -> None:
    """Remove logs of a newer root that could not be brought back whole."""
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        for left_over in set((cache / FOLDERS[kind]).iterdir()) - set(logs):
            left_over.unlink()


async def _claim(roots: Roots, point: RestorePoint) -> None:
    """The next root is ours, and says what the last one said: from here on the other machine, if it lives, publishes
    nothing that is not in what was recovered. Raises Refused when it was faster."""
    try:
        with trio.move_on_after(CLAIM_S_MAX):
            await roots.publish(point, anew=True)
    except PreconditionFailed as error:
        raise Refused(
            "the machine that holds this file system has published while it was recovered: begin the recovery again"
        ) from error
    except Unreachable:  # the first root after the mount is the claim
        return


def _as_report(settings: Settings, outcome: _Outcome) -> dict[str, Any]:
    report = outcome.report
    notes = skipped_roots(report)
    if not report.majority:
        notes.append(
            f"Only {report.answered} of {report.locations} locations answered: a newer root may be at the others."
        )
    if report.incomplete:
        notes.append(f"{len(report.incomplete)} segments miss some shards; they are repaired once mounted.")
    return {
        "fs_id": report.root.fs_id.hex(),
        "config": str(settings.source),
        "state": str(settings.state),
        "key_file": str(settings.key_file),
        "restored": outcome.restored,
        "generation": report.root.generation,
        "newest_generation": report.newest.generation,
        "point": wire.point_to_json(report.root.point),
        "files": outcome.inodes,
        "segments": outcome.segments,
        "journals": report.journals,
        "answered": report.answered,
        "locations": report.locations,
        "majority": report.majority,
        "incomplete_segments": len(report.incomplete),
        **outcome.loss.to_json(),
        "lost_list": str(lost_path(settings)) if outcome.restored and not outcome.loss.nothing else "",
        "skipped_roots": [[each.generation, each.cut_ns, each.why] for each in report.skipped],
        "notes": notes,
    }


def skipped_roots(report: RecoveryReport) -> list[str]:
    """What is said of roots whose logs are lost beyond what the code makes good."""
    cut = utc_text(report.root.point.cut_ns)
    return [
        f"Root {each.generation}, of {utc_text(each.cut_ns)} UTC, could not be restored: {each.why}. What was written"
        f" between {cut} UTC and then is lost."
        for each in report.skipped
    ]
