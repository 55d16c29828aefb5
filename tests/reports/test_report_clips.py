"""Pages of clips: what they show, and what they say of each other."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_clips import EXPERIMENTS, TILE, clip, make_clip_run

from harness.errors import BenchError
from reports import clip_page, html
from reports.build import Report, build
from reports.clips import ClipShot, Shelf
from reports.command import write
from reports.pictures import Album
from reports.records import Record, read_all


@pytest.fixture(scope="module")
def shelf(clips_made: Report, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(clips_made, Album(tmp_path_factory.mktemp("shelf")))


def record(report: Report, title: str, dataset: str = "samples", protocol: str = "paper-davis") -> Record:
    return next(
        r
        for r in report.records
        if (r.title, r.dataset["name"], r.protocol["name"], r.modality) == (title, dataset, protocol, "video")
    )


def on_samples(report: Report) -> list[Record]:
    videos = [r for r in report.records if r.dataset["name"] == "samples" and r.modality == "video"]
    return [r for r in videos if r.protocol["name"] == "paper-davis"]


def shot(report: Report, shelf: Shelf, title: str, clip_id: str, **where: str) -> ClipShot:
    return next(shot for shot in shelf.shots(record(report, title, **where)) if shot.id == clip_id)


class Page(HTMLParser):
    """Links, ids and videos of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.videos: list[dict[str, str | None]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        here = dict(attrs)
        self.links += [str(here[key]) for key in ("href", "src", "poster") if here.get(key)]
        if here.get("id"):
            self.ids.append(str(here["id"]))
        if tag == "video":
            self.videos.append(here)


def test_every_clip_of_every_gallery_has_a_page_and_every_link_resolves(clips_made: Report, clips_out: Path) -> None:
    pages = {path: Page(path) for path in clips_out.rglob("*.html")}
    shown = sum(len(record.clips) for record in clips_made.records)
    assert len(list((clips_out / "clips").iterdir())) == shown == 5 * 3 + 2
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), f"{path.name}: an id twice"
        for link in page.links:
            target, _, anchor = link.partition("#")
            if link != "data:,":
                assert not re.match(r"[a-z]+:|//", link), f"{path.name}: {link} leaves the folder"
                file = (path.parent / target).resolve() if target else path
                assert file.is_file(), f"{path.name}: {link}"
                assert not anchor or anchor in pages[file].ids, f"{path.name}: {link}"


def test_a_clips_video_plays_by_itself_without_a_script(clips_out: Path) -> None:
    for path in (clips_out / "clips").iterdir():
        (video,) = Page(path).videos
        assert {"controls", "loop", "muted", "playsinline", "poster", "src"} <= set(video)
        assert "autoplay" not in video
        assert "original" in str(video["aria-label"])


def test_the_same_clip_under_other_tokenizers(clips_made: Report, shelf: Shelf) -> None:
    mine = shot(clips_made, shelf, "atoken-nano", "clips/goat.mp4")
    rows = clip_page.context(shelf, mine)["rows"]
    assert [(row.record.title, row.here) for row in rows] == [
        ("atoken-nano", True),
        ("identity", False),
        ("DCT, 48 of 3072", False),
        ("H.264, 0.09375 bit per pixel", False),
    ]
    # Not the run under the native protocol: it looked at other pixels.
    assert {row.record.protocol["name"] for row in rows} == {"paper-davis"}
    assert len({row.page for row in rows}) == 4
    metrics = clip_page.context(shelf, mine)["metrics"]
    assert [metric.name for metric in metrics] == ["PSNR", "SSIM", "LPIPS", "seam", "bits per pixel"]
    assert rows[1].figures[0] == "∞"
    assert rows[1].figures[3] == "–"  # identity has no tiles


