"""The report as a real browser shows it, opened from disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, make_run

from reports.build import build
from reports.command import FORMATS, write
from reports.records import read_all

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt install chromium)")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with measured, printed and missing figures."""
    folder = tmp_path_factory.mktemp("site")
    runs = folder / "runs"
    for spec in ("identity", "jpeg:75", "jpeg:10", "dct:48", "atoken"):
        make_run(runs, spec)
    make_run(runs, "atoken", protocol="adm", shift=0.25)
    make_run(runs, "atoken:so-c.pt", dataset="imagenet-val", expected=50_000)
    out = folder / "report"
    out.mkdir()
    write(build(read_all(runs), EXPERIMENTS), out, FORMATS)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(browser: playwright.Browser, request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """A page that fails the test if anything goes wrong behind the reader's back."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))

    def failed(asked: playwright.Request) -> None:
        # A picture that was still loading when a link was followed is given up, which is no failure.
        if asked.failure != "net::ERR_ABORTED":
            wrong.append(f"{asked.failure}: {asked.url}")

    opened.on("requestfailed", failed)
    opened.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    yield opened
    context.close()
    assert wrong == []


def rows(page: playwright.Page, table: str) -> list[list[str]]:
    found: list[list[str]] = page.eval_on_selector_all(
        f"{table} tbody tr:not(.section)", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return found


def names(page: playwright.Page, table: str) -> list[str]:
    return [row[0].split("\n")[0] for row in rows(page, table)]


def test_every_page_opens_and_fits_the_screen(page: playwright.Page, site: Path) -> None:
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{file.name} scrolls sideways as a whole"
        assert page.locator("h1").count() == 1


def test_the_figures_are_there(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    identity = next(row for row in rows(page, "#table-image-recon-samples") if row[0].startswith("identity"))
    assert identity[5] == "∞"
    assert identity[6].startswith("1.000")
    stage3 = next(row for row in rows(page, "#table-image-recon-imagenet-val") if "Stage 3" in row[0])
    assert "n = 12 of 50,000" in stage3[0]
    assert stage3[5] == "29.72"
    here, change = (float(text.split("\n")[0].replace("−", "-")) for text in stage3[6:8])
    assert here - 29.72 == pytest.approx(change, abs=0.011)
    page.goto((site / "tables" / "table04.html").as_uri())
    printed = next(row for row in rows(page, "#printed-table04") if row[0].startswith("SD-VAE"))
    figures = [re.findall(r"[\d.]+$", text.strip())[0] for text in printed[-4:]]
    assert figures == ["25.99", "0.759", "0.130", "4.142"]


def test_sorting_goes_best_first_then_turns_then_ends(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    before = names(page, "#table-image-recon-samples")
    psnr = page.locator("#table-image-recon-samples thead button", has_text="PSNR")
    psnr.click()
    once = names(page, "#table-image-recon-samples")
    assert once[0] == "identity"
    assert once[-1] == "JPEG, quality 10"
    assert page.locator("#table-image-recon-samples th[aria-sort=descending]").inner_text().startswith("PSNR")
    assert page.locator("#table-image-recon-samples tr.section").count() == 0
    psnr.press("Enter")
    assert names(page, "#table-image-recon-samples") == once[::-1]
    psnr.click()
    assert names(page, "#table-image-recon-samples") == before
    assert page.locator("#table-image-recon-samples tr.section").count() == 2


def test_rows_without_a_figure_sort_last_both_ways(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    here = page.locator("#table-image-recon-imagenet-val thead th.here button").first
    for _ in range(2):
        here.click()
        assert "Stage 3" in names(page, "#table-image-recon-imagenet-val")[0]


def test_lower_is_better_sorts_upward_first(page: playwright.Page, site: Path) -> None:
    page.goto((site / "tables" / "table04.html").as_uri())
    page.locator("#printed-table04 thead button", has_text="rFID").first.click()
    assert names(page, "#printed-table04")[0] == "FLUX.1 [dev]"


def test_every_picture_loads(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    page.evaluate("document.querySelectorAll('img[src]').forEach(image => { image.loading = 'eager'; })")
    pictures = "[...document.querySelectorAll('img[src]')]"
    page.wait_for_function(f"{pictures}.length > 10 && {pictures}.every(image => image.complete)")
    assert page.evaluate(f"{pictures}.every(image => image.naturalWidth > 0)")


def test_zoom_flips_between_versions_by_keyboard(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    picture = page.locator(".triple a[data-zoom]").first
    picture.focus()
    picture.press("Enter")
    dialog = page.locator("dialog#zoom")
    dialog.wait_for(state="visible")
    assert dialog.locator(".caption").inner_text().endswith("original")
    # Decoded when the browser finds time for it; one that cannot be loaded stays at 0 and ends in a time-out.
    page.wait_for_function("document.querySelector('#zoom img').naturalWidth > 0")
    page.keyboard.press("ArrowRight")
    assert "reconstruction by" in dialog.locator(".caption").inner_text()
    page.keyboard.press("ArrowRight")
    assert "error map" in dialog.locator(".caption").inner_text()
    page.keyboard.press("ArrowRight")
    assert dialog.locator(".counter").inner_text() == "1 of 3"
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_error_maps_take_the_place_of_reconstructions(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    strip = page.locator(".strips").first
    assert strip.locator("a.reconstruction").first.is_visible()
    strip.locator("input[data-errors]").check()
    assert not strip.locator("a.reconstruction").first.is_visible()
    assert strip.locator("a.error").first.is_visible()


def test_colours_follow_the_system_and_the_button(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")

    def brightness() -> float:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(float(part) for part in re.findall(r"\d+", color)[:3]) / 3

    assert (brightness() < 60) is dark
    page.locator("#theme").click()
    assert (brightness() < 60) is not dark


def test_a_reader_gets_from_a_figure_to_its_evidence(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator("#table-image-recon-samples tbody th a", has_text="DCT").click()
    assert page.locator("h1").inner_text().startswith("DCT, 48 of 768")
    assert page.locator("svg.histogram").count() >= 2
    page.locator("a", has_text="record.json").click()
    assert '"schema": 1' in page.inner_text("body")


def test_without_scripts_the_tables_and_pictures_are_there(browser: playwright.Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto((site / "index.html").as_uri())
    assert bare.locator("#table-image-recon-samples tbody tr.measured").count() == 5
    href = bare.locator(".triple a[data-zoom]").first.get_attribute("href")
    assert href is not None
    assert (site / href).is_file()
    assert not bare.locator("#theme").is_visible()
    context.close()
