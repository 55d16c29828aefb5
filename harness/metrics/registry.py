"""Builds the metrics of a protocol, of images, videos or assets. Imports torch only with what is built."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from harness.errors import BenchError, MissingWeights
from harness.metrics.families import FAMILIES

if TYPE_CHECKING:
    import torch

    from harness.experiment import Modality
    from harness.metrics.asset_base import AssetMetric
    from harness.metrics.base import Aggregated, Cell, Metric
    from harness.metrics.clip_base import ClipMetric
    from harness.protocol import MetricSpec, Protocol
    from harness.weights import Found, WeightStore

    M = TypeVar("M", bound=Aggregated)
else:
    M = TypeVar("M")

INCEPTION_FAMILIES = ("rfid", "rfid-mean", "rfid-covariance", "kid", "inception-score")
RFVD_FAMILIES = ("rfvd", "rfvd-mean", "rfvd-covariance")
CODEBOOK_FAMILIES = ("codebook-usage", "codebook-entropy")
COUNTS: dict[str, Literal["tokens", "voxels", "gaussians"]]
COUNTS = {"tokens": "tokens", "voxels": "voxels", "gaussians": "gaussians"}


class _UndefinedError(Exception):
    """The metric has no meaning for this tokenizer."""


def build_metrics(
    protocol: Protocol, weights: WeightStore, device: torch.device, *, codebook_size: int | None = None
) -> tuple[list[Metric], list[Cell]]:
    """The metrics of images that a protocol asks for, ready to measure, and the cells that cannot be had.

    Families that read the same features share one `Metric`, so each image passes Inception once.

    Args:
        weights: where trunk weights are looked for.
        device: where the pairs will be.
        codebook_size: of the tokenizer's card; None where tokens are continuous.

    Raises:
        BenchError: the protocol names a family or an option that does not exist, or one name twice.
    """

    def build(specs: list[MetricSpec]) -> Metric:
        common = _common(protocol, specs[0])
        metric: Metric
        match specs[0].metric:
            case "psnr":
                from harness.metrics.psnr import Psnr

                metric = Psnr(**common)
            case "ssim":
                from harness.metrics.ssim import Ssim

                metric = Ssim(**common)
            case "lpips":
                from harness.metrics.lpips import Lpips

                metric = Lpips(**common, trunk=_trunk(specs[0], weights), device=device)
            case "bits-per-pixel":
                from harness.metrics.rate import BitsPerPixel

                metric = BitsPerPixel(**common)
            case "tokens":
                from harness.metrics.rate import Tokens

                metric = Tokens(**common)
            case family if family in CODEBOOK_FAMILIES:
                from harness.metrics.codebook import Codebook

                metric = Codebook(specs, codebook_size=_codebook(codebook_size))
            case _:
                from harness.metrics.inception import Inception
                from harness.weights import INCEPTION

                metric = Inception(specs, resamples=protocol.bootstrap, trunk=weights.find(INCEPTION), device=device)
        return metric

    return _built(protocol, "image", build)


def build_clip_metrics(
    protocol: Protocol, weights: WeightStore, device: torch.device, *, codebook_size: int | None = None
) -> tuple[list[ClipMetric], list[Cell]]:
    """The metrics of videos that a protocol asks for; as `build_metrics`."""

    def build(specs: list[MetricSpec]) -> ClipMetric:
        common = _common(protocol, specs[0])
        metric: ClipMetric
        match specs[0].metric:
            case "psnr":
                from harness.metrics.psnr import ClipPsnr

                metric = ClipPsnr(**common)
            case "ssim":
                from harness.metrics.ssim import ClipSsim

                metric = ClipSsim(**common)
            case "lpips":
                from harness.metrics.lpips import ClipLpips

                metric = ClipLpips(**common, trunk=_trunk(specs[0], weights), device=device)
            case "seam":
                from harness.metrics.seams import Seam

                metric = Seam(**common)
            case "bits-per-pixel":
                from harness.metrics.rate import ClipBitsPerPixel

                metric = ClipBitsPerPixel(**common)
            case "tokens":
                from harness.metrics.rate import ClipTokens

                metric = ClipTokens(**common)
            case family if family in CODEBOOK_FAMILIES:
                from harness.metrics.codebook import ClipCodebook

                metric = ClipCodebook(specs, codebook_size=_codebook(codebook_size))
            case _:
                from harness.metrics.rfvd import Rfvd

                metric = Rfvd(specs, resamples=protocol.bootstrap, detector=_detector(specs[0], weights), device=device)
        return metric

    return _built(protocol, "video", build)


def build_asset_metrics(
    protocol: Protocol, weights: WeightStore, device: torch.device, *, unrendered: str | None = None
) -> tuple[list[AssetMetric], list[Cell]]:
    """The metrics of 3D assets that a protocol asks for; as `build_metrics`.

    Args:
        unrendered: why nothing of the tokenizer's can be looked at: then what looks at pictures is absent with this
            reason.
    """

    def build(specs: list[MetricSpec]) -> AssetMetric:
        common = _common(protocol, specs[0])
        count = COUNTS.get(specs[0].metric)
        if unrendered is not None and count in (None, "gaussians"):
            raise MissingWeights(unrendered)
        if count is not None:
            from harness.metrics.asset_column import Count

            return Count(**common, of=count)
        ground = {"background": common.pop("background")} if "background" in common else {}
        match specs[0].metric:
            case "psnr":
                from harness.metrics.asset_psnr import AssetPsnr

                return AssetPsnr(**common, **ground)
            case "ssim":
                from harness.metrics.asset_column import OnGround
                from harness.metrics.ssim import ClipSsim

                return OnGround(ClipSsim(**common), **ground)
            case "ms-ssim":
                from harness.metrics.ms_ssim import MsSsim

                return MsSsim(**common, **ground)
            case "lpips":
                from harness.metrics.asset_column import OnGround
                from harness.metrics.lpips import ClipLpips

                return OnGround(ClipLpips(**common, trunk=_trunk(specs[0], weights), device=device), **ground)
            case _:
                from harness.metrics.asset_psnr import ForegroundFraction

                return ForegroundFraction(**common)

    return _built(protocol, "asset", build)


def _group(spec: MetricSpec) -> Hashable:
    """What specs have in common that are measured together; the families of rFVD with their options."""
    if spec.metric in RFVD_FAMILIES:
        return RFVD_FAMILIES, tuple(sorted(spec.options.items()))
    return next((group for group in (INCEPTION_FAMILIES, CODEBOOK_FAMILIES) if spec.metric in group), spec.name)


def _built(
    protocol: Protocol, modality: Modality, build: Callable[[list[MetricSpec]], M]
) -> tuple[list[M], list[Cell]]:
    _check(protocol, modality)
    groups: dict[Hashable, list[MetricSpec]] = {}
    for spec in protocol.metrics:
        groups.setdefault(_group(spec), []).append(spec)
    metrics: list[M] = []
    absent: list[Cell] = []
    for members in groups.values():
        try:
            metrics.append(build(members))
        except (MissingWeights, _UndefinedError) as reason:
            applies = isinstance(reason, MissingWeights)
            absent += [_absent(member, modality, str(reason), applies=applies) for member in members]
    columns = [column for metric in metrics for column in metric.columns]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise BenchError(f"protocol {protocol.name}: two metrics keep a column called {', '.join(twice)}; rename one")
    return metrics, absent


def _common(protocol: Protocol, spec: MetricSpec) -> dict[str, Any]:
    return {"name": spec.name, "resamples": protocol.bootstrap, **spec.options}


def _trunk(spec: MetricSpec, weights: WeightStore) -> Found:
    from harness.weights import ALEXNET, VGG16

    net = spec.options.get("net", "vgg")
    trunks = {"vgg": VGG16, "alex": ALEXNET}
    if net not in trunks:
        raise BenchError(f"{spec.name}: LPIPS net {net!r}; there are: {', '.join(trunks)}")
    return weights.find(trunks[net])


def _detector(spec: MetricSpec, weights: WeightStore) -> Found:
    from harness.weights import I3D_FILES

    flavour = spec.options.get("detector", "styleganv")
    if flavour not in I3D_FILES:
        raise BenchError(f"{spec.name}: detector {flavour!r}; there are: {', '.join(I3D_FILES)}")
    return weights.find(I3D_FILES[flavour])


def _codebook(size: int | None) -> int:
    if size is None:
        raise _UndefinedError("the tokenizer has no codebook")
    return size


def _absent(spec: MetricSpec, modality: Modality, reason: str, *, applies: bool) -> Cell:
    from harness.metrics.base import Cell

    family = FAMILIES[modality][spec.metric]
    return Cell(
        name=spec.name,
        value=None,
        n=0,
        higher_is_better=family.higher_is_better,
        unit=family.unit,
        absent=reason,
        applies=applies,
        parameters=dict(spec.options),
    )


def _check(protocol: Protocol, modality: Modality) -> None:
    protocol.check_names()
    origin = f"protocol {protocol.name}"
    families = FAMILIES[modality]
    for spec in protocol.metrics:
        if spec.metric not in families:
            others = [f"is of {other}s, not of {modality}s" for other, of in FAMILIES.items() if spec.metric in of]
            known = f"for {modality}s there are: {', '.join(families)}"
            if others:
                raise BenchError(f"{origin}: the metric family {spec.metric!r} {others[0]}; {known}")
            raise BenchError(f"{origin}: no metric family {spec.metric!r}; {known}")
        if unknown := sorted(spec.options.keys() - families[spec.metric].options.keys()):
            options = ", ".join(families[spec.metric].options) or "none"
            raise BenchError(f"{origin}: {spec.metric} has no option {', '.join(unknown)}; it has: {options}")