def test_another_clip_of_the_same_name_is_not_the_same_clip(clip_runs: Path, tmp_path: Path) -> None:
    table = next(clip_runs.glob("video-recon/dct3d*/samples.parquet"))
    content = pq.read_table(table)
    other = content["sha256"].to_pylist()[:1] * len(content)
    pq.write_table(content.set_column(content.column_names.index("sha256"), "sha256", [other]), table)
    made = build(read_all(clip_runs), EXPERIMENTS)
    shelf = Shelf(made, Album(tmp_path))
    mine = shot(made, shelf, "atoken-nano", "clips/goat.mp4")
    assert "DCT, 48 of 3072" not in [r.title for r in shelf.same(mine)]
    strip = next(strip for strip in shelf.strips(on_samples(made)) if strip.id == "clips/goat.mp4")
    assert [shot.record.title for shot in strip.shots] == ["atoken-nano", "H.264, 0.09375 bit per pixel"]


def test_strips_leave_out_what_came_back_exactly(clips_made: Report, shelf: Shelf) -> None:
    strips = shelf.strips(on_samples(clips_made))
    assert {strip.id for strip in strips} == {"clips/bikes.mp4", "clips/goat.mp4", "clips/surf.mp4"}
    for strip in strips:
        assert len(strip.shots) == 3
        assert "identity" not in [shot.record.title for shot in strip.shots]


def test_curves_over_time_and_seams(clips_made: Report, shelf: Shelf) -> None:
    mine = shot(clips_made, shelf, "atoken-nano", "clips/goat.mp4")
    curves = {c.name: c for c in clip_page.context(shelf, mine)["curves"]}
    assert list(curves) == ["PSNR", "SSIM", "Step of the error"]
    assert curves["PSNR"].borders == tuple(100 * border / 26 for border in (TILE, 2 * TILE, 3 * TILE))
    step = curves["Step of the error"]
    assert step.unit == "dB"
    assert re.match(r"worst .* at frame (8|16|24), best", step.summary)  # the noise starts anew at borders
    assert step.about.endswith("This clip: +4.25 dB over 3 borders.")


def test_what_came_back_exactly_has_nothing_to_plot(clips_made: Report, shelf: Shelf, clips_out: Path) -> None:
    exact = shot(clips_made, shelf, "identity", "clips/goat.mp4")
    assert clip_page.context(shelf, exact)["curves"] == []
    assert "Every frame came back bit for bit: there is no error to plot" in (clips_out / exact.page).read_text()


def test_curves_follow_the_protocols_order_and_equal_ones_are_drawn_once(clip_runs: Path, tmp_path: Path) -> None:
    path = next(clip_runs.glob("video-recon/h264*--samples--*/frames.parquet"))
    table = pq.read_table(path)
    table = table.append_column("PSNR (mean of frames)", table["PSNR"])
    pq.write_table(table.select(["seam", "PSNR (mean of frames)", "frame", "SSIM", "PSNR", "id"]), path)
    made = build(read_all(clip_runs), EXPERIMENTS)
    shelf = Shelf(made, Album(tmp_path))
    mine = shot(made, shelf, "H.264, 0.09375 bit per pixel", "clips/goat.mp4")
    assert [c.name for c in clip_page.context(shelf, mine)["curves"]] == ["PSNR", "SSIM", "Step of the error"]


def test_a_clip_that_is_shown_in_part_says_so(clips_made: Report, shelf: Shelf, clips_out: Path) -> None:
    mine = shot(clips_made, shelf, "atoken-nano", "clips/goat.mp4", protocol="native")
    assert mine.part == "the first 20 of 26 frames"
    text = (clips_out / mine.page).read_text()
    assert "the first 20 of 26 frames" in text
    assert "The shaded frames were measured and are not in the video" in text


def test_a_clip_of_one_frame(clips_made: Report, shelf: Shelf, clips_out: Path) -> None:
    mine = shot(clips_made, shelf, "AToken-So/C", "goat", dataset="davis")
    assert mine.part == "1 frame"
    context = clip_page.context(shelf, mine)
    assert context["curves"] == []  # nothing goes over time
    assert dict(context["facts"])["Measured"] == "1 frame, 0.08 s at 12 per second"
    assert (context["before"], context["after"]) == (None, None)


def test_facts(clips_made: Report, shelf: Shelf) -> None:
    facts = dict(clip_page.context(shelf, shot(clips_made, shelf, "atoken-nano", "clips/goat.mp4"))["facts"])
    assert facts["Measured"] == "26 frames, 2.17 s at 12 per second"
    assert facts["Size"] == "64 × 36, prepared from 64 × 40"
    assert facts["Tokens"] == "84, one for 713 pixels"
    assert facts["Rate"] == "0.09375 bit per pixel"
    assert facts["Tiles"] == "of 8 frames, each coded apart from the next"
    assert facts["Shown"].startswith("26 frames at 7 times the measured size")


