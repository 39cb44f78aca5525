"""Options that cannot be are refused when they are made."""

from __future__ import annotations

import pytest

from qss.errors import ConfigInvalid
from qss.ids import LocationId
from qss.offload.options import LocationOptions, OffloadOptions


@pytest.mark.parametrize(("k", "m"), [(0, 2), (-1, 2), (4, -1), (200, 57)])
def test_codes_that_cannot_be(k: int, m: int) -> None:
    with pytest.raises(ConfigInvalid, match="k is at least 1"):
        OffloadOptions(k=k, m=m)


def test_margin() -> None:
    assert OffloadOptions(k=4, m=2).safe_shards == 6
    assert OffloadOptions(k=4, m=2, margin=0).safe_shards == 4
    assert OffloadOptions(k=4, m=2, margin=1).safe_shards == 5
    for margin in (-1, 3):
        with pytest.raises(ConfigInvalid, match="margin"):
            OffloadOptions(k=4, m=2, margin=margin)


def test_a_secret_is_not_printed() -> None:
    options = LocationOptions(LocationId("a"), "http://127.0.0.1:9000", "bucket", secret_key="hush hush")
    assert "hush" not in f"{options} {options!r}"
