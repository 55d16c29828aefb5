"""CSV, JSON, Markdown, LaTeX and HTML say the same figures, whatever a name is made of."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fake_runs import EXPERIMENTS, make_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports import data, latex, markdown, numbers
from reports.build import Report, build, caption, letter
from reports.command import FORMATS, write
from reports.grid import Grid, GridCell, panel_grid, spread_grid, state_grid
from reports.records import read_all
from reports.table_pages import states

LATEX = shutil.which("tectonic") or shutil.which("pdflatex")
NASTY = r"A&B 50% a_b <script>alert(1)</script> {x} $y$ #1 ~ ^ \end | `c` *d* [e](f) †×"
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40
).filter(
    str.strip  # a card's name is never blank
)
figures = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(10**9), 10**9), st.booleans(), names)


@given(st.lists(st.fixed_dictionaries({"name": names, "value": st.floats(allow_nan=False)}), max_size=5))
def test_csv_round_trip(rows: list[dict[str, Any]]) -> None:
    read = list(csv.DictReader(StringIO(data.to_csv(rows, ("name", "value")), newline="")))
    assert [{"name": row["name"], "value": float(row["value"])} for row in read] == rows


@given(st.lists(st.fixed_dictionaries({"a": figures, "b": figures}), max_size=5))
def test_json_round_trip(rows: list[dict[str, Any]]) -> None:
    def forbidden(name: str) -> object:
        raise AssertionError(f"{name} is no JSON")

    read = json.loads(data.to_json(rows), parse_constant=forbidden)
    words = {math.inf: "Infinity", -math.inf: "-Infinity"}
    assert read == [{key: words.get(v, v) if isinstance(v, float) else v for key, v in row.items()} for row in rows]


def test_the_files_hold_every_figure_exactly(made: Report) -> None:
    comparison = made.comparisons[0]
    rows = data.figures(made, comparison)
    read = list(csv.DictReader(StringIO(data.to_csv(rows, data.FIELDS), newline="")))
    assert len(read) == len(rows)
    stated = json.loads(data.to_json(rows))
    for row, text, entry in zip(rows, read, stated, strict=True):
        for field in ("printed", "measured", "low", "high", "difference"):
            assert (float(text[field]) if text[field] else None) == row[field]
            assert (None if entry[field] is None else float(entry[field])) == row[field]
    assert sum(row["printed"] is not None for row in rows) == 21 * 8
    # The paper has two rows of that name, which their token type tells apart.
    printed = {(row["tokenizer"], row["token_type"], row["dataset"], row["metric"]): row["printed"] for row in rows}
    omni = [printed["OmniTokenizer", kind, "imagenet-val", "PSNR"] for kind in ("VAE", "VQ")]
    assert omni == [26.74, 24.69]
    identity = next(row for row in stated if row["tokenizer"] == "identity" and row["metric"] == "PSNR")
    assert identity["measured"] == "Infinity"
    rfid = next(row for row in rows if row["tokenizer"] == "identity" and row["metric"] == "rFID")
    assert (rfid["measured"], "pt_inception" in rfid["absent"]) == (None, True)


def grid(name: str) -> Grid:
    cells = (GridCell(name), GridCell("27.10", "[26.9, 27.3]", strong=True), GridCell(numbers.DASH, mark="a"))
    return Grid(name, name, (), ("Tokenizer", "PSNR↑", name), 1, (name, cells), (("a", name),))


def flat(text: str) -> str:
    return " ".join(text.split())


@given(names)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_markdown_shows_names_as_they_are(name: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown.document(name, [grid(name)]))
    inline = ["".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"]
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "em_open", "em_close"}
    assert sum(token.type == "tr_open" for token in tokens) == 3
    shown = flat(name)
    assert inline[:2] == [shown, shown]
    assert inline[2:5] == ["Tokenizer", "PSNR↑", shown]
    assert inline[8:11] == [shown, "27.10 [26.9, 27.3]", f"{numbers.DASH} (a)"]
    assert inline[11] == shown


_COMMANDS = re.compile(
    r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|textendash|textasciigrave|dag|checkmark)\{\}"
    r"|(?<=[-'])\{\}|\\[{}$&#%_]|\{\[\}|\{\]\}|\$(?:\\(?:times|uparrow|downarrow|rightarrow|infty|pm|Delta|bullet|circ|otimes)|-)\$"
)


@given(names)
def test_latex_leaves_no_special_character(name: str) -> None:
    left = _COMMANDS.sub("", latex.escape(name))
    assert not set(left) & set("\\{}$&#%_^~<>|[]")
    assert "\n" not in latex.escape(name + "\n")
    assert not re.search(r"--|''", latex.escape(name + "--weights ''x''"))


@pytest.mark.parametrize("wide", [True, False])
def test_latex_structure(made: Report, wide: bool) -> None:
    comparison = made.comparisons[0]
    panel = comparison.panels[0 if wide else 1]
    text = latex.document([panel_grid(panel, caption(panel))], "table04")
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 1
    preamble, columns, body = re.split(r"\\begin\{tabular\}\{([lr]+)\}", text)
    body = body.split(r"\end{tabular}")[0]
    assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    rows = [row for row in body.splitlines() if row.endswith(r"\\")]
    for row in rows:
        spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        separators = len(re.findall(r"(?<!\\)&", row))
        assert separators + 1 + sum(spans) - len(spans) == len(columns)
    # Braces balance outside escapes, so nothing swallows the next row.
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(rows) > 21 if wide else len(rows) == 8
    assert preamble.startswith("% Needs")


@pytest.mark.skipif(LATEX is None, reason="needs tectonic or pdflatex")
def test_latex_compiles(made: Report, tmp_path: Path) -> None:
    assert LATEX is not None
    grids = [panel_grid(panel, caption(panel)) for panel in made.comparisons[0].panels]
    grids += [state_grid(state) for state in states(made).values()]
    grids.append(grid(NASTY))
    head = r"\documentclass{article}\usepackage{booktabs,amssymb,graphicx}\begin{document}" + "\n"
    # LaTeX holds a few floats at a time.
    body = "\\clearpage\n".join(latex.document([one], f"t{place}") for place, one in enumerate(grids))
    (tmp_path / "t.tex").write_text(head + body + r"\end{document}", encoding="utf-8")
    options = [] if LATEX.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([LATEX, *options, "t.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").is_file()


def test_bold_marks_agree_between_formats(made: Report) -> None:
    comparison = made.comparisons[0]
    grids = [panel_grid(panel, caption(panel)) for panel in comparison.panels]
    bold = sum(cell.strong for g in grids for row in g.rows if not isinstance(row, str) for cell in row)
    assert bold == latex.document(grids, "x").count(r"\textbf{")
    assert bold == len(re.findall(r"\*\*[^*|]+\*\*", markdown.document("x", grids)))
    marked = sum(row["best"] + row["printed_best"] for row in data.figures(made, comparison))
    assert bold == marked > 0


def test_spread_grid(made: Report) -> None:
    panel = made.protocols[0]
    shown = spread_grid(panel, panel.spreads[0])
    assert shown.header == ("Tokenizer", "paper", "adm", "spread")
    cells = next(row for row in shown.rows if not isinstance(row, str) and row[0].text == "atoken-nano")
    assert cells[-1].text == "0.25"


class Reader(HTMLParser):
    """Collects texts, links and element names of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attributes:
            if key in ("href", "src") and value is not None:
                self.links.append(value)
            if key == "id" and value is not None:
                self.ids.append(value)
            assert not key.startswith("on"), "no script in attributes"

    def handle_data(self, text: str) -> None:
        self.texts.append(text)


