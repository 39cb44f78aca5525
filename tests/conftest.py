"""What holds for every test: generated examples are the same in every CI run, and new ones each time elsewhere."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("here", deadline=None)  # no time is asserted
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
