"""Health, the same at every front: /health/live while the process answers, /health/ready while requests are served.

At the S3 front these would be objects; there, as everywhere, they are under /-/health too: no bucket has that name.
"""

from __future__ import annotations

from typing import Final

from qss.trove.routes import Answer, answer

_PATHS: Final = {f"{front}/health/{name}": name for front in ("", "/-") for name in ("live", "ready")}


class Health:
    """`ready` is set when all fronts listen, and taken back when the node stops."""

    def __init__(self) -> None:
        self.ready = False

    def answer(self, method: str, path: str) -> Answer | None:
        """None: not a question about health."""
        name = _PATHS.get(path)
        if name is None or method not in ("GET", "HEAD"):
            return None
        return self.live() if name == "live" else self.is_ready()

    def live(self) -> Answer:
        return answer({"live": True})

    def is_ready(self) -> Answer:
        return answer({"ready": self.ready}, 200 if self.ready else 503)
