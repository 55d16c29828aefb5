"""Recipes as YAML files, read strictly: a key or value that is not understood ends the command.

The keys are those of `atoken.training.recipe`; `stages` and `tasks` are mappings by name, stages in their order. The
file's name is the recipe's. `extends: nano` takes another recipe (a shipped one by name, or a file beside this one by
path) and changes only the keys given; a stage, task or group of keys set to null is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import yaml

from atoken.training.errors import TrainingError
from atoken.training.recipe import CHANGEABLE, Recipe, Stage
from atoken.training.tasks import TASKS

__all__ = ["RECIPES", "known_recipes", "load_recipe", "parse"]

RECIPES = Path(__file__).parent / "recipes"


def known_recipes() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name ("nano"), or a YAML file by path.

    Args:
        overrides: changes to it, each "dotted.key=value" with the value in YAML:
            "stages.image-foundation.steps=100", "optimizer.lr=1e-3". null leaves a stage or task out.

    Raises:
        TrainingError: no such recipe, not YAML, an unknown or missing key, or a bad value; names file and key.
    """
    path = _locate(name_or_path, Path())
    where, values = str(path), _values(path, ())
    recipe = parse({"name": path.stem} | values, where=where)
    if not overrides:
        return recipe
    merged = recipe.to_dict()
    for override in overrides:
        # Against the whole recipe, defaults included: a key that is not in it is a mistake.
        merged = _merged(merged, _override(override, merged))
    return parse(merged, where=f"{where} with {' '.join(overrides)}")


def parse(data: Mapping[str, Any], *, where: str) -> Recipe:
    """A recipe of plain values, as `Recipe.to_dict` gives them or a file holds them.

    Args:
        where: of the values, named in errors.

    Raises:
        TrainingError: an unknown or missing key, or a bad value; names its dotted key.
    """
    try:
        return cast(Recipe, _part(Recipe, data, ""))
    except TrainingError as error:
        raise TrainingError(f"{where}: {error}") from None


# -- Values by the kinds that the dataclasses declare ----------------------------------------------------------------


def _part(kind: type, data: Any, key: str, **given: Any) -> Any:
    """A dataclass of a mapping; `given` are fields that the mapping does not hold."""
    values = _mapping(data, key)
    hints = get_type_hints(kind)
    known = [part for part in fields(kind) if part.name not in given]
    _only(values, [part.name for part in known], key)
    for part in known:
        if part.name not in values and part.default is part.default_factory is MISSING:
            raise TrainingError(f"missing key {_dotted(key, part.name)!r}")
    read = {name: _value(hints[name], value, _dotted(key, name)) for name, value in values.items()}
    try:
        return kind(**read, **given)
    except TrainingError as error:
        raise TrainingError(_located(str(error).removeprefix("recipe: "), kind, key, read)) from None


def _value(kind: Any, value: Any, key: str) -> Any:
    origin, choices = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _part(cast(type, kind), value, key)
    if origin is Mapping:
        return _changes(value, key) if choices[1] is Any else _tasks(value, key)
    if origin is tuple:
        return _tuple(kind, value, key)
    if origin is Literal:
        if value not in choices:
            raise _wrong(key, f"one of {', '.join(choices)}", value)
        return value
    if NoneType in choices:  # a value that may be left out
        kind = next(choice for choice in choices if choice is not NoneType)
        return None if value is None else _plain_value(kind, value, key)
    return _plain_value(kind, value, key)


def _tasks(value: Any, key: str) -> dict[str, Any]:
    tasks = _mapping(value, key)
    _only(tasks, TASKS, key)
    return {name: _part(TASKS[name], tasks[name], _dotted(key, name)) for name in tasks}


def _changes(value: Any, key: str) -> dict[str, Any]:
    """What a stage sets for itself: some keys of the recipe, and of a group some of its keys."""
    values, hints = _mapping(value, key), get_type_hints(Recipe)
    _only(values, CHANGEABLE, key)
    found: dict[str, Any] = {}
    for name, part in values.items():
        kind, place = hints[name], _dotted(key, name)
        if is_dataclass(kind):
            inner, own = _mapping(part, place), get_type_hints(kind)
            _only(inner, own, place)
            found[name] = {each: _value(own[each], one, _dotted(place, each)) for each, one in inner.items()}
        else:
            found[name] = _value(kind, part, place)
    return found


