"""`atoken-bench check` writes down what the contract saw, and nothing that a card merely says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app

LIAR = '''
from dataclasses import replace
from harness.tokenizers.identity import create as identity


def honest(argument, *, device, dtype):
    made = identity(argument, device=device, dtype=dtype)
    made.card = replace(made.card, name="honest", title="honest", source="a test")
    return made


def turned(argument, *, device, dtype):
    """Says that it takes images, and gives them back upside down in their order."""
    made = honest(argument, device=device, dtype=dtype)
    decode = made.decode
    made.decode = lambda encoded: decode(encoded)[::-1]
    return made


def nameless(argument, *, device, dtype):
    made = honest(argument, device=device, dtype=dtype)
    made.card = replace(made.card, name="no name")
    return made
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "lying"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "made.py").write_text(LIAR)
    monkeypatch.syspath_prepend(tmp_path)
    return "lying.made"


def run(spec: str, runs: Path) -> tuple[int, str, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["check", spec, "--runs", str(runs), "--device", "cpu"])
    found = [json.loads(path.read_text()) for path in sorted(runs.rglob("check.json"))]
    return done.exit_code, done.output, found


def test_what_was_seen_is_written(tmp_path: Path) -> None:
    code, said, (made,) = run("pca3d:48", tmp_path / "runs")
    assert code == 0, said
    assert made["tokenizer"]["card"]["name"] == "pca3d-48"
    assert made["contract"]["faults"] == {"card": [], "video": []}
    holds = {name: entry["holds"] for name, entry in made["capabilities"].items()}
    assert holds == {
        "image reconstruction": False,
        "video reconstruction": True,
        "asset reconstruction": False,
        "discrete tokens": False,
        "continuous tokens": False,
        "temporal compression": True,
        "native resolution": True,
    }
    # 17 frames are five groups of four, on 4 x 4 patches.
    assert "take 80 tokens, one takes 16" in made["capabilities"]["temporal compression"]["seen"]


def test_a_second_check_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        assert len(run("jpeg:75", tmp_path)[2]) == 1
    assert len(run("jpeg:10", tmp_path)[2]) == 2


def test_a_claim_that_the_contract_refutes_is_no_capability(module: str, tmp_path: Path) -> None:
    code, said, (made,) = run(f"{module}:turned", tmp_path / "runs")
    assert code == 1
    assert "image" in made["tokenizer"]["card"]["modalities"]
    assert made["capabilities"]["image reconstruction"]["holds"] is False
    assert made["capabilities"]["image reconstruction"]["seen"] == made["contract"]["faults"]["image"][0]
    assert made["capabilities"]["video reconstruction"]["holds"] is True
    assert "honest: 1 fault\n" in said


def test_what_has_no_right_card_is_not_filed(module: str, tmp_path: Path) -> None:
    code, said, found = run(f"{module}:nameless", tmp_path / "runs")
    assert (code, found) == (1, [])
    assert "name 'no name' is not usable as a folder name" in said


def test_a_bad_option_ends_in_a_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "identity", "--option", "tile", "--runs", str(tmp_path)])
    assert done.exit_code == 1
    assert "--option tile: not KEY=VALUE" in done.output
