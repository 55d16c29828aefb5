"""The parts of pages that are made of the registry, the protocols, the paper's tables and the commands themselves."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import typer

from atoken.training.recipe_files import RECIPES, known_recipes, load_recipe
from harness import protocol, registry
from harness.ablation import Ablation
from harness.data.catalog import DATASETS
from harness.experiment import Experiment, Fills
from harness.listing import experiment_row
from harness.metrics.families import EMBEDDING_METRICS, FAMILIES
from harness.weights import list_rows
from reports import paper

ABLATIONS = "ablations"


def experiments() -> str:
    """Every experiment: where its page is, and the cells that it fills."""
    rows = []
    for one in registry.experiments().values():
        page = ABLATIONS if isinstance(one, Ablation) else one.name
        name = f"[`{one.name}`]({page}.md)" if one.status == "built" else f"`{one.name}`"
        rows.append((name, one.status, one.title, experiment_row(one)["fills"] or "–"))
    return _table(("experiment", "state", "what it measures", "what it fills"), rows)


def experiment(name: str) -> str:
    """What a page on an experiment says beside its prose: defaults, data, protocols, the paper's figures."""
    one = registry.experiment(name)
    default = one.datasets[0]
    first = one.defaults.get(default, one.protocols[0])
    rows = ", ".join(f"`{spec}`" for spec in one.tokenizers)
    parts = [
        f"A run without options is on `{default}` under the protocol `{first}`, with the rows {rows}.",
        f"To fill the paper's cells it needs {one.needs}.",
        "## Data\n",
        _datasets(one),
        "## Protocols\n",
        "A protocol fixes everything that can move a figure. Its hash is in every record; `atoken-bench list "
        "protocols` prints the same list.\n",
        _protocols(one),
        *(_printed(one, fills) for fills in one.fills),
    ]
    return "\n\n".join(parts)


def _datasets(one: Experiment) -> str:
    known = {(entry.modality, entry.name): entry for entry in DATASETS}
    rows = []
    for name in one.datasets:
        entry = known[one.modality, name]
        count = f"{entry.expected:,}" if entry.expected else "any"
        where = f"`--data {name}=PATH`: PATH is {entry.location}" if entry.location else f"`--data {name}`: installed"
        rows.append((f"`{name}`", entry.title, count, where, f"`{one.defaults.get(name, one.protocols[0])}`"))
    return _table(("dataset", "what it is", "samples", "how it is given", "protocol where none is named"), rows)


def _protocols(one: Experiment) -> str:
    parts = []
    for name in one.protocols:
        made = protocol.load(one.name, name)
        metrics = ", ".join(metric.name for metric in made.metrics)
        counts = ", ".join(f"{count:,} of {data}" for data, count in made.expected.items()) or "any number"
        rules = {"clip": made.clip, "asset": made.asset, "embed": made.embed}
        facts = [("pixels", f"`{made.prepare}`")]
        facts += [(key, f"`{_rules(rule)}`") for key, rule in rules.items() if rule is not None]
        if made.embed is None:
            facts += [("latent", made.latent), ("8 bit", made.eight_bit)]
        facts += [("samples", counts), ("measures", metrics), ("hash", f"`{made.sha256[:12]}`")]
        listed = "\n".join(f"- {key}: {value}" for key, value in facts)
        parts.append(f"### {name}\n\n{made.title} (version {made.version}).\n\n{made.source.strip()}\n\n{listed}\n")
    return "\n".join(parts)


def _rules(rule: Any) -> str:
    return ", ".join(f"{key} {getattr(rule, key)}" for key in rule.__slots__)


def _printed(one: Experiment, fills: Fills) -> str:
    """The paper's figures in the columns that the experiment fills: what a run is set beside."""
    table = paper.load(fills.table)
    columns = [
        table.column(group, last) for group in dict.fromkeys(fills.group.values()) for last in fills.columns.values()
    ]
    rows = [row for row in table.rows if any(table.printed(row, column) for column in columns)]
    shown = [(row.key, *(row.values[column].replace("-", "–") for column in columns)) for row in rows]
    heads = (table.columns[table.method].header, *(table.columns[column].header for column in columns))
    heading = f"## Printed in table {table.number}\n\n{table.title}: the columns that `{one.name}` fills.\n"
    return f"{heading}\n{_table(heads, shown)}"


def ablations() -> str:
    """Every ablation with its question and its variants."""
    parts = []
    for one in registry.experiments().values():
        if isinstance(one, Ablation):
            told = "\n".join(
                f"- {variant.title}: `{' '.join(variant.changes) or 'the recipe as it is'}`" for variant in one.variants
            )
            options = ", ".join(f"`--option {name}=`" for name in one.options)
            parts.append(
                f"## {one.name}\n\n{one.title} ({one.figure}). {one.asks}\n\nRecipe `{one.recipe}`; options {options}. "
                f"Needs: {one.needs or 'nothing'}.\n\n{told}\n"
            )
    return "\n".join(parts)


