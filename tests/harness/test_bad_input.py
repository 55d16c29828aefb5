"""What users and machines get wrong, through the command line: one clear line, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.harness.conftest import Bench, Outcome, checkpoint, command, environment, finish, picture


def arguments(data: Path, protocol: Path, runs: Path, *more: object, tokenizer: str = "jpeg:50") -> list[object]:
    # fmt: off
    return ["run", "image-recon", "--tokenizer", tokenizer, "--data", f"folder={data}", "--protocol", protocol,
            "--device", "cpu", "--threads", 1, "--workers", 0, "--runs", runs, *more]
    # fmt: on


def record(runs: Path) -> dict[str, object]:
    (path,) = runs.rglob("record.json")
    return dict(json.loads(path.read_text()))


def refused(outcome: Outcome, *parts: str, code: int = 1) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    last = outcome.err.strip().splitlines()[-1]
    for part in parts:
        assert part in outcome.err, outcome.err
    assert last.startswith("atoken-bench: ") or len(outcome.err.splitlines()) > 1


# Data.


def test_missing_folder(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    refused(bench(*arguments(tmp_path / "nowhere", tiny, tmp_path / "runs")), str(tmp_path / "nowhere"))


def test_empty_folder(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(bench(*arguments(tmp_path / "empty", tiny, tmp_path / "runs")), str(tmp_path / "empty"))


def test_three_of_ten_files_are_broken(bench: Bench, tiny: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:200])
    (photos / "5.png").write_bytes(b"this is no picture")
    (photos / "9.png").write_bytes(b"")
    outcome = bench(*arguments(photos, tiny, tmp_path / "runs"))
    assert outcome.code == 0, outcome.err
    for name in ("2.png", "5.png", "9.png"):
        assert f"{name}: " in outcome.err
    samples = record(tmp_path / "runs")["samples"]
    assert isinstance(samples, dict)
    assert (samples["used"], samples["selected"]) == (7, 10)
    assert [failed["id"] for failed in samples["failed"]] == ["2.png", "5.png", "9.png"]
    assert all(failed["reason"] for failed in samples["failed"])
    assert "3 of 10 samples left out" in outcome.out
    assert "7/10" in outcome.out


def test_all_files_are_broken(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    outcome = bench(*arguments(tmp_path / "bad", tiny, tmp_path / "runs"))
    refused(outcome, "none of 1 samples could be measured", "x.png")
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_extreme_shapes_at_their_own_size(bench: Bench, native: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    for name, height, width in [("patch", 5, 7), ("wide", 20, 20_000), ("thin", 20_000, 20), ("line", 33, 1)]:
        picture(folder / f"{name}.png", height, width)
    picture(folder / "dot.png", 1, 1)
    for tokenizer in ("identity", "jpeg:50", "dct:48"):
        outcome = bench(*arguments(folder, native, tmp_path / tokenizer[:3], tokenizer=tokenizer))
        assert outcome.code == 0, outcome.err
        (path,) = (tmp_path / tokenizer[:3]).rglob("samples.parquet")
        table = pd.read_parquet(path).set_index("id")
        assert table.loc["thin.png", ["height", "width"]].tolist() == [20_000, 20]
        assert len(table) == 5
        assert (table["PSNR"] > 15).all()


def test_extreme_shapes_under_a_crop(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    picture(folder / "thin.png", 20_000, 20)
    picture(folder / "line.png", 33, 1)
    outcome = bench(*arguments(folder, tiny, tmp_path / "runs", tokenizer="identity"))
    assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "runs").rglob("samples.parquet")
    assert (pd.read_parquet(path)[["height", "width"]] == 32).all(axis=None)


# Checkpoints.


@pytest.mark.parametrize("kind", ["missing", "wrong", "pickle", "truncated"])
def test_checkpoint_that_cannot_be_loaded(bench: Bench, tiny: Path, photos: Path, tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / ("model.pt" if kind == "pickle" else "model.safetensors")
    if kind == "wrong":
        save_file({"some.other.model": torch.zeros(3)}, path)
    elif kind == "pickle":
        torch.save({"weights": _Runs(tmp_path / "ran")}, path)
    elif kind == "truncated":
        save_file({"some.other.model": torch.zeros(3000)}, path)
        path.write_bytes(path.read_bytes()[:1000])
    outcome = bench(*arguments(photos, tiny, tmp_path / "runs", "--ckpt", path, tokenizer="atoken"))
    refused(outcome, str(path))
    assert not (tmp_path / "ran").exists()


class _Runs:
    """A pickle that runs code when it is loaded carelessly."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_nan_weights(bench: Bench, tiny: Path, photos: Path, tmp_path: Path) -> None:
    outcome = bench(*arguments(photos, tiny, tmp_path / "runs", tokenizer="tests.harness.fakes:create_poison"))
    refused(outcome, "0.png", "NaN", "blur-4")
    folder = checkpoint(tmp_path / "model", broken=True)
    outcome = bench(*arguments(photos, tiny, tmp_path / "runs", "--ckpt", folder, tokenizer="atoken"))
    refused(outcome, "NaN", str(folder))
    assert not list((tmp_path / "runs").rglob("record.json"))