def _tuple(kind: Any, value: Any, key: str) -> tuple[Any, ...]:
    if kind == tuple[Stage, ...]:
        return tuple(_part(Stage, data, _dotted(key, name), name=name) for name, data in _mapping(value, key).items())
    kinds = get_args(kind)
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise _wrong(key, f"a list of {len(kinds)}", value)
    return tuple(_value(*pair, key) for pair in zip(kinds, value, strict=True))


def _plain_value(kind: type, value: Any, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise _wrong(key, names[kind], value)
    return value


def _located(text: str, kind: type, key: str, read: Mapping[str, Any]) -> str:
    """An error of a dataclass with the whole dotted key; their own messages begin at themselves."""
    head = text.partition(".")[0]
    if kind is Recipe:
        return f"stages.{text}" if head in {stage.name for stage in read["stages"]} else text
    if kind is Stage and head in TASKS:
        return _dotted(f"{key}.tasks", text)
    above, _, own = key.rpartition(".")
    return _dotted(above, text) if head == own else _dotted(key, text)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TrainingError(f"{key}: must hold keys and values" if key else "must hold keys and values")
    for name in value:
        if not isinstance(name, str):
            raise TrainingError(f"{_dotted(key, str(name))}: a key must be a text, got {name!r}")
    return value


def _only(values: Iterable[str], known: Iterable[str], key: str) -> None:
    known = list(known)
    for name in values:
        if name not in known:
            raise _unknown(_dotted(key, name), known)


def _unknown(key: str, known: Sequence[str]) -> TrainingError:
    close = get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return TrainingError(f"unknown key {key!r}; {hint}known there: {', '.join(known)}")


def _wrong(key: str, wanted: str, value: object) -> TrainingError:
    return TrainingError(f"{key} must be {wanted}, got {value!r}")


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


# -- Files, and what changes them ------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of JSON (1e-3 is one), and whose keys do not come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if name.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name.value!r} comes twice", name.start_mark)
            seen.add(name.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _locate(name_or_path: str | Path, beside: Path) -> Path:
    path = Path(name_or_path)
    path = beside / path if path.suffix in (".yaml", ".yml") else RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        known = known_recipes()
        close = get_close_matches(str(name_or_path), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise TrainingError(
            f"{name_or_path}: no such recipe; {hint}give one of {', '.join(known)}, or the path of a .yaml file"
        )
    return path


def _plain(text: bytes | str) -> Any:
    """What a text of YAML says, as plain values."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _values(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """What the file holds, merged into what it extends."""
    try:
        data = _plain(path.read_bytes())
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(data, dict):
        raise TrainingError(f"{path}: must hold keys and values")
    base = data.pop("extends", None)
    if base is None:
        return data
    chain = (*extending, path.resolve())
    try:
        if not isinstance(base, str):
            raise _wrong("extends", "the name or path of a recipe", base)
        other = _locate(base, path.parent)
        if other.resolve() in chain:
            raise TrainingError(f"extends {base}, which extends it in turn")
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None
    # A name belongs to its file.
    return _merged(_values(other, chain) | {"name": path.stem}, data)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys that `changes` gives, at any depth; null in the place of a mapping takes it out."""
    merged = dict(base)
    for key, value in changes.items():
        held = merged.get(key)
        if isinstance(held, Mapping) and value is None:
            del merged[key]
        else:
            both = isinstance(held, Mapping) and isinstance(value, Mapping)
            merged[key] = _merged(cast(Mapping[str, Any], held), value) if both else value
    return merged


def _override(text: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """ "a.b=1" as {"a": {"b": 1}}.

    Raises:
        TrainingError: not of that form, not YAML, or a key that the recipe does not have.
    """
    dotted, equals, written = text.partition("=")
    if not equals:
        raise TrainingError(f"{text}: write a change of the recipe as key=value, for example optimizer.lr=1e-3")
    try:
        value = _plain(written)
    except yaml.YAMLError:
        raise TrainingError(f"{text}: {written!r} is not valid YAML") from None
    names = dotted.split(".")
    held: Any = recipe
    for depth, name in enumerate(names):
        if not isinstance(held, Mapping):
            raise TrainingError(f"{text}: {'.'.join(names[:depth])} has no keys below it")
        if name not in held:
            raise TrainingError(f"{text}: {_unknown('.'.join(names[: depth + 1]), list(held))}")
        held = held[name]
    for name in reversed(names):
        value = {name: value}
    return cast(dict[str, Any], value)
