"""qssctl location add, drain, remove, replace, rebalance: the configuration file is changed, the running file system
takes it over.

Order of a change, and what is left when it stops in the middle: everything is looked at and refused that will not do
(1: nothing touched); the last change is settled (2); the file is replaced (3: taken over by the next mount at the
latest, or by the next change); the offload process takes it over, or refuses, and then the old file is put back (4);
a root names the new set (5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from qss.app import talk
from qss.app.create import Plan, policy_warnings, prepare_location, sections_of
from qss.app.running import is_locked, lock_file, write_whole
from qss.config import Settings, load, parse
from qss.config.units import human_size
from qss.config.write_locations import with_location, with_location_value, without_location
from qss.errors import QssError, Refused, Retryable, Unreachable

OFFLOAD_BACK_S_MAX: Final = 20.0
"""How long the offload process may be away, being started again."""
_POLL_S: Final = 0.2

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class NewPlace:
    """A location to be added, as typed."""

    name: str
    url: str
    labels: Mapping[str, str]
    weight: float | None
    metered: bool = False

    @property
    def whole_url(self) -> str:
        """The URL with all that was said besides."""
        more = [("name", self.name), *((f"label.{key}", value) for key, value in self.labels.items())]
        more += [("weight", f"{self.weight:g}")] if self.weight is not None else []
        more += [("metered", "true")] if self.metered else []
        return self.url + ("&" if "?" in self.url else "?") + urlencode(more)


class Changer:
    """Changes of the locations of one file system."""

    def __init__(self, config: Path, environ: Mapping[str, str], on_progress: OnProgress | None = None) -> None:
        """`on_progress` hears of {"step"} and of what is left of long steps."""
        self._config = config
        self._environ = environ
        self._on_progress = on_progress
        self.settings = load(config, environ)

    @property
    def mounted(self) -> bool:
        """Whether a mount process has it."""
        return is_locked(self.settings.state)

    def add(self, new: NewPlace, folder: Path) -> dict[str, Any]:
        """Raises QssError with nothing changed but, maybe, an empty bucket made."""
        plan = Plan(
            config=self._config, locations=(new.whole_url,), k=None, m=None, state=self.settings.state, key_file=None,
            mountpoint=None, folder=folder,
        )  # fmt: skip
        [section] = sections_of(plan, self._environ)
        fresh = self._draft(lambda text: with_location(text, section))  # 1.
        options = next(each for each in fresh.locations if each.name == new.name)
        self._say("test")
        latency_s = prepare_location(fresh, options)
        self._apply(lambda text: with_location(text, section))
        return self._report(new.name, latency_s=latency_s, warnings=policy_warnings(self.settings))

    def drain(self, name: str, *, wait: bool) -> dict[str, Any]:
        """Nothing new goes there, and what is there goes elsewhere; returns when it is empty, if `wait`."""
        self._draft(lambda text: with_location_value(text, name, "state", "draining"))
        if not self._options(name).draining:
            self._apply(lambda text: with_location_value(text, name, "state", "draining"))
        drained = False
        if wait and self.mounted:
            self._say("drain")
            self._offload("location.drained", name=name)
            drained = True
        return self._report(name, drained=drained)

    def keep(self, name: str) -> dict[str, Any]:
        """Not drained any more; what was moved stays where it is."""
        self._apply(lambda text: with_location_value(text, name, "state", None))
        return self._report(name)

    def remove(self, name: str, *, lost: bool, accept_loss: bool) -> dict[str, Any]:
        """Raises Refused while it holds anything that is needed, unless it is `lost`."""
        self._options(name)
        self._draft(lambda text: without_location(text, name))  # 1.
        if not self.mounted:
            raise Refused(f"mount the file system first: it knows what location {name} holds")
        holds = self._offload("location.holdings", name=name)
        if holds["shards"] and not lost:
            raise Refused(
                f"location {name} holds {holds['shards']} shards ({human_size(holds['bytes'])}): run qssctl location"
                f" drain {name} first, or remove it with --lost if it is gone for good"
            )
        if holds["lost_count"] and not accept_loss:
            raise Refused(
                f"without location {name}, {holds['lost_count']} of the {holds['shards']} segments it has shards of"
                " would have fewer shards than are needed to read them; bring back another location first, or give"
                " them up with --accept-loss"
            )
        self._apply(lambda text: without_location(text, name), farewell=name)
        return self._report(name, missing_shards=holds["shards"], lost_segments=holds["lost"])

    def repaired(self, name: str) -> None:
        """Return when all that was at a removed location is elsewhere again."""
        self._say("repair")
        self._offload("location.drained", name=name)

    def reload(self) -> dict[str, Any]:
        """Take over what somebody wrote into the file. Raises QssError with the old locations in use."""
        if not self.mounted:
            raise Unreachable("the file system is not mounted: the next mount reads the file")
        self._say("settle")
        change: dict[str, Any] = self._offload("location.reload")
        self._offload("location.settled", farewell=next(iter(change["left"]), None))
        return change

    def rebalance(self) -> dict[str, Any]:
        """Move what weights would put elsewhere; returns when that is done."""
        if not self.mounted:
            raise Unreachable("the file system is not mounted: run qssctl mount")
        self._say("rebalance")
        done: dict[str, Any] = self._offload("location.rebalance")
        return done

    # -- steps
    def _options(self, name: str) -> Any:
        for each in self.settings.locations:
            if each.name == name:
                return each
        raise Refused(f"there is no location {name!r}; there are {', '.join(e.name for e in self.settings.locations)}")

    def _draft(self, edit: Callable[[str], str]) -> Settings:
        """What an edit would come to. Raises ConfigInvalid."""
        return parse(edit(self._config.read_text(encoding="utf-8")), self._config, self._environ)

    def _apply(self, edit: Callable[[str], str], farewell: str | None = None) -> None:
        with lock_file(self.settings.state / "locations.lock", "another command is changing the locations now"):
            mounted = self.mounted
            if mounted:
                self._say("settle")
                self._offload("location.settled")  # 2.
            before = self._config.read_text(encoding="utf-8")
            after = edit(before)
            fresh = parse(after, self._config, self._environ)
            mode = os.stat(self._config).st_mode & 0o777
            write_whole(self._config, after, mode)  # 3.
            if mounted:
                try:
                    self._offload("location.reload")  # 4.
                except QssError as error:
                    if not isinstance(error, Unreachable):  # else it may have been taken over
                        write_whole(self._config, before, mode)
                    raise
                self._say("settle")
                self._offload("location.settled", farewell=farewell)  # 5.
            self.settings = fresh

    def _offload(self, method: str, **params: Any) -> Any:
        """A call to the offload process, which may just be starting again."""
        deadline = time.monotonic() + OFFLOAD_BACK_S_MAX
        while True:
            try:
                return talk.call(self.settings.offload_socket, method, self._on_progress, **params)
            except Retryable as error:
                if time.monotonic() > deadline:
                    raise Unreachable(f"the offload process does not answer: {error}") from error
            time.sleep(_POLL_S)

    def _say(self, step: str) -> None:
        if self._on_progress is not None:
            self._on_progress({"step": step})

    def _report(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "applied": self.mounted,
            "locations": [str(e.name) for e in self.settings.locations],
        } | more