# Requests.


def test_everything_that_is_missing_is_said_at_once(bench: Bench, tmp_path: Path) -> None:
    # fmt: off
    outcome = bench("run", "image-recon", "--data", "folder=/nowhere/at/all", "--protocol", "nonesuch",
                    "--tokenizer", "nonesuch", "--tokenizer", "jpeg:400", "--weights", "/no/weights",
                    "--runs", tmp_path / "runs")
    # fmt: on
    refused(outcome, "/nowhere/at/all", "no protocol 'nonesuch'", "no tokenizer 'nonesuch'", "jpeg", "/no/weights")


def test_planned_experiment(bench: Bench) -> None:
    outcome = bench("run", "image-generation-tokenbridge")
    refused(outcome, "image-generation-tokenbridge is planned and not built yet", "table12", code=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nonesuch"], "asset-recon, image-classify, image-recon"),
        (["run", "image-recon", "--dtype", "float64"], "float64"),
        (["run", "image-recon", "--device", "tpu"], "tpu"),
        (["run", "image-recon", "--device", "cuda:99"], "cuda:99"),
        (["run", "image-recon", "--shard", "2/2"], "0/2 and 1/2"),
        (["run", "image-recon", "--tokenizer", "no.such.module:make"], "no.such.module"),
        (["run", "image-recon", "--tokenizer", "harness.plan:nothing"], "harness.plan has no nothing"),
        (["run", "image-recon", "--tokenizer", "harness.plan"], "pkg.module:factory"),
        (["run", "image-recon", "--tokenizer", "jpeg:5", "--preset", "so-c"], "preset"),
        (["run", "image-recon", "--tokenizer", "jpeg:5", "--tokenizer", "dct:9", "--preset", "so-c"], "--preset so-c"),
        (["run", "image-recon", "--tokenizer", "jpeg:5", "--ckpt", "x"], "jpeg:5"),
        (["list", "nonesuch"], "experiments, tokenizers"),
        (["merge", "/nowhere"], "no run in this folder"),
    ],
)
def test_requests_that_cannot_be_served(bench: Bench, words: list[str], said: str) -> None:
    refused(bench(*words), said)