def page(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_html_shows_nasty_names_as_they_are(tmp_path: Path) -> None:
    failed = [{"id": NASTY, "reason": NASTY}]
    samples = {"expected": None, "selected": 12, "used": 12, "failed": failed}
    make_run(tmp_path / "runs", "x", card={"title": NASTY, "source": NASTY}, changes={"samples": samples})
    made = build(read_all(tmp_path / "runs"), EXPERIMENTS)
    out = tmp_path / "out"
    out.mkdir()
    write(made, out, FORMATS)
    index = page(out / "index.html")
    assert NASTY in index.texts
    run = page(next((out / "runs").glob("*.html")))
    assert run.texts.count(NASTY) >= 3
    for reader in (index, run):
        # The one script element is the report's own; a name that became an element would add its text.
        assert "alert(1)" not in reader.texts


def test_every_link_of_every_page_resolves(made: Report, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(made, out, FORMATS)
    pages = sorted(out.rglob("*.html"))
    assert len(pages) == 1 + 13 + len(made.records)
    known = {path: page(path) for path in pages}
    for path, reader in known.items():
        assert len(reader.ids) == len(set(reader.ids)), f"{path.name}: an id twice"
        for link in reader.links:
            assert not re.match(r"(?!data:,)[a-z]+:|//", link), f"{path.name}: {link} leaves the folder"
            if link == "data:,":
                continue
            target, _, anchor = link.partition("#")
            file = path if not target else (path.parent / target).resolve()
            assert file.is_file(), f"{path.name}: {link}"
            assert file.is_relative_to(out.resolve())
            if anchor:
                assert anchor in known[file].ids, f"{path.name}: {link}"


def test_the_same_records_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        out = tmp_path / name
        out.mkdir()
        write(build(read_all(runs), EXPERIMENTS), out, FORMATS)
        texts.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert texts[0] == texts[1]


def test_an_original_shared_by_runs_is_copied_once(made: Report, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(made, out, ("html",))
    # Reconstructions of identity are its originals, too: far fewer files than pictures in the records.
    listed = sum(3 * len(record.gallery) for record in made.records)
    assert 0 < len(list((out / "pictures").iterdir())) < listed / 2


def test_a_lost_picture_is_said(runs: Path, tmp_path: Path) -> None:
    for path in runs.rglob("worst-error.png"):
        path.unlink()
    out = tmp_path / "out"
    out.mkdir()
    write(build(read_all(runs), EXPERIMENTS), out, ("html",))
    assert "picture missing" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(27.104, 2, "27.10"), (-0.301, 2, "−0.30"), (-0.001, 2, "0.00"), (math.inf, 2, "∞"), (0.0, 3, "0.000")],
)
def test_figures_as_text(value: float, decimals: int, text: str) -> None:
    assert numbers.figure(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.304, "+0.30"), (-0.304, "−0.30"), (-0.001, "±0.00"), (0.0, "±0.00"), (math.inf, "+∞")]
)
def test_differences_as_text(value: float, text: str) -> None:
    assert numbers.difference(value, 2) == text


@given(st.floats(-1e9, 1e9), st.integers(0, 6))
def test_a_figure_reads_back_to_its_rounding(value: float, decimals: int) -> None:
    text = numbers.figure(value, decimals).replace(numbers.MINUS, "-")
    assert float(text) == float(f"{value:.{decimals}f}")


def test_footnote_letters_never_run_out() -> None:
    reasons = [str(place) for place in range(60)]
    letters = [letter(reasons, reason) for reason in reasons]
    assert letters[0] == "a"
    assert letters[25:28] == ["z", "aa", "ab"]
    assert len(set(letters)) == 60


def test_a_cell_with_its_own_n_says_so(made: Report) -> None:
    panel = made.comparisons[0].panels[1]
    line = panel.lines[0]
    figure = line.figures[0]
    assert figure.cell is not None
    fewer = replace(figure, cell=replace(figure.cell, n=7))
    shown = panel_grid(replace(panel, lines=(replace(line, figures=(fewer, *line.figures[1:])),)), "")
    cells = shown.rows[1]
    assert not isinstance(cells, str)
    assert cells[5].remark.endswith("n = 7 of 12")
