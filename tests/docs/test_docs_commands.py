"""Command lines and quoted messages of the documentation are those of the programs."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from atoken.training.recipe_files import known_recipes
from harness import registry
from harness.ablation import Ablation
from harness.data.catalog import DATASETS
from harness.records import load
from tests.docs.pages import PAGES, ROOT, TEXTS, command_lines

MODULES = {"atoken": "atoken.cli", "atoken-bench": "harness.cli"}


@cache
def program(name: str) -> Any:
    return typer.main.get_command(importlib.import_module(MODULES[name]).app)


def fault(words: list[str]) -> str | None:
    """What is wrong with a command line; None if nothing is."""
    command, rest = program(words[0]), words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0] == "...":
            return None  # the group or the program itself is spoken of
        if rest[0] not in command.commands:
            return f"no command {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {opt: one for one in command.params if one.param_type_name == "option" for opt in one.opts}
    arguments = []
    while rest:
        word = rest.pop(0)
        if word == "--help":
            continue
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        name, _, value = word.partition("=")
        if name not in options:
            return f"no option {name}"
        if not options[name].is_flag and not value:
            if not rest or rest[0].startswith("--"):
                return f"{name} without its value"
            value = rest.pop(0)
        if name == "--data" and words[:2] == ["atoken-bench", "run"] and "=" in value and value.islower():
            known = {one.name for one in DATASETS} | {"images", "videos", "assets"}
            if value.partition("=")[0] not in known:
                return f"no dataset {value}"
        if name == "--recipe" and value.isidentifier() and value not in known_recipes():
            return f"no recipe {value}"
    taken = [one for one in command.params if one.param_type_name == "argument"]
    if len(arguments) > len(taken) and "..." not in arguments and all(one.nargs == 1 for one in taken):
        return f"too many arguments: {arguments}"
    if words[:2] in (["atoken-bench", "run"], ["atoken-bench", "sensitivity"]) and arguments:
        experiment = arguments[0]
        if re.fullmatch(r"[a-z0-9-]+", experiment) and experiment not in registry.experiments():
            return f"no experiment {experiment!r}"
    return None


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_command_lines_name_what_there_is(path: Path) -> None:
    wrong = [f"{' '.join(words)}: {why}" for words in command_lines(path) if (why := fault(words))]
    assert wrong == []


def test_the_pages_have_command_lines() -> None:
    assert sum(1 for path in TEXTS for _ in command_lines(path)) > 80


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("atoken-bench run image-recon --tokeniser x", "no option --tokeniser"),
        ("atoken-bench rnu image-recon", "no command 'rnu'"),
        ("atoken-bench audit papers", "no command 'papers'"),
        ("atoken-bench run image-recons", "no experiment 'image-recons'"),
        ("atoken-bench run image-recon --data imagenet=/x", "no dataset imagenet=/x"),
        ("atoken train --recipe micro", "no recipe micro"),
        ("atoken train --out", "--out without its value"),
        ("atoken-bench compare A B C", "too many arguments: ['A', 'B', 'C']"),
        ("atoken-bench run image-recon --data imagenet-val=/x --limit 4", None),
    ],
)
def test_a_wrong_command_line_is_found(line: str, why: str | None) -> None:
    assert fault(line.split()) == why


def _literals() -> str:
    """All text that the packages can say, f-strings with ``{}`` where a value goes."""
    found = []
    for room in ("atoken", "harness", "reports"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_quoted_messages_are_the_programs_own() -> None:
    said = _literals()
    text = (PAGES / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    assert len(rows) > 8
    for row in rows:
        for quoted in re.findall(r"`([^`]+)`", row):
            if quoted.startswith("--"):
                continue
            # Values stand where the program fills them in: names, paths, and what is left out.
            pieces = re.split(r"\.\.\.|NAME|PATH|'x'|absent LPIPS|vgg16-397923af\.pth|--vgg FILE", quoted)
            for piece in (part.strip(" :=") for part in pieces):
                assert piece in said, f"{piece!r} of {quoted!r}"


def test_every_built_experiment_has_its_page() -> None:
    nav = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    for one in registry.experiments().values():
        if one.status == "built":
            name = "ablations" if isinstance(one, Ablation) else one.name
            assert (PAGES / "experiments" / f"{name}.md").is_file(), one.name
            assert f"- experiments/{name}.md\n" in nav, one.name


def test_every_field_of_a_record_is_told(tmp_path: Path) -> None:
    from harness.console import Console
    from harness.execution import execute
    from harness.plan import Share
    from tests.harness.fakes import plan

    made = plan()
    execute(made, tmp_path, share=Share(), workers=0, console=Console(speaks=False))
    record = load(made.folder(tmp_path) / "record.json")
    text = (PAGES / "records.md").read_text(encoding="utf-8")
    section = text.partition("## `record.json`")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == set(record)
    assert "schema 1" in text
    assert record["schema"] == 1