def test_absent_cell_fails_only_when_strict(
    bench: Bench, tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("ATOKEN_BENCH_WEIGHTS", raising=False)
    tiny.write_text(tiny.read_text() + "  - {metric: lpips, name: LPIPS}\n  - {metric: codebook-usage, name: usage}\n")
    runs = tmp_path / "runs"
    outcome = bench(*arguments(photos, tiny, runs))
    assert outcome.code == 0
    assert outcome.err.startswith("absent LPIPS: no vgg16-397923af.pth")  # before any work
    outcome = bench(*arguments(photos, tiny, runs, "--strict"))
    refused(outcome, "--strict: 1 cells are absent: LPIPS of jpeg:50")
    cells = record(runs)["cells"]
    assert isinstance(cells, list)
    assert cells[0]["absent"] is None
    assert "vgg16-397923af.pth" in cells[1]["absent"]
    assert "codebook" in cells[2]["absent"]


def test_a_tokenizer_of_ones_own(
    bench: Bench, tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    source = "from tests.harness.fakes import Blur\ndef make(argument, *, device, dtype):\n    return Blur(8)\n"
    (tmp_path / "mine" / "blur.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    outcome = bench(*arguments(photos, tiny, tmp_path / "runs", tokenizer="mine.blur:make"))
    assert outcome.code == 0, outcome.err
    assert "blur on photos" in outcome.out


def test_record_of_a_newer_schema(bench: Bench, tiny: Path, photos: Path, tmp_path: Path) -> None:
    from harness import records
    from harness.errors import BenchError

    bench(*arguments(photos, tiny, tmp_path / "runs"))
    (path,) = (tmp_path / "runs").rglob("record.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(BenchError, match=rf"{path}.*newer.*update atoken-bench"):
        records.load(path)
    refused(bench("report", "--runs", tmp_path / "runs", "--out", tmp_path / "out"), str(path), "update atoken-bench")


# Disks.

CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="this machine does not let a test mount a tmpfs")


def mounted(folder: Path, options: str, *then: object) -> list[str]:
    script = f'mount -t tmpfs -o {options} tmpfs "{folder}" && shift 0 && exec "$@"'
    return ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, then)]


@needs_mounts
def test_full_disk(repository: Path, tiny: Path, photos: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A shard of one sample is below 4 KB; the gallery's pictures and the later shards do not fit.
    words = command(*arguments(photos, tiny, disk / "runs", "--shard-size", 1))
    script = f'{" ".join(words)}; code=$?; find {disk} -name "*-of-*" >&2; exit $code'
    outcome = finish(mounted(disk, "size=40k", "sh", "-c", script), repository)
    said = [line for line in outcome.err.splitlines() if line.startswith("atoken-bench: ")]
    assert outcome.code == 1, outcome.err
    assert len(said) == 1
    assert "no space left on the disk" in said[0]
    assert str(disk) in said[0]
    assert "Traceback" not in outcome.err
    kept = [line for line in outcome.err.splitlines() if line.endswith(".safetensors")]
    assert kept
    assert not [line for line in outcome.err.splitlines() if line.endswith(".tmp")]


@needs_mounts
def test_read_only_runs_folder(repository: Path, tiny: Path, photos: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    outcome = finish(mounted(disk, "ro", *command(*arguments(photos, tiny, disk / "runs"))), repository)
    refused(outcome, str(disk), "cannot be written", "--runs")


def test_runs_folder_that_is_a_file(bench: Bench, tiny: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(bench(*arguments(photos, tiny, tmp_path / "file")), str(tmp_path / "file"), "cannot be written")


# Processes that die, meet or are stopped.


def one_by_one(tmp_path: Path, tiny: Path, photos: Path, *more: object) -> list[str]:
    return command(
        *arguments(
            photos, tiny, tmp_path / "runs", "--shard-size", 1, *more, tokenizer="tests.harness.fakes:create_stuck"
        )
    )


def started(words: list[str], repository: Path, runs: Path) -> subprocess.Popen[str]:
    """Start a run that gets stuck, and wait until it has finished two shards."""
    process = subprocess.Popen(
        words, cwd=repository, env=environment(STUCK="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while len(list(runs.rglob("*.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def test_kill_and_resume_and_a_second_run_meanwhile(
    repository: Path, bench: Bench, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    first = started(one_by_one(tmp_path, tiny, photos), repository, runs)
    try:
        second = finish(one_by_one(tmp_path, tiny, photos), repository)
        refused(second, "another run is writing here", str(runs))
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    kept = {path.name for path in runs.rglob("*.safetensors")}
    assert len(kept) == 2
    assert not list(runs.rglob("record.json"))

    resumed = bench(*one_by_one(tmp_path, tiny, photos)[3:])
    assert resumed.code == 0, resumed.err
    assert "2 finished shards stand" in resumed.err
    assert kept < {path.name for path in runs.rglob("*.safetensors")}
    assert bench(*one_by_one(tmp_path / "other", tiny, photos)[3:]).code == 0
    one, other = record(runs), record(tmp_path / "other" / "runs")
    assert (one["cells"], one["samples"]) == (other["cells"], other["samples"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(
    repository: Path, tiny: Path, photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    # A shell's background job hands down that Ctrl-C is ignored; a terminal does not.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = started(one_by_one(tmp_path, tiny, photos), repository, tmp_path / "runs")
    finally:
        signal.signal(signal.SIGINT, inherited)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "finished shards are kept" in err
    assert "Traceback" not in err


# The whole command without a network.


def test_a_run_reaches_for_no_network(
    bench: Bench, tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def forbidden(*arguments: object) -> None:
        raise AssertionError("a run reached for the network")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    assert bench(*arguments(photos, tiny, tmp_path / "runs")).code == 0
    assert bench("weights", "check").code in (0, 1)


def test_help_and_list_import_nothing_heavy(repository: Path) -> None:
    script = (
        "import sys; from harness.cli import app\n"
        "for words in (['--help'], ['run', '--help'], ['list'], ['weights', 'list']):\n"
        "    try: app(words)\n"
        "    except SystemExit as ended: assert not ended.code\n"
        "heavy = {'torch', 'pandas', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    outcome = finish([sys.executable, "-c", script], repository)
    assert outcome.code == 0, outcome.err
    assert "planned" in outcome.out


def test_sixteen_bit_and_cmyk_files_count(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    Image.new("CMYK", (40, 40), (10, 20, 30, 0)).save(folder / "cmyk.jpg")
    Image.new("I;16", (40, 40), 30_000).save(folder / "deep.png")
    Image.new("P", (40, 40), 3).save(folder / "palette.png")
    outcome = bench(*arguments(folder, tiny, tmp_path / "runs", tokenizer="identity"))
    assert outcome.code == 0, outcome.err
    samples = record(tmp_path / "runs")["samples"]
    assert isinstance(samples, dict)
    assert samples["used"] == 3


# Every command reaches what it stands for.


def test_report_of_a_run(bench: Bench, tiny: Path, photos: Path, tmp_path: Path) -> None:
    assert bench(*arguments(photos, tiny, tmp_path / "runs")).code == 0
    outcome = bench("report", "--runs", tmp_path / "runs", "--out", tmp_path / "out", "--format", "md,csv")
    assert outcome.code == 0, outcome.err
    assert "JPEG, quality 50" in outcome.out
    assert list((tmp_path / "out").rglob("*.md"))
    refused(bench("report", "--runs", tmp_path / "none"), str(tmp_path / "none"))


def test_data_commands(bench: Bench, photos: Path) -> None:
    checked, printed = bench("data", "check", f"folder={photos}"), bench("data", "fingerprint", f"folder={photos}")
    assert checked.code == printed.code == 0
    assert "10" in checked.out
    assert "content sha256" in printed.out
    (photos / "3.png").write_bytes(b"broken")
    broken = bench("data", "check", f"folder={photos}")
    assert broken.code == 1
    assert "3.png" in broken.out + broken.err


def test_audit_golden(bench: Bench) -> None:
    outcome = bench("audit", "golden", "--device", "cpu")
    assert outcome.code == 0, outcome.out
    assert "ok" in outcome.out
    refused(bench("audit", "golden", "/nowhere"), "/nowhere")


def test_weights_commands(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("ATOKEN_BENCH_WEIGHTS", raising=False)
    assert "weights-inception-2015-12-05-6726825d.pth" in bench("weights", "list").out
    outcome = bench("weights", "check", "--weights", tmp_path)
    assert outcome.code == 1
    assert outcome.out.count("absent") >= 3