def test_worst_and_best_clips_link_to_their_pages(clips_made: Report, shelf: Shelf, clips_out: Path) -> None:
    run = record(clips_made, "atoken-nano")
    text = (clips_out / "runs" / f"{clips_made.slug(run)}.html").read_text()
    for page in shelf.pages(run).values():
        assert text.count(f'href="../{page}"') == 2  # in the table and in the gallery
    assert "clips, the worst by PSNR first." in text
    assert "Failed clips" not in text
    assert "26 frames" in text


def test_nasty_names_stay_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>/a b#1?%20.mp4"
    make_clip_run(tmp_path / "runs", "atoken", clips={nasty: clip(0, 3, 8, 8)}, changes={"title": nasty})
    out = tmp_path / "out"
    out.mkdir()
    write(build(read_all(tmp_path / "runs"), EXPERIMENTS), out, ("html",))
    (page,) = (out / "clips").iterdir()
    for path in (page, out / "index.html"):
        assert "<script>alert" not in path.read_text()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;/a b#1?%20.mp4" in path.read_text()


def test_previous_and_next_follow_the_gallery(clips_made: Report, shelf: Shelf) -> None:
    shots = shelf.shots(record(clips_made, "atoken-nano"))
    assert [s.rank for s in shots] == ["worst", "median", "best"]
    around = [clip_page.context(shelf, s) for s in shots]
    assert [a["before"] for a in around] == [None, shots[0], shots[1]]
    assert [a["after"] for a in around] == [shots[1], shots[2], None]


def test_the_track_is_not_squeezed_by_what_lost_nothing(clips_made: Report) -> None:
    panel = next(p for c in clips_made.comparisons for p in c.panels if p.slug == "video-recon-samples")
    ideal = next(line for line in panel.lines if line.name == "identity")
    other = next(line for line in panel.lines if line.name == "atoken-nano")
    cell = ideal.figures[0].cell
    assert cell is not None
    # TokenBench's formula gives 186.6 dB where nothing differs.
    finite = replace(ideal, figures=(replace(ideal.figures[0], cell=replace(cell, value=186.6)), *ideal.figures[1:]))
    squeezed = replace(panel, lines=tuple(finite if line is ideal else line for line in panel.lines))
    track = html.place_on_track(squeezed, 0, other.figures[0])
    assert track == html.place_on_track(panel, 0, other.figures[0])
    assert html.place_on_track(squeezed, 0, finite.figures[0]) is None
    assert html.place_on_track(squeezed, 1, finite.figures[1]) is not None  # the ceiling of SSIM stays in sight


def test_lost_files_are_said(clip_runs: Path, tmp_path: Path) -> None:
    for path in clip_runs.glob("video-recon/atoken-nano--samples--paper*/gallery/*"):
        path.unlink()
    for path in clip_runs.glob("video-recon/dct3d*/*.parquet"):
        path.unlink()
    out = tmp_path / "out"
    out.mkdir()
    made = build(read_all(clip_runs), EXPERIMENTS)
    write(made, out, ("html",))
    nano = record(made, "atoken-nano")
    page = (out / "clips" / f"{made.slug(nano)}--000000.html").read_text()
    assert "The video is missing from the run's folder." in page
    assert "picture missing" in (out / "runs" / f"{made.slug(nano)}.html").read_text()
    bare = (out / "clips" / f"{made.slug(record(made, 'DCT, 48 of 3072'))}--000000.html").read_text()
    assert "Over time" not in bare
    assert "<video" in bare


def test_a_damaged_table_of_frames_is_named(clip_runs: Path, tmp_path: Path) -> None:
    path = next(clip_runs.rglob("frames.parquet"))
    path.write_bytes(path.read_bytes()[:200])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BenchError, match=r"frames\.parquet: not a readable table"):
        write(build(read_all(clip_runs), EXPERIMENTS), out, ("html",))
