"""Dates, read and written; and those that the calendar of four digits has no place for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.s3.dates import http_date, http_date_ns, iso, iso_date_ns
from tests.harness.s3_direct import Direct

DAY = 1_369_353_600 * 10**9  # 24 May 2013
END = "9999-12-31T23:59:59"
MANY_DAYS = 2**31 - 1


def test_dates() -> None:
    assert http_date_ns("Fri, 24 May 2013 00:00:00 GMT") == DAY
    assert http_date_ns("Fri, 24 May 2013 02:00:00 +0200") == DAY
    assert iso_date_ns("2013-05-24T00:00:00.250Z") == DAY + 250_000_000
    assert iso_date_ns("2013-05-24T02:00:00+02:00") == DAY
    for text in ("", "x", "2013-13-01T00:00:00Z"):
        with pytest.raises(CorruptData):
            http_date_ns(text)
        with pytest.raises(CorruptData):
            iso_date_ns(text)


def test_a_date_without_a_zone_is_utc_wherever_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert http_date_ns("Fri, 24 May 2013 00:00:00 -0000") == http_date_ns("Fri, 24 May 2013 00:00:00") == DAY
        assert iso_date_ns("2013-05-24T00:00:00") == iso_date_ns("2013-05-24") == DAY
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", [f"{END}-00:01", "0001-01-01T00:00:00+00:01"])
def test_what_could_not_be_written_again_is_not_read(text: str) -> None:
    with pytest.raises(CorruptData):
        iso_date_ns(text)


@given(st.integers(0, 2**72))
def test_every_time_can_be_written(time_ns: int) -> None:
    last = min(time_ns // 10**9, 253_402_300_799)
    assert iso_date_ns(iso(time_ns)) // 10**9 == last
    assert http_date_ns(http_date(time_ns)) // 10**9 == last


def test_a_lock_that_no_answer_could_tell_is_refused() -> None:
    direct = Direct()
    assert direct.ask("root", "PUT", "/bkt", headers={"x-amz-bucket-object-lock-enabled": "true"}).status == 200
    lock = {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": f"{END}-10:00"}
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x", headers=lock).code == "InvalidArgument"
    retention = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{END}-10:00</RetainUntilDate></Retention>"
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x").status == 200
    assert direct.ask("root", "PUT", "/bkt/k", {"retention": ""}, retention.encode()).code == "MalformedXML"


def test_rules_of_many_days_are_told_as_the_end_of_time() -> None:
    direct = Direct()
    direct.bucket("bkt")
    rule = f"""<LifecycleConfiguration><Rule><ID>r</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>
      <Expiration><Days>{MANY_DAYS}</Days></Expiration><AbortIncompleteMultipartUpload>
      <DaysAfterInitiation>{MANY_DAYS}</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
      </LifecycleConfiguration>"""
    assert direct.ask("root", "PUT", "/bkt", {"lifecycle": ""}, rule.encode()).status == 200
    end = "Fri, 31 Dec 9999 23:59:59 GMT"
    told = f'expiry-date="{end}", rule-id="r"'
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x").headers["x-amz-expiration"] == told
    assert direct.ask("root", "GET", "/bkt/k").headers["x-amz-expiration"] == told
    assert direct.ask("root", "POST", "/bkt/k", {"uploads": ""}).headers["x-amz-abort-date"] == end
