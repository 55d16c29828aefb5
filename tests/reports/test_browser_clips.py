"""The page of a clip as a real browser plays it, opened from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt install chromium)")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(browser: playwright.Browser, request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """A page that fails the test if anything goes wrong behind the reader's back, or anything leaves the disk."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    yield opened
    context.close()
    assert wrong == []


@pytest.fixture
def nano(page: playwright.Page, clips_out: Path) -> playwright.Page:
    """The page of a clip of 26 frames at 12 per second, in tiles of 8, ready to play."""
    path = next((clips_out / "clips").glob("atoken-nano--samples--paper-davis--*--000001.html"))
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 3")
    return page


def frame(page: playwright.Page) -> int:
    return int(page.input_value(".seek"))


def cursor(page: playwright.Page) -> list[float]:
    found: list[float] = page.eval_on_selector_all(".cursor", "all => all.map(one => parseFloat(one.style.left))")
    return found


def test_the_video_loads_and_plays(nano: playwright.Page) -> None:
    size = nano.evaluate("(v => [v.videoWidth, v.videoHeight, v.duration])(document.querySelector('video'))")
    assert size == [3 * 448, 252, pytest.approx(26 / 12, abs=0.1)]
    before = cursor(nano)
    nano.locator(".play").click()
    nano.wait_for_function("document.querySelector('video').currentTime > 0.3")
    assert nano.locator(".play").inner_text() == "Pause"
    nano.locator(".play").press("Space")
    # The event that renames the button comes after the video has stopped.
    nano.wait_for_function("document.querySelector('.play').innerText === 'Play'")
    assert nano.evaluate("document.querySelector('video').paused")
    now = nano.evaluate("document.querySelector('video').currentTime")
    nano.wait_for_function(f"Math.abs(document.querySelector('.seek').value - {now} * 12) <= 1")
    assert cursor(nano) != before
    assert cursor(nano) == [pytest.approx(100 * (frame(nano) + 0.5) / 26, abs=0.01)] * 3


def test_it_begins_at_the_posters_frame_with_the_curves_values(nano: playwright.Page) -> None:
    start = int(nano.get_attribute(".player", "data-start") or -1)
    assert frame(nano) == start
    worst = nano.locator(".curve .summary").first.inner_text()
    assert f"at frame {start}," in worst
    assert nano.locator(".curve .at").first.inner_text() == worst.split(" at frame")[0].removeprefix("worst ")
    assert nano.locator(".time").inner_text().startswith(f"frame {start} of 26, ")


def test_a_click_on_a_curve_goes_there(nano: playwright.Page) -> None:
    area = nano.locator(".plot-area").nth(1)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    area.click(position={"x": box["width"] * (8 + 0.5) / 26, "y": 40})
    nano.wait_for_function("!document.querySelector('video').seeking")
    assert frame(nano) == 8
    assert nano.evaluate("document.querySelector('video').currentTime") == pytest.approx(8.5 / 12, abs=1e-3)
    assert cursor(nano) == [pytest.approx(100 * 8.5 / 26, abs=0.01)] * 3


def test_frames_are_stepped_by_keyboard(nano: playwright.Page) -> None:
    seek = nano.locator(".seek")
    seek.focus()
    seek.press("Home")
    seek.press("ArrowRight")
    assert frame(nano) == 1
    nano.locator("[data-step='1']").press("Enter")
    nano.locator("[data-step='1']").press("Enter")
    nano.locator("[data-step='-1']").press("Enter")
    assert frame(nano) == 2
    seek.press("End")
    nano.wait_for_function("document.querySelector('video').currentTime > 25 / 12")
    assert frame(nano) == 25


def test_one_panel_fills_the_stage(nano: playwright.Page) -> None:
    # On a phone the page begins so: three panels would be thumbnails.
    narrow = nano.viewport_size is not None and nano.viewport_size["width"] < 640
    assert nano.input_value(".view") == ("reconstruction" if narrow else "all")
    for view, ratio in (("all", 3 * 448 / 252), ("error", 448 / 252), ("original", 448 / 252)):
        nano.select_option(".view", view)
        box = nano.locator("video").bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02)
        said = nano.locator(".panels").inner_text().split("\n")
        assert [part for part in said if part] == (
            ["Original", "atoken-nano", "Error"] if view == "all" else [view.capitalize()]
        )
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not nano.evaluate(wide)


def test_the_same_frame_under_another_tokenizer(nano: playwright.Page) -> None:
    nano.locator(".seek").focus()
    nano.locator(".seek").press("Home")
    nano.locator(".seek").press("ArrowRight")
    nano.select_option(".view", "error")
    nano.locator(".switcher a", has_text="DCT").click()
    nano.wait_for_function("document.querySelector('video').readyState >= 2")
    assert nano.locator("h1").inner_text() == "clips/goat.mp4 by DCT, 48 of 3072"
    # The page is there before its script has read the address.
    nano.wait_for_function("document.querySelector('.seek').value === '1'")
    assert (frame(nano), nano.input_value(".view")) == (1, "error")
    assert nano.evaluate("document.querySelector('video').currentTime") == pytest.approx(1.5 / 12, abs=1e-3)


def test_slow_motion(nano: playwright.Page) -> None:
    nano.select_option(".speed", "0.25")
    assert nano.evaluate("document.querySelector('video').playbackRate") == 0.25


def test_every_page_with_clips_fits_the_screen(page: playwright.Page, clips_out: Path) -> None:
    for file in [clips_out / "index.html", *sorted((clips_out / "clips").iterdir())]:
        page.goto(file.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{file.name} scrolls sideways as a whole"
        assert page.locator("h1").count() == 1


def test_a_reader_gets_from_a_strip_to_the_clip_and_on(page: playwright.Page, clips_out: Path) -> None:
    page.goto((clips_out / "index.html").as_uri())
    page.locator(".clip-gallery h4 + .stills .poster").first.click()
    page.locator("video").wait_for()
    first = page.locator("h1").inner_text()
    page.locator(".pager a").first.click()
    page.locator("video").wait_for()
    assert page.locator("h1").inner_text() != first
    page.locator(".kicker a").click()
    page.locator(".samples a").first.click()
    page.locator("video").wait_for()


def test_the_player_follows_light_and_dark(nano: playwright.Page) -> None:
    def stroke() -> str:
        color: str = nano.evaluate("getComputedStyle(document.querySelector('.plot-area path')).stroke")
        return color

    before = stroke()
    nano.locator("#theme").click()
    assert stroke() != before


def test_without_scripts_the_clip_plays_and_the_curves_stand(browser: playwright.Browser, clips_out: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(next((clips_out / "clips").glob("atoken-nano--samples--paper*--000001.html")).as_uri())
    assert bare.locator("video").get_attribute("controls") is not None
    assert not bare.locator(".transport").is_visible()
    assert not bare.locator(".cursor").first.is_visible()
    assert bare.locator(".plot-area path").count() == 3
    assert "worst" in bare.locator(".curve .summary").first.inner_text()
    context.close()
