"""The web console as people use it: a real node, a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from qss.trove.testing import TroveServer
from tests.harness.boto import client_of
from tests.harness.chromium import WAIT_MS, chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.live

browser = pytest.fixture(scope="module")(chromium)

VIEWS = {
    "overview": "Overview",
    "buckets": "Buckets",
    "shares": "Shares",
    "users": "Users",
    "drives": "Drives",
}
HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    '"><svg onload=alert(2)>',
    "javascript:alert(3)",
    "{{7*7}}${7*7}",
    "a%2Fb%00c+d?e#f",
    "\u202egnp.exe",
    "control \x01 ü 🎈",
    "..",
)


@pytest.fixture(scope="module")
def trove() -> Iterator[TroveServer]:
    with TroveServer(fronts=("s3", "files", "admin", "console")) as server:
        yield server


def get(url: str) -> httpx.Response:
    """As a program without a browser."""
    return httpx.get(url, timeout=WAIT_MS / 1000)


def sign_in(page: Page, trove: TroveServer, access_key: str = "", secret_key: str = "") -> None:
    page.goto(trove.url("console"))
    page.get_by_label("Access key").fill(access_key or trove.access_key)
    page.get_by_label("Secret key").fill(secret_key or trove.secret_key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Areas").wait_for()


def at(page: Page, trove: TroveServer, path: str, heading: str) -> None:
    page.goto(f"{trove.url('console')}/#/{path}")
    page.get_by_role("heading", name=heading, exact=True, level=1).wait_for()


def see(locator: Any, *, gone: bool = False) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_count(0) if gone else expect(locator.first).to_be_visible()


def test_signing_in_and_out(trove: TroveServer, browser: Browser) -> None:
    with window(browser) as page:
        page.goto(trove.url("console"))
        page.get_by_label("Access key").fill(trove.access_key)
        page.get_by_label("Secret key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        see(page.get_by_text("do not belong together"))
        sign_in(page, trove)
        see(page.get_by_role("heading", name="Overview"))
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert kept == '[{},{},""]', "neither secret nor session can be read by a script"
        cookie = page.context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        page.reload()
        see(page.get_by_role("heading", name="Overview"))
        page.get_by_role("button", name="Sign out").click()
        see(page.get_by_label("Secret key"))
        page.reload()
        see(page.get_by_label("Secret key"))
        assert page.evaluate("fetch('/api/s3/').then((answer) => answer.status)") == 401


def test_from_a_new_bucket_to_equal_bytes(trove: TroveServer, browser: Browser) -> None:
    content = os.urandom(20_000)
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "buckets", "Buckets")
        page.get_by_role("button", name="New bucket").click()
        page.get_by_role("textbox", name="Name", exact=True).fill("UPPER")
        page.get_by_role("button", name="Create").click()
        see(page.get_by_role("alert").filter(has_text="bucket"))
        page.get_by_role("textbox", name="Name", exact=True).fill("dropped")
        page.get_by_role("button", name="Create").click()
        see(page.get_by_text("Nothing here yet"))
        drop = """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            return transfer;
        }"""
        transfer = page.evaluate_handle(drop, [list(content), "Grüße & more.png"])
        page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
        see(page.get_by_role("button", name="Grüße & more.png", exact=True))
        found = client_of(trove).get_object(Bucket="dropped", Key="Grüße & more.png")
        assert (found["Body"].read(), found["ContentType"]) == (content, "image/png")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download Grüße & more.png").click()
        assert download.value.suggested_filename == "Grüße & more.png"
        assert Path(download.value.path()).read_bytes() == content
        page.get_by_role("button", name="New folder").click()
        page.get_by_role("textbox", name="Name", exact=True).fill("inner")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="inner").wait_for()
        page.get_by_label("Files to upload").set_input_files(
            [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"%d" % n} for n in range(5)]
        )
        see(page.get_by_role("button", name="4.txt", exact=True))
        at(page, trove, "browse/dropped", "dropped")
        page.get_by_label("Pick inner").check()
        page.get_by_label("Pick Grüße & more.png").check()
        page.get_by_role("button", name="Delete 2").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        see(page.get_by_text("Nothing here yet"))
        assert "Contents" not in client_of(trove).list_objects_v2(Bucket="dropped")


def test_what_is_big_goes_in_parts(trove: TroveServer, browser: Browser, tmp_path: Path) -> None:
    client_of(trove).create_bucket(Bucket="bigger")
    size, file = 40 * 1024 * 1024, tmp_path / "big.bin"
    file.write_bytes(os.urandom(1024 * 1024) * 40)
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "browse/bigger", "bigger")
        page.get_by_label("Files to upload").set_input_files(file)
        page.get_by_role("button", name="big.bin", exact=True).wait_for(timeout=3 * WAIT_MS)
    found = client_of(trove).get_object(Bucket="bigger", Key="big.bin")
    assert found["ETag"].endswith('-2"')
    assert found["ContentLength"] == size
    assert found["Body"].read() == file.read_bytes()


def test_a_share_needs_no_key_and_ends(trove: TroveServer, browser: Browser) -> None:
    client = client_of(trove)
    client.create_bucket(Bucket="shared")
    client.put_object(Bucket="shared", Key="a/report.pdf", Body=b"the report")
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "browse/shared/a%2F", "a")

        def make(uses: str) -> str:
            page.get_by_role("button", name="Share report.pdf").click()
            page.get_by_label("Downloads").fill(uses)
            page.get_by_label("Note").fill("<b>for</b> Anna")
            page.get_by_role("button", name="Make a link").click()
            page.get_by_role("heading", name="The link").wait_for()
            link = page.get_by_role("dialog").locator("code").inner_text()
            page.get_by_role("button", name="Done").click()
            return link

        twice, always = make("2"), make("")
        assert [get(twice).text for _ in range(2)] == ["the report"] * 2
        assert get(twice).status_code == 403
        with window(browser) as stranger, stranger.expect_download() as download:
            stranger.evaluate("(link) => { location.href = link; }", always)
            assert Path(download.value.path()).read_bytes() == b"the report"
        at(page, trove, "shares", "Shares")
        see(page.get_by_text("used up"))
        see(page.get_by_text("<b>for</b> Anna"))
        page.get_by_role("row").filter(has_not_text="used up").get_by_role("button", name="End the link").click()
        page.get_by_role("button", name="End it").click()
        see(page.get_by_role("button", name="End the link to a/report.pdf").nth(1), gone=True)
        assert get(always).status_code == 404


def test_a_user_sees_what_is_allowed(trove: TroveServer, browser: Browser) -> None:
    client = client_of(trove)
    for bucket in ("for-anna", "secret"):
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello")
    policy = """{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::for-anna", "arn:aws:s3:::for-anna/*"]}]}"""
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "users", "Users")
        page.get_by_role("button", name="New user").click()
        page.get_by_role("textbox", name="Name", exact=True).fill("anna")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="A new access key").wait_for()
        access_key, secret_key = page.get_by_role("dialog").locator("code").all_inner_texts()
        page.get_by_role("button", name="Done").click()
        page.get_by_role("heading", name="anna", level=1).wait_for()
        see(page.get_by_text(secret_key), gone=True)
        page.get_by_role("button", name="New policy").click()
        page.get_by_role("textbox", name="Name", exact=True).fill("own")
        area = page.get_by_label("Policy", exact=True)
        for wrong, told in (("{", "This is not JSON"), ('{"Version": "2012-10-17"}', "Statement")):
            area.fill(wrong)
            page.get_by_role("button", name="Save").click()
            see(page.get_by_role("alert").filter(has_text=told))
        area.fill(policy)
        page.get_by_role("button", name="Save").click()
        see(page.get_by_role("button", name="Edit own"))
        with window(browser) as hers:
            sign_in(hers, trove, access_key, secret_key)
            see(hers.get_by_text("You may not list buckets"))
            areas = hers.get_by_role("navigation", name="Areas")
            assert areas.get_by_role("link").all_inner_texts() == ["Buckets", "Shares"]
            hers.get_by_role("button", name="Open by name").click()
            hers.get_by_role("textbox", name="Name", exact=True).fill("for-anna")
            hers.get_by_role("dialog").get_by_role("button", name="Open").click()
            see(hers.get_by_role("button", name="hello.txt", exact=True))
            hers.goto(f"{trove.url('console')}/#/browse/secret")
            see(hers.get_by_text("Access Denied"))
            hers.goto(f"{trove.url('console')}/#/users")
            see(hers.get_by_role("heading", name="Buckets"))
            page.get_by_role("button", name=f"Disable {access_key}").click()
            see(page.get_by_text("disabled", exact=True))
            hers.goto(f"{trove.url('console')}/#/shares")
            see(hers.get_by_label("Secret key"))


def test_plots_move(trove: TroveServer, browser: Browser) -> None:
    from playwright.sync_api import expect

    client = client_of(trove)
    client.create_bucket(Bucket="plotted")
    with window(browser) as page:
        sign_in(page, trove)
        requests = page.locator("figure").filter(has=page.get_by_role("heading", name="Requests"))
        line = requests.locator("polyline")
        expect(line).to_have_count(1)
        before = line.get_attribute("points")
        client.put_object(Bucket="plotted", Key="k", Body=b"x" * 1_000_000)
        assert before is not None
        expect(line).not_to_have_attribute("points", before)
        expect(requests.locator("output")).not_to_have_text("0/s")
        plot = requests.get_by_role("img")
        plot.focus()
        plot.press("ArrowLeft")
        see(requests.locator(".tip strong"))


def test_names_of_others_stay_text(trove: TroveServer, browser: Browser) -> None:
    client = client_of(trove)
    client.create_bucket(Bucket="hostile")
    for name in HOSTILE:
        client.put_object(Bucket="hostile", Key=f"d/{name}", Body=b"<script>alert(9)</script>", ContentType="text/html",
                          Metadata={"evil": "<img src=x onerror=alert(4)>"})  # fmt: skip
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "browse/hostile/d%2F", "d")
        for name in HOSTILE:
            row = page.get_by_role("button", name=f"Download {name}", exact=True)
            see(row)
            with page.expect_download() as download:
                row.click()
            assert Path(download.value.path()).read_bytes() == b"<script>alert(9)</script>"
        assert page.locator("main img, main script").count() == 0
        page.locator("button.entry").filter(has_text="onerror").click()
        see(page.get_by_text("<img src=x onerror=alert(4)>"))
        page.get_by_role("button", name="Close").click()
        page.goto(f"{trove.url('console')}/#/browse/hostile/%3Cimg%20src%3Dx%20onerror%3Dalert(5)%3E%2F")
        see(page.get_by_role("heading", name="<img src=x onerror=alert(5)>"))
        page.goto(f"{trove.url('console')}/#/%%%")
        see(page.get_by_role("heading", name="Overview"))
        page.goto(f"{trove.url('console')}/#/browse/hostile/d%2F")
        for name in HOSTILE:
            page.get_by_label(f"Pick {name}", exact=True).check()
        page.get_by_role("button", name=f"Delete {len(HOSTILE)}").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        see(page.get_by_text("Nothing here yet"))


def test_settings_of_a_bucket(trove: TroveServer, browser: Browser) -> None:
    client = client_of(trove)
    client.create_bucket(Bucket="settled")
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "settings/settled", "Settings of settled")
        page.get_by_role("button", name="Keep versions").click()
        see(page.get_by_role("button", name="Suspend"))
        assert client.get_bucket_versioning(Bucket="settled")["Status"] == "Enabled"
        page.get_by_label("Bytes").fill("1 MiB")
        page.get_by_role("button", name="Save quota").click()
        see(page.get_by_text("The quota holds."))
        page.get_by_role("button", name="Example").first.click()
        page.get_by_role("button", name="Save lifecycle rules").click()
        see(page.get_by_text("Saved."))
        rule = client.get_bucket_lifecycle_configuration(Bucket="settled")["Rules"][0]
        assert (rule["ID"], rule["Filter"], rule["Expiration"]) == ("old-logs", {"Prefix": "logs/"}, {"Days": 30})
        page.get_by_label("Bucket policy", exact=True).fill(
            '{"Version": "2012-10-17", "Statement": [{"Effect": "No"}]}'
        )
        page.get_by_role("button", name="Save bucket policy").click()
        see(page.get_by_role("alert").filter(has_text="Effect"))
        for body in (b"first", b"second"):
            client.put_object(Bucket="settled", Key="k", Body=body)
        page.reload()
        see(page.get_by_role("button", name="Suspend"))
        assert '"Days": 30' in page.get_by_label("Lifecycle rules", exact=True).input_value()
        assert page.get_by_label("Bytes").input_value() == "1.00 MiB"
        at(page, trove, "browse/settled", "settled")
        page.get_by_role("button", name="k", exact=True).click()
        page.get_by_role("button", name="Bring back").click()
        see(page.get_by_text("Brought back"))
        assert client.get_object(Bucket="settled", Key="k")["Body"].read() == b"first"


def test_a_scrub_is_begun_from_the_page(trove: TroveServer, browser: Browser) -> None:
    from playwright.sync_api import expect

    client = client_of(trove)
    client.create_bucket(Bucket="scrubbed")
    client.put_object(Bucket="scrubbed", Key="k", Body=b"x" * 100_000)
    with window(browser) as page:
        sign_in(page, trove)
        at(page, trove, "drives", "Drives")
        see(page.get_by_text(str(trove.data)))
        see(page.get_by_text("No record is known to be damaged."))
        with page.expect_response(lambda each: each.request.method == "POST") as answer:
            page.get_by_role("button", name="Start now").click()
        assert (answer.value.status, answer.value.url) == (200, f"{trove.url('console')}/api/admin/scrub")
        expect(page.get_by_role("progressbar", name="Scrub")).to_have_attribute("aria-valuenow", "100")
        see(page.get_by_text("none yet"), gone=True)


@pytest.mark.parametrize("width", [1280, 360])
def test_every_view_has_names_for_what_can_be_used_and_fits(trove: TroveServer, browser: Browser, width: int) -> None:
    client = client_of(trove)
    client.create_bucket(Bucket=f"fits-{width}")
    client.put_object(Bucket=f"fits-{width}", Key="a-rather-long-name-" * 8, Body=b"x")
    nameless = """() => [...document.querySelectorAll("a, button, input, select, textarea, [role=img], [role=meter]")]
        .filter((each) => each.checkVisibility() && !(each.innerText || each.ariaLabel || each.labels?.length))
        .map((each) => each.outerHTML)"""
    with window(browser, viewport={"width": width, "height": 700}) as page:
        sign_in(page, trove)
        more = {f"browse/fits-{width}": f"fits-{width}", f"settings/fits-{width}": f"Settings of fits-{width}"}
        for path, heading in (VIEWS | more).items():
            at(page, trove, path, heading)
            assert page.evaluate(nameless) == [], path
            assert page.locator("h1").count() == 1
            assert page.title() == f"{heading} · Trove"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, "scrolls sideways")
        page.get_by_role("button", name="Theme").click()
        assert page.locator("html").get_attribute("data-theme") == "light"
        page.get_by_role("button", name="Theme").click()
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "dark"
