"""The page of an asset as a real browser turns it, opened from disk; its viewer draws with WebGL in software."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atoken.assets.gaussian_files import load_ply
from harness.asset_gallery import GROUND, turntable
from reports.build import Report

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt install chromium)")
FLAGS = (
    *("--no-sandbox", "--no-first-run", "--disable-background-networking"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
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
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    yield opened
    context.close()
    # Reading pixels back is what the test does, not the page.
    assert [text for text in wrong if "GPU stall due to ReadPixels" not in text] == []


def path_of(assets_out: Path) -> Path:
    return next((assets_out / "assets").glob("voxel-colour--samples--*--000001.html"))


@pytest.fixture
def lamp(page: playwright.Page, assets_out: Path) -> playwright.Page:
    """The page of an asset with 900 Gaussians, ready to turn."""
    page.goto(path_of(assets_out).as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 3")
    return page


@pytest.fixture
def opened(lamp: playwright.Page) -> playwright.Page:
    """With the viewer opened, and its first picture settled."""
    lamp.locator(".viewer .open").click()
    lamp.wait_for_function("document.querySelector('.viewer canvas').dataset.drawn === '900'")
    settle(lamp)
    return lamp


def settle(page: playwright.Page) -> None:
    """Until the camera, which glides, has come to rest."""
    page.wait_for_function("document.querySelector('.viewer canvas').ariaBusy === 'false'")


def view(page: playwright.Page) -> int:
    return int(page.input_value(".seek"))


def centres(page: playwright.Page) -> dict[str, np.ndarray]:
    """Where the red, green and blue blobs are on the viewer's canvas: (x, y), 0 to 1 from the left and the top."""
    pixels = np.asarray(Image.open(io.BytesIO(page.locator(".viewer canvas").screenshot())).convert("RGB")).astype(int)
    found = {}
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(pixels, channel, axis=2).max(axis=2)
        y, x = np.nonzero((pixels[..., channel] > 180) & (others < 80))
        if len(x):
            found[name] = np.array([x.mean() / pixels.shape[1], y.mean() / pixels.shape[0]])
    return found


def test_a_drag_turns_the_asset(lamp: playwright.Page) -> None:
    start = int(lamp.get_attribute(".player", "data-start") or -1)
    assert view(lamp) == start == 2
    assert lamp.locator(".player .time").inner_text() == "view 2 of 24, from 30°"
    lamp.select_option(".player .view", "reconstruction")
    box = lamp.locator("video").bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lamp.mouse.move(*middle)
    lamp.mouse.down()
    # A panel's width is half a turn, to the right the asset's near side follows: the camera goes back, past 0.
    lamp.mouse.move(middle[0] + box["width"] / 4, middle[1], steps=5)
    lamp.mouse.up()
    assert view(lamp) == (2 - 3) % 24
    assert lamp.evaluate("document.querySelector('video').paused")
    lamp.locator("video").click()  # without a drag it plays
    lamp.wait_for_function("!document.querySelector('video').paused")


def test_the_video_shows_the_view_that_the_page_says(lamp: playwright.Page) -> None:
    lamp.locator("[data-step='-1']").click()
    lamp.locator("[data-step='-1']").click()
    lamp.locator("[data-step='-1']").press("Enter")
    assert view(lamp) == 23  # round and round
    lamp.wait_for_function("!document.querySelector('video').seeking")
    assert lamp.evaluate("document.querySelector('video').currentTime") == pytest.approx(23.5 / 8, abs=1e-3)
    seek = lamp.locator(".seek")
    seek.press("ArrowLeft")
    assert view(lamp) == 22
    places = lamp.eval_on_selector_all(".cursor", "all => all.map(one => parseFloat(one.style.left))")
    assert places == [pytest.approx(100 * 22.5 / 24, abs=0.01)]  # the measured views are others: no cursor there


def test_the_error_of_the_worst_view(lamp: playwright.Page) -> None:
    figure = lamp.locator(".curve[data-values]")
    assert "at view 2," in figure.locator(".summary").inner_text()
    assert figure.locator(".at").inner_text() == figure.locator(".summary").inner_text().split(" ")[1]


def test_the_viewer_draws_upright_and_unmirrored(opened: playwright.Page) -> None:
    # From where the turntable stands, view 2: +x is right, +z is up, +y is behind and so above the middle.
    found = centres(opened)
    red, green, blue = found["red"], found["green"], found["blue"]
    for place, centre in ((red, (0.38, 0, 0)), (green, (0, 0.38, 0)), (blue, (0, 0, 0.38))):
        np.testing.assert_allclose(place, _projected(centre), atol=0.02)
    ground = Image.open(io.BytesIO(opened.locator(".viewer canvas").screenshot())).convert("RGB").getpixel((20, 20))
    assert ground == GROUND