def datasets() -> str:
    """Every dataset, by modality."""
    rows = [
        (
            f"`{one.name}`",
            one.modality,
            one.title,
            f"{one.expected:,}" if one.expected else "any",
            one.location or "installed",
            one.credits,
        )
        for one in DATASETS
    ]
    return _table(("name", "of", "what it is", "samples", "PATH", "credits and licence"), rows)


def tokenizers() -> str:
    """The registered tokenizers."""
    return _factories(registry.tokenizers().values())


def embedders() -> str:
    """The registered embedders."""
    return _factories(registry.embedders().values())


def _factories(points: Iterable[EntryPoint]) -> str:
    rows = []
    for point in points:
        module, _, name = point.value.partition(":")
        loaded = importlib.import_module(module)
        paragraphs = [_paragraph(inspect.getdoc(one)) for one in (getattr(loaded, name), loaded)]
        rows.append((f"`{point.name}`", *paragraphs, f"`{point.value}`"))
    return _table(("name", "how it is written", "what it is", "factory"), rows)


def _paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").split("\n\n")[0].split()).removeprefix("Factory of ")


def weights() -> str:
    """The trunk weights of metrics."""
    found = list_rows()
    return _table(tuple(found[0]), [(f"`{row['file']}`", *list(row.values())[1:]) for row in found])


def metrics() -> str:
    """The metric families."""
    rows = []
    for modality, families in {**FAMILIES, "embedding": EMBEDDING_METRICS}.items():
        for name, family in families.items():
            options = "; ".join(f"{key}: {value}" for key, value in family.options.items()) or "–"
            rows.append((f"`{name}`", modality, family.title, "↑" if family.higher_is_better else "↓", options))
    return _table(("name", "of", "what it is", "better", "options"), rows)


def recipes() -> str:
    """The shipped recipes."""
    rows = []
    for name in known_recipes():
        recipe = load_recipe(name)
        head = [line[1:].strip() for line in _leading((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))]
        rows.append(
            (f"`{name}`", f"`{recipe.model}`", ", ".join(stage.name for stage in recipe.stages), " ".join(head))
        )
    return _table(("recipe", "model", "stages", "what it is"), rows)


def _leading(text: str) -> list[str]:
    """The comment that a file begins with."""
    lines = text.splitlines()
    return lines[: next(place for place, line in enumerate(lines) if not line.startswith("#"))]


def commands(program: str) -> str:
    """Every command of a program with its arguments and options, from what answers ``--help``."""
    module = {"atoken": "atoken.cli", "atoken-bench": "harness.cli"}[program]
    root = typer.main.get_command(importlib.import_module(module).app)
    return "\n".join(_command(path, command) for path, command in walk(root, (program,)))


def walk(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """The commands that do something below a group, each with the words that name it."""
    if hasattr(command, "commands"):
        return [found for name, below in command.commands.items() for found in walk(below, (*path, name))]
    return [(path, command)]


def _command(path: Sequence[str], command: Any) -> str:
    context = command.make_context(path[-1], [], resilient_parsing=True)
    rows = []
    for one in command.params:
        takes = one.metavar or one.display_type(context).strip("<>")
        if one.param_type_name == "argument":
            rows.append((f"`{one.metavar or one.name.upper()}`", "", one.help or ""))
        elif not one.hidden and one.name != "help":
            shown = ", ".join(one.opts) if one.is_flag else f"{', '.join(one.opts)} {takes}"
            rows.append((f"`{shown}`", _default(one.default), one.help or ""))
    body = inspect.cleandoc(command.help or "")
    return f"## {' '.join(path)}\n\n{body}\n\n{_table(('', 'default', 'what it is'), rows)}\n"


def _default(value: Any) -> str:
    if value in (None, (), [], False):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def reference(module: str) -> str:
    """The public names of a module, rendered of their docstrings."""
    return "\n\n".join(f"::: {module}.{name}" for name in importlib.import_module(module).__all__)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """On one line; a bar would end the cell, in code too."""
    line = " ".join(text.split())
    return (
        line.replace("|", "\\|")
        if "`" in line
        else line.replace("|", "&#124;").replace("<", "&lt;").replace("*", "\\*")
    )


PARTS: dict[str, Callable[..., str]] = {
    one.__name__: one
    for one in (
        *(experiments, experiment, ablations, datasets, tokenizers, embedders, weights, metrics, recipes, commands),
        reference,
    )
}
