"""Finds experiments and tokenizers through entry points, so that an installed package adds its own.

Groups: ``atoken_bench.experiments`` (an `Experiment`, or an iterable of them),
``atoken_bench.tokenizers`` (a factory, see `create_tokenizer`) and ``atoken_bench.embedders`` (likewise, see
`create_embedder`). Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import BenchError
from harness.experiment import Experiment

if TYPE_CHECKING:
    from harness.embedders.base import Embedder
    from harness.tokenizers.base import Adapter, Evaluated

E = TypeVar("E", bound="Evaluated")

EXPERIMENTS = "atoken_bench.experiments"
TOKENIZERS = "atoken_bench.tokenizers"
EMBEDDERS = "atoken_bench.embedders"


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """A tokenizer or embedder as the user wrote it.

    Attributes:
        text: the spec itself, e.g. ``jpeg:75``.
        name: registry name or module path.
        factory: attribute of the module, None for a registry name.
        argument: what follows the name; a rate keeps its ``@`` (``@0.375``).
    """

    text: str
    name: str
    factory: str | None = None
    argument: str | None = None

    @classmethod
    def parse(cls, text: str) -> TokenizerSpec:
        """``name``, ``name:ARG``, ``name@RATE``, ``pkg.module:factory`` or ``pkg.module:factory:ARG``.

        Raises:
            BenchError: the text is none of these.
        """
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)(?:([:@])(.*))?", text, flags=re.DOTALL)
        if match is None:
            raise BenchError(f"tokenizer {text!r}: not NAME, NAME:ARG, NAME@RATE or pkg.module:factory")
        name, separator, rest = match.groups()
        if "." in name:
            factory, _, argument = (rest or "").partition(":")
            if separator != ":" or not factory.isidentifier():
                raise BenchError(f"tokenizer {text!r}: a name with a dot is a module; write pkg.module:factory[:ARG]")
            return cls(text, name, factory, argument or None)
        if separator is None:
            return cls(text, name)
        if not rest:
            raise BenchError(f"tokenizer {text!r}: nothing follows {separator!r}")
        return cls(text, name, argument=f"@{rest}" if separator == "@" else rest)


def experiments() -> dict[str, Experiment]:
    """Every experiment of every installed package, by name, sorted.

    Raises:
        BenchError: an entry point does not load, or two packages claim one name.
    """
    found: dict[str, Experiment] = {}
    for point in sorted(entry_points(group=EXPERIMENTS), key=lambda point: point.name):
        loaded = _load(point)
        for experiment in [loaded] if isinstance(loaded, Experiment) else loaded:
            if found.get(experiment.name, experiment) != experiment:
                raise BenchError(f"two packages offer an experiment {experiment.name!r}; the second is {point.value}")
            found[experiment.name] = experiment
    return dict(sorted(found.items(), key=lambda item: (item[1].status != "built", item[0])))


def experiment(name: str) -> Experiment:
    """One experiment by name.

    Raises:
        BenchError: there is none of that name; the message lists those there are.
    """
    known = experiments()
    if name not in known:
        raise BenchError(f"no experiment {name!r}; there are: {', '.join(known) or 'none'}")
    return known[name]


def tokenizers() -> dict[str, EntryPoint]:
    """The tokenizer factories by registry name, sorted, not loaded."""
    return {point.name: point for point in sorted(entry_points(group=TOKENIZERS), key=lambda point: point.name)}


def embedders() -> dict[str, EntryPoint]:
    """The embedder factories by registry name, sorted, not loaded."""
    return {point.name: point for point in sorted(entry_points(group=EMBEDDERS), key=lambda point: point.name)}


def create_tokenizer(
    text: str,
    *,
    ckpt: str | None,
    preset: str | None,
    device: str,
    dtype: str,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Adapter:
    """Build the tokenizer that a spec names.

    A factory is ``create(argument: str | None, *, device: str, dtype: str, **options) -> Tokenizer``.

    Args:
        text: see `TokenizerSpec.parse`.
        ckpt: checkpoint path or name; stands for the spec's argument.
        preset: architecture of a checkpoint whose shapes do not say it; only factories that take one get it.
        options: further keywords of the factory, as text.

    Raises:
        BenchError: no such tokenizer, an argument given twice, an option that it does not take, or a factory
            that cannot be called so or makes something else.
    """
    # Here and not above: the contract imports torch, and `list` finds tokenizers without it.
    from harness.tokenizers.base import Adapter

    keywords = {"ckpt": ckpt, "preset": preset, "device": device, "dtype": dtype}
    return _created(text, tokenizers(), "tokenizer", Adapter, **keywords, options=options)


def create_embedder(
    text: str,
    *,
    ckpt: str | None,
    preset: str | None,
    device: str,
    dtype: str,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Embedder:
    """Build the embedder that a spec names; all as `create_tokenizer`, its factories give an `Embedder`.

    Raises:
        BenchError: as `create_tokenizer`.
    """
    from harness.embedders.base import Embedder

    keywords = {"ckpt": ckpt, "preset": preset, "device": device, "dtype": dtype}
    return _created(text, embedders(), "embedder", Embedder, **keywords, options=options)


def _created(
    text: str,
    known: Mapping[str, EntryPoint],
    noun: str,
    kind: type[E],
    *,
    ckpt: str | None,
    preset: str | None,
    device: str | None,
    dtype: str | None,
    options: Mapping[str, str],
) -> E:
    spec = TokenizerSpec.parse(text)
    if ckpt is not None and spec.argument is not None:
        raise BenchError(f"{noun} {text!r} has an argument already; leave out it or --ckpt {ckpt}")
    factory = _factory(spec, known, noun)
    keywords = dict(options)
    for name in keywords:
        if name in ("argument", "device", "dtype", "preset") or not _takes(factory, name):
            raise BenchError(f"{noun} {text!r} takes no --option {name}; it takes: {_keywords(factory)}")
    if preset is not None:
        if not _takes(factory, "preset"):
            raise BenchError(f"{noun} {text!r} takes no --preset")
        keywords["preset"] = preset
    argument = spec.argument if ckpt is None else ckpt
    try:
        call = inspect.signature(factory).bind(argument, device=device, dtype=dtype, **keywords)
    except TypeError as error:
        # Told apart from a TypeError inside the factory, whose traceback its author needs.
        raise BenchError(
            f"{noun} {text!r}: cannot be built ({error}); a factory is create(argument, *, device, dtype)"
        ) from None
    made = factory(*call.args, **call.kwargs)
    if not isinstance(made, kind):
        wanted = "a Tokenizer" if noun == "tokenizer" else "an Embedder"
        raise BenchError(f"{noun} {text!r}: its factory returns a {type(made).__name__}, not {wanted}")
    return made


def source_sha256(text: str) -> str | None:
    """Hash of the module that a ``pkg.module:factory`` spec names: a run of one's own code depends on it.

    None for registry names, whose packages and versions say what they are.
    """
    spec = TokenizerSpec.parse(text)
    if spec.factory is None:
        return None
    file = inspect.getsourcefile(_module(spec))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _factory(spec: TokenizerSpec, known: Mapping[str, EntryPoint], noun: str) -> Callable[..., Any]:
    if spec.factory is not None:
        factory = getattr(_module(spec), spec.factory, None)
        if factory is None:
            raise BenchError(f"{noun} {spec.text!r}: {spec.name} has no {spec.factory}")
    else:
        if spec.name not in known:
            raise BenchError(
                f"no {noun} {spec.name!r}; there are: {', '.join(known) or 'none'} (or pkg.module:factory)"
            )
        factory = _load(known[spec.name])
    if not callable(factory):
        raise BenchError(f"{noun} {spec.text!r}: the factory is a {type(factory).__name__}, not callable")
    result: Callable[..., Any] = factory
    return result


def _module(spec: TokenizerSpec) -> Any:
    # The console script does not look where the user stands, and a tokenizer of one's own lies there. Last, so
    # that nothing in that folder hides an installed package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(spec.name)
    except ImportError as error:
        raise BenchError(f"tokenizer {spec.text!r}: cannot import {spec.name}: {error}") from error


def _takes(factory: Callable[..., Any], option: str) -> bool:
    parameters: Iterable[inspect.Parameter] = inspect.signature(factory).parameters.values()
    return any(p.name == option or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _keywords(factory: Callable[..., Any]) -> str:
    known = [name for name in inspect.signature(factory).parameters if name not in ("device", "dtype", "preset")]
    return ", ".join(known[1:]) or "none"


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise BenchError(f"entry point {point.group}: {point.name} = {point.value} does not load: {error}") from error