def _projected(point: tuple[float, float, float]) -> np.ndarray:
    place: np.ndarray = turntable()[2].project(np.array(point))[0]
    return place


def test_the_viewer_turns_by_drag_wheel_and_keys(opened: playwright.Page) -> None:
    opened.locator(".viewer canvas").scroll_into_view_if_needed()
    box = opened.locator(".viewer canvas").bounding_box()
    assert box is not None
    canvas = opened.locator(".viewer canvas")
    canvas.press("Home")
    settle(opened)
    first = centres(opened)
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.mouse.move(*middle)
    opened.mouse.down()
    opened.mouse.move(middle[0] + 100, middle[1], steps=4)
    opened.mouse.up()
    settle(opened)
    dragged = centres(opened)
    assert dragged["red"][1] < first["red"][1] - 0.02  # the near side went right, so +x went back, up the picture
    canvas.press("Home")
    settle(opened)
    np.testing.assert_allclose(centres(opened)["red"], first["red"], atol=0.005)
    canvas.press("ArrowRight")
    settle(opened)
    assert centres(opened)["red"][1] < first["red"][1] - 0.005
    opened.locator(".viewer .reset").click()
    settle(opened)
    np.testing.assert_allclose(centres(opened)["red"], first["red"], atol=0.005)
    canvas.press("+")
    settle(opened)
    nearer = centres(opened)
    assert nearer["red"][0] - nearer["blue"][0] > (first["red"][0] - first["blue"][0]) * 1.05


def test_the_wheel_is_the_pages_until_the_viewer_is_clicked(opened: playwright.Page) -> None:
    canvas = opened.locator(".viewer canvas")
    canvas.evaluate("canvas => canvas.blur()")
    canvas.scroll_into_view_if_needed()
    canvas.hover()
    before = opened.evaluate("scrollY")
    opened.mouse.wheel(0, 120)
    opened.wait_for_function(f"scrollY > {before}")
    canvas.focus()
    opened.wait_for_timeout(300)  # the page's scroll glides
    before, first = opened.evaluate("scrollY"), centres(opened)["red"]
    canvas.hover()
    opened.mouse.wheel(0, 120)
    settle(opened)
    assert opened.evaluate("scrollY") == before
    assert abs(centres(opened)["red"][0] - first[0]) > 0.005


def test_the_gaussians_are_saved_as_they_were_written(
    opened: playwright.Page, assets_made: Report, tmp_path: Path
) -> None:
    with opened.expect_download() as waiting:
        opened.locator(".viewer .save").click()
    waiting.value.save_as(tmp_path / "saved.ply")
    assert waiting.value.suggested_filename == "000001.ply"
    run = next(record for record in assets_made.records if record.spec == "voxel-colour")
    splat = run.assets[0].splat
    assert splat is not None
    assert (tmp_path / "saved.ply").read_bytes() == splat.read_bytes()
    assert len(load_ply(tmp_path / "saved.ply")) == 900


def test_every_page_with_assets_fits_the_screen(page: playwright.Page, assets_out: Path) -> None:
    for file in [
        assets_out / "index.html",
        assets_out / "tables/table08.html",
        *sorted((assets_out / "assets").iterdir()),
    ]:
        page.goto(file.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{file.name} scrolls sideways as a whole"
        assert page.locator("h1").count() == 1


def test_the_same_view_under_another_tokenizer(lamp: playwright.Page) -> None:
    lamp.locator("[data-step='1']").click()
    lamp.locator(".switcher a", has_text="identity").click()
    lamp.wait_for_function("document.querySelector('.switcher [aria-current]').textContent === 'identity'")
    # The page is there before its script has read the address.
    lamp.wait_for_function("document.querySelector('.seek').value === '3'")
    assert lamp.locator(".viewer").count() == 0


def test_without_webgl_the_viewer_says_so(browser: playwright.Browser, assets_out: Path) -> None:
    context = browser.new_context()
    bare = context.new_page()
    bare.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    bare.goto(path_of(assets_out).as_uri())
    bare.locator(".viewer .open").click()
    bare.locator(".viewer .said", has_text="this browser has no WebGL 2").wait_for()
    assert not bare.locator(".viewer canvas").is_visible()
    context.close()


def test_without_scripts_the_turntable_plays(browser: playwright.Browser, assets_out: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(path_of(assets_out).as_uri())
    assert bare.locator("video").get_attribute("controls") is not None
    assert not bare.locator(".viewer .open").is_visible()
    assert "The viewer needs scripts." in bare.locator(".viewer").inner_text()
    assert bare.locator(".plot-area path").count() == 4
    context.close()
