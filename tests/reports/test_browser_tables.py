"""Tables with states, the filter, the way from worst to best and the zoom, as a real browser does them from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, make_run
from test_browser import FLAGS, names
from test_report_checks import make_check

from reports.build import build
from reports.checks import read_checks
from reports.command import FORMATS, write
from reports.records import read_all

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every state in it."""
    folder = tmp_path_factory.mktemp("states")
    runs = folder / "runs"
    for spec in ("identity", "jpeg:75", "jpeg:10", "atoken"):
        make_run(runs, spec)
    make_run(runs, "atoken:so-c.pt", dataset="imagenet-val", expected=50_000)
    make_run(runs, "jpeg:75", dataset="imagenet-val", expected=50_000)
    make_check(runs, "mine", {"image reconstruction", "native resolution"})
    out = folder / "report"
    out.mkdir()
    write(build(read_all(runs), EXPERIMENTS, checks=read_checks(runs)), out, FORMATS)
    return out


@pytest.fixture(params=[(1440, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """A page that fails the test if anything goes wrong behind the reader's back."""
    width, scheme = request.param
    wrong: list[str] = []
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        opened = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on(
            "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url)
        )
        yield opened
        browser.close()
    assert wrong == []


def test_every_page_fits_and_states_are_told_in_words(page: playwright.Page, site: Path) -> None:
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{file.name} scrolls sideways as a whole"
    page.goto((site / "tables" / "table04.html").as_uri())
    cells = page.locator("#printed-table04 td.state")
    said = cells.evaluate_all("cells => cells.map(cell => cell.textContent)")
    for mark, words in (("●", "measured here:"), ("○", "printed only:"), ("✕", "printed, not reproducible:")):
        found = [text for text in said if mark in text]
        assert found
        assert all(words in text for text in found)
    # Each mark is in the key with how many there are; what was measured beside the paper's rows has a line of its own.
    key = page.locator(".key").inner_text()
    assert f"{sum('○' in text for text in said)} printed in the paper only" in key
    assert f"{sum('✕' in text for text in said)} not reproducible" in key


def test_a_row_leads_to_the_command_that_measures_it(page: playwright.Page, site: Path) -> None:
    page.goto((site / "tables" / "table04.html").as_uri())
    page.locator("#printed-table04 tr", has_text="SD-VAE").locator(".ways a").first.click()
    target = page.locator(".how li:target")
    assert target.locator("code").first.inner_text().startswith("atoken-bench run image-recon --data imagenet-val=PATH")
    assert "SD-VAE" in target.inner_text()
    page.locator("#printed-table04 tr", has_text="Stage 2").locator("a.why").first.click()
    assert "Stage 2" in page.locator(".reasons.missing li:target").inner_text()


def test_whole_tables_sort_by_what_was_measured_or_printed(page: playwright.Page, site: Path) -> None:
    page.goto((site / "tables" / "table04.html").as_uri())
    before = names(page, "#printed-table04")
    head = page.locator("#printed-table04 thead button", has_text="rFID").first
    head.focus()
    head.press("Enter")
    assert names(page, "#printed-table04")[0] == "FLUX.1 [dev]"
    assert page.locator("#printed-table04 th[aria-sort=ascending]").count() == 1
    head.press("Space")
    assert page.locator("#printed-table04 th[aria-sort=descending]").count() == 1
    # A row that was measured and whose rFID is absent has no value of its own and none printed: it stays last.
    assert names(page, "#printed-table04")[-1].startswith("JPEG, quality 75")
    head.press("Enter")
    assert names(page, "#printed-table04") == before
    # One stop of the tab key for a column, not two.
    assert page.locator("#printed-table04 thead [tabindex]").count() == 0


def test_the_filter_narrows_rows_and_pictures(page: playwright.Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    field = page.get_by_placeholder("Filter by tokenizer")
    field.fill("jpeg, quality 10")
    shown = [name for name in names_shown(page, "#table-image-recon-samples") if name]
    assert shown == ["JPEG, quality 10"]
    assert page.locator("details.run-gallery:visible").count() == 1
    # A section without rows goes with them.
    sections = page.locator("#table-image-recon-samples tr.section:visible").all_inner_texts()
    assert [text.strip() for text in sections] == ["Reference rows"]
    assert page.locator("#filter output").inner_text().endswith("rows")
    page.locator("#table-image-recon-samples thead button", has_text="PSNR").click()
    assert names_shown(page, "#table-image-recon-samples") == ["JPEG, quality 10"]
    field.press("Escape")
    assert len(names_shown(page, "#table-image-recon-samples")) == 4


def names_shown(page: playwright.Page, table: str) -> list[str]:
    rows: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr:not(.section)",
        "rows => rows.filter(row => row.checkVisibility()).map(row => row.cells[0].querySelector('a').innerText)",
    )
    return rows


def test_worst_samples_are_browsed_in_the_order_of_the_table(page: playwright.Page, site: Path) -> None:
    page.goto(next((site / "runs").glob("jpeg-10--samples--*.html")).as_uri())
    table = page.locator("table.samples")
    ids = table.locator("tbody th").all_inner_texts()
    assert len(ids) == 12
    table.locator("thead button", has_text="SSIM").click()
    sorted_ids = table.locator("tbody th").all_inner_texts()
    assert sorted_ids != ids
    shown = [row for row in sorted_ids if table.locator("tr[data-series]", has_text=row).count()]
    assert len(shown) == 3
    table.locator("tr[data-series]").first.locator("a[data-zoom]").nth(1).press("Enter")
    caption = page.locator("#zoom .caption")
    for name in shown:
        assert caption.inner_text().startswith(f"{name}, reconstruction")
        page.keyboard.press("ArrowDown")
    # There is none after the last, and the button says so.
    assert caption.inner_text().startswith(f"{shown[-1]}, reconstruction")
    assert page.locator("#zoom .sample-after").is_disabled()
    page.locator("#zoom .sample-before").click()
    assert caption.inner_text().startswith(f"{shown[-2]}, ")


PICTURE = "document.querySelector('#zoom img').getBoundingClientRect()"


def test_a_picture_grows_stays_there_and_comes_back(page: playwright.Page, site: Path) -> None:
    page.goto(next((site / "runs").glob("jpeg-10--samples--*.html")).as_uri())
    page.locator(".triple a[data-zoom]").first.click()
    level = page.locator("#zoom .level")
    whole: float = page.evaluate(f"{PICTURE}.width")
    assert level.inner_text() == "100 %"
    page.keyboard.press("+")
    page.locator("#zoom .nearer").click()
    scale = int(level.inner_text().removesuffix(" %")) / 100
    assert scale > 1.5
    # What is drawn follows with the browser's next frame.
    page.wait_for_function(f"Math.abs({PICTURE}.width / {whole} - {scale}) < 0.01")
    # The same place in the other version.
    page.locator("#zoom .versions button", has_text="Error").click()
    assert page.locator("#zoom .versions [aria-pressed=true]").inner_text() == "Error"
    assert page.locator("#zoom .caption").inner_text().split(", ")[1].startswith("error map")
    assert page.evaluate(f"{PICTURE}.width") > 1.5 * whole
    left = page.evaluate(f"{PICTURE}.left")
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_function(f"{PICTURE}.left > {left}")
    page.mouse.move(*middle(page))
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"{PICTURE}.width > {1.01 * scale * whole}")
    page.keyboard.press("0")
    page.wait_for_function(f"{PICTURE}.width === {whole}")
    page.locator("#zoom .close").click()
    assert not page.locator("#zoom").is_visible()


def middle(page: playwright.Page) -> tuple[float, float]:
    box = page.locator("#zoom .frame").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_keyboard_reaches_everything(page: playwright.Page, site: Path) -> None:
    page.goto((site / "tables" / "table01.html").as_uri())
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.placeholder || document.activeElement.innerText"))
    assert reached[0] == "Skip to the content"
    assert "Filter by tokenizer" in reached
    assert "Method" in reached
    page.keyboard.press("Enter")
    page.locator("#seen-mine--01234567").scroll_into_view_if_needed()
    assert "saw <native resolution>" in page.locator("#seen-mine--01234567").inner_text()
