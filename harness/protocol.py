"""A protocol fixes everything that can move a number; its hash is part of every record."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.errors import BenchError

SCHEMA = 1
EightBitRule = Literal["half-up", "half-even", "floor"]
FrameRule = Literal["all", "4k", "common"]
ViewSet = Literal["four", "thirty"]
Templates = Literal["openai", "openai-80", "bare", "own", "assets", "asset"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """One metric of a protocol.

    Attributes:
        metric: registry name of the family, e.g. ``ssim``.
        name: as the record's cell and the report's column are called, e.g. ``SSIM``.
        options: passed to the family's constructor, e.g. ``{"flavour": "gaussian"}``.
    """

    metric: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRules:
    """Which frames of a video are measured.

    Attributes:
        first_frames, first_seconds: of a longer clip the first ``max(first_frames, ceil(first_seconds x rate))``
            frames are taken, the rate with two decimals as ffmpeg prints it (and TokenBench's script reads it), and
            no more of the clip is read; None and None for all.
        frames: ``all``; ``4k``: cut to a multiple of 4, as AToken's release does; ``common``: each tokenizer gets
            the longest beginning that it is made for (4 k frames for AToken, 4 k + 1 for causal VAEs), and what
            both kinds have is measured, so that all tokenizers are measured on the same frames.
    """

    first_frames: int | None
    first_seconds: float | None
    frames: FrameRule

    def limit(self, rate: Fraction) -> int | None:
        """Most frames of a clip at `rate` frames per second; None for all."""
        if self.first_frames is None and self.first_seconds is None:
            return None
        return max(self.first_frames or 1, math.ceil(Fraction(self.first_seconds or 0) * round(rate, 2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetRules:
    """From where a 3D asset is seen.

    Attributes:
        input_views: pictures that tokenizers make an asset of, spread over TRELLIS's sphere (Hammersley without its
            random offset, three quarters of them above the horizon).
        input_size: pixels along their sides.
        views: those that are measured: ``thirty`` (TRELLIS's `render_multiview`) or ``four`` (its generation's:
            yaw 0, 90, 180, 270, pitch 30). None of them is an input, but for the pole of the sphere.
        size: pixels along their sides.
    """

    input_views: int
    input_size: int
    views: ViewSet
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedRules:
    """What an understanding experiment makes vectors of, and compares them with.

    Attributes:
        side: images are square of this side, or of its area: the paper's column "Res."; None where they keep their
            own size. The pixels themselves are made by `Protocol.prepare`.
        templates: the sentences that a class's name is put into, see `harness.understanding.templates`; None where
            samples are compared with their own captions, as they are.
        frames: of videos, which frames an embedder gets, see `harness.data.frame_choice`.
    """

    side: int | None
    templates: Templates | None
    frames: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureRules:
    """What an experiment that lays out classes takes of a labelled set, and how it draws them.

    Attributes:
        side: images are square of this side; None where they keep their own size.
        classes: how many, by the protocol's seed; all where the set has fewer.
        per_class: samples of each, likewise.
        perplexity, steps: of t-SNE.
    """

    side: int | None
    classes: int
    per_class: int
    perplexity: float
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How an experiment is measured. Immutable; two protocols are the same iff `sha256` is.

    Attributes:
        name, experiment, version, title: what it is.
        source: where the choices come from (paper section, repository and commit).
        clip: of an experiment on videos, which of their frames count; None for others.
        asset: of an experiment on 3D assets, from where they are seen; None for others.
        embed: of an experiment that compares embeddings with texts, how; None for others. Such an experiment
            reconstructs nothing: `latent` and `eight_bit` play no part in it.
        structure: of an experiment that lays out classes by their vectors alone; None for others. As for `embed`.
        prepare: the pixel pipeline (of each frame), e.g. ``rgb|resize_short(256,bicubic)|center_crop(256)``
            (see `harness.data.prepare`); its output is what the tokenizer gets and what it is compared with.
            Of assets it is ``unit_cube|unlit``: what `load_mesh` makes of a model and the renderer of that.
        latent: mean of the posterior or a sample of it (tokenizers without a posterior: mean).
        seed: of the sampled latents and of the bootstrap; a sample's own seed is derived from it and its id.
        eight_bit: how [-1, 1] becomes 0..255: ``half-up`` = floor(127.5 x + 128), ``half-even`` =
            round(127.5 (x + 1)) with ties to even, ``floor`` = trunc(127.5 (x + 1)); clamped in each case.
        bootstrap: resamples per interval.
        expected: dataset name -> number of samples that the paper's figure stands for.
        metrics: what is measured, in order.
    """

    name: str
    experiment: str
    version: int
    title: str
    source: str
    prepare: str
    latent: Literal["mean", "sample"]
    seed: int
    eight_bit: EightBitRule
    bootstrap: int
    expected: dict[str, int]
    metrics: tuple[MetricSpec, ...]
    clip: ClipRules | None = None
    asset: AssetRules | None = None
    embed: EmbedRules | None = None
    structure: StructureRules | None = None

    def content(self) -> dict[str, Any]:
        """Plain data that says everything; what `sha256` is taken of."""
        rules = {"clip": self.clip, "asset": self.asset, "embed": self.embed, "structure": self.structure}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "experiment": self.experiment,
            "version": self.version,
            "title": self.title,
            "source": self.source,
            "prepare": self.prepare,
            "latent": self.latent,
            "seed": self.seed,
            "eight_bit": self.eight_bit,
            "bootstrap": self.bootstrap,
            "expected": self.expected,
            "metrics": [{"metric": m.metric, "name": m.name, **m.options} for m in self.metrics],
            **{name: asdict(rule) for name, rule in rules.items() if rule is not None},
        }

    def check_names(self) -> None:
        """Raise a BenchError where two metrics have one name: a record tells its cells apart by it."""
        names = [spec.name for spec in self.metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BenchError(f"protocol {self.name}: two metrics are called {', '.join(twice)}")

    @property
    def sha256(self) -> str:
        """Of `content` as canonical JSON, so that comments and key order in the file do not matter."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @classmethod
    def from_content(cls, content: dict[str, Any], origin: str) -> Protocol:
        """Strict: an unknown or missing key raises with the key and `origin`.

        Raises:
            BenchError: the content is not a protocol of this schema.
        """
        data = dict(content)
        if data.pop("schema", None) != SCHEMA:
            raise BenchError(f"{origin}: not a protocol of schema {SCHEMA}; update atoken-bench or the file")
        wanted = {"name", "experiment", "version", "title", "source", "prepare", "latent", "seed", "eight_bit"}
        wanted |= {"bootstrap", "expected", "metrics"}
        if (given := data.keys() - {"clip", "asset", "embed", "structure"}) != wanted:
            wrong = sorted(given ^ wanted)
            raise BenchError(f"{origin}: missing or unknown keys: {', '.join(wrong)}")
        if data["eight_bit"] not in get_args(EightBitRule):
            raise BenchError(f"{origin}: eight_bit is {data['eight_bit']!r}, not one of {get_args(EightBitRule)}")
        if data["latent"] not in ("mean", "sample"):
            raise BenchError(f"{origin}: latent is {data['latent']!r}, not 'mean' or 'sample'")
        if "clip" in data:
            data["clip"] = _clip_rules(data["clip"], origin)
        if "asset" in data:
            data["asset"] = _asset_rules(data["asset"], origin)
        if "embed" in data:
            data["embed"] = _embed_rules(data["embed"], origin)
        if "structure" in data:
            data["structure"] = _structure_rules(data["structure"], origin)
        metrics = []
        for entry in data["metrics"]:
            options = dict(entry)
            try:
                metrics.append(MetricSpec(metric=options.pop("metric"), name=options.pop("name"), options=options))
            except KeyError as missing:
                raise BenchError(f"{origin}: a metric without {missing}") from None
        return cls(**{**data, "metrics": tuple(metrics)})


def _clip_rules(data: Any, origin: str) -> ClipRules:
    known = {field.name for field in fields(ClipRules)}
    if not isinstance(data, dict) or data.keys() != known:
        raise BenchError(f"{origin}: clip needs the keys {', '.join(sorted(known))}")
    if data["frames"] not in get_args(FrameRule):
        raise BenchError(f"{origin}: clip.frames is {data['frames']!r}, not one of {get_args(FrameRule)}")
    for name in ("first_frames", "first_seconds"):
        value = data[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise BenchError(f"{origin}: clip.{name} is {value!r}, not a number above 0 or null")
    return ClipRules(**data)


def _asset_rules(data: Any, origin: str) -> AssetRules:
    known = {field.name for field in fields(AssetRules)}
    if not isinstance(data, dict) or data.keys() != known:
        raise BenchError(f"{origin}: asset needs the keys {', '.join(sorted(known))}")
    if data["views"] not in get_args(ViewSet):
        raise BenchError(f"{origin}: asset.views is {data['views']!r}, not one of {get_args(ViewSet)}")
    for name in known - {"views"}:
        if isinstance(data[name], bool) or not isinstance(data[name], int) or data[name] < 1:
            raise BenchError(f"{origin}: asset.{name} is {data[name]!r}, not a whole number above 0")
    return AssetRules(**data)


def _embed_rules(data: Any, origin: str) -> EmbedRules:
    if not isinstance(data, dict) or data.keys() - {"frames"} != {"side", "templates"}:
        raise BenchError(f"{origin}: embed needs the keys side and templates, and frames of videos")
    side, templates = data["side"], data["templates"]
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise BenchError(f"{origin}: embed.side is {side!r}, not a whole number above 0 or null")
    if templates is not None and templates not in get_args(Templates):
        raise BenchError(f"{origin}: embed.templates is {templates!r}, not null or one of {get_args(Templates)}")
    if not isinstance(data.get("frames"), str | None):
        raise BenchError(f"{origin}: embed.frames is {data['frames']!r}, not a text")
    return EmbedRules(**data)


def _structure_rules(data: Any, origin: str) -> StructureRules:
    known = {field.name for field in fields(StructureRules)}
    if not isinstance(data, dict) or data.keys() != known:
        raise BenchError(f"{origin}: structure needs the keys {', '.join(sorted(known))}")
    for name, least in (("side", 1), ("classes", 2), ("per_class", 2), ("perplexity", 1), ("steps", 250)):
        value = data[name]
        kinds = (int, float) if name == "perplexity" else int
        if value is None and name == "side":
            continue
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
            raise BenchError(f"{origin}: structure.{name} is {value!r}, not a number from {least} on")
    return StructureRules(**data)


def load(experiment: str, name: str) -> Protocol:
    """Read a protocol by name (shipped in `benchmarks/protocols/<experiment>/`) or from a ``.yaml`` path.

    Raises:
        BenchError: no such protocol; the message lists those that exist.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BenchError(f"{path}: no such protocol file")
        text, origin = path.read_text(encoding="utf-8"), str(path)
    else:
        if name not in (known := names(experiment)):
            raise BenchError(f"no protocol {name!r} for {experiment}; there are: {', '.join(known) or 'none'}")
        file = resources.files("benchmarks") / "protocols" / experiment / f"{name}.yaml"
        text, origin = file.read_text(encoding="utf-8"), f"{experiment}/{name}.yaml"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BenchError(f"{origin}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise BenchError(f"{origin}: not a protocol (a mapping is wanted)")
    protocol = Protocol.from_content(content, origin)
    if protocol.experiment != experiment:
        raise BenchError(f"{origin}: is a protocol of {protocol.experiment}, not of {experiment}")
    return protocol


def names(experiment: str) -> list[str]:
    """The protocols shipped for an experiment, sorted."""
    folder = resources.files("benchmarks") / "protocols" / experiment
    if not folder.is_dir():
        return []
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
