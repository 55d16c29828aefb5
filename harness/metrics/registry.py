"""The metric families by name, and the metrics of a protocol. The table is light: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import BenchError, MissingWeights

if TYPE_CHECKING:
    import torch

    from harness.metrics.base import Cell, Metric
    from harness.protocol import MetricSpec, Protocol
    from harness.weights import WeightStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A metric that a protocol can ask for.

    Attributes:
        title: one line for `list metrics`.
        higher_is_better: direction of its cell.
        unit: of its cell.
        options: what a protocol may set, each with its meaning; the default comes first.
    """

    title: str
    higher_is_better: bool
    unit: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


METRICS: Mapping[str, Family] = MappingProxyType(
    {
        "psnr": Family(
            title="PSNR of the 8-bit images: peak 255, MSE over an image's pixels and channels, mean of per-image dB",
            higher_is_better=True,
            unit="dB",
        ),
        "ssim": Family(
            title="SSIM per channel, mean over an image, then over images",
            higher_is_better=True,
            options={
                "flavour": "gaussian (torchmetrics: 11x11, sigma 1.5, reflected edges) or skimage "
                "(7x7 uniform, sample covariance, inner pixels)",
                "input": "8bit, or clamped (gaussian only): the float values in [-1, 1], not rounded",
                "images": "interval that the 8-bit values are mapped to: [-1, 1] for gaussian, [0, 1] for skimage",
                "data_range": "the constants' range: the interval's length; another value is a known mistake of "
                "published code (2.0 on [0, 1] images inflates SSIM) and is named in the record",
            },
        ),
        "lpips": Family(
            title="LPIPS v0.1 through the lpips package's modules",
            higher_is_better=False,
            options={
                "net": "vgg or alex",
                "input": "float (as the tokenizer gave it), clamped (to [-1, 1]) or 8bit",
            },
        ),
        "rfid": Family(
            title="Frechet distance of torch-fidelity's 2048 Inception features, reconstructions to references",
            higher_is_better=False,
        ),
        "rfid-mean": Family(title="mean term of rfid: |mu1 - mu2|^2", higher_is_better=False),
        "rfid-covariance": Family(title="covariance term of rfid: tr(S1 + S2 - 2 sqrt(S1 S2))", higher_is_better=False),
        "kid": Family(
            title="kernel distance of the same features by torch-fidelity: cubic kernel, mean over subsets",
            higher_is_better=False,
            options={"subsets": "100", "subset_size": "1000"},
        ),
        "inception-score": Family(
            title="Inception Score of the reconstructions by torch-fidelity",
            higher_is_better=True,
            options={"splits": "10"},
        ),
        "bits-per-pixel": Family(
            title="size of the code: bits over height x width, mean over images; codecs and discrete tokenizers",
            higher_is_better=False,
            unit="bit/pixel",
        ),
        "tokens": Family(title="tokens of an image, mean over images", higher_is_better=False, unit="tokens"),
        "codebook-usage": Family(
            title="share of a codebook's entries that the run used, mean over codebooks",
            higher_is_better=True,
            options={"max_tokens": "1024: most tokens of one image that are kept"},
        ),
        "codebook-entropy": Family(
            title="entropy of the code frequencies over the run, mean over codebooks",
            higher_is_better=True,
            unit="bit",
            options={"max_tokens": "1024: most tokens of one image that are kept"},
        ),
    }
)
INCEPTION_FAMILIES = ("rfid", "rfid-mean", "rfid-covariance", "kid", "inception-score")
CODEBOOK_FAMILIES = ("codebook-usage", "codebook-entropy")


def build_metrics(
    protocol: Protocol, weights: WeightStore, device: torch.device, *, codebook_size: int | None = None
) -> tuple[list[Metric], list[Cell]]:
    """The metrics that a protocol asks for, ready to measure, and the cells that cannot be had.

    Families that read the same features share one `Metric`, so each image passes Inception once.

    Args:
        weights: where trunk weights are looked for.
        device: where the pairs will be.
        codebook_size: of the tokenizer's card; None where tokens are continuous.

    Raises:
        BenchError: the protocol names a family or an option that does not exist, or one name twice.
    """
    _check(protocol)
    metrics: list[Metric] = []
    absent: list[Cell] = []
    shared: set[str] = set()
    for spec in protocol.metrics:
        group = next((group for group in (INCEPTION_FAMILIES, CODEBOOK_FAMILIES) if spec.metric in group), None)
        if group is None:
            members = [spec]
        elif shared.isdisjoint(group):
            members = [other for other in protocol.metrics if other.metric in group]
            shared.update(group)
        else:
            continue
        try:
            metrics.append(_build(members, protocol.bootstrap, weights, device, codebook_size))
        except (MissingWeights, _UndefinedError) as reason:
            applies = isinstance(reason, MissingWeights)
            absent += [_absent(member, str(reason), applies=applies) for member in members]
    return metrics, absent


class _UndefinedError(Exception):
    """The metric has no meaning for this tokenizer."""


def _build(
    specs: list[MetricSpec], resamples: int, weights: WeightStore, device: torch.device, codebook_size: int | None
) -> Metric:
    from harness import weights as known

    first = specs[0]
    common: dict[str, Any] = {"name": first.name, "resamples": resamples, **first.options}
    if first.metric == "psnr":
        from harness.metrics.psnr import Psnr

        return Psnr(**common)
    if first.metric == "ssim":
        from harness.metrics.ssim import Ssim

        return Ssim(**common)
    if first.metric == "lpips":
        from harness.metrics.lpips import Lpips

        net = first.options.get("net", "vgg")
        trunks = {"vgg": known.VGG16, "alex": known.ALEXNET}
        if net not in trunks:
            raise BenchError(f"{first.name}: LPIPS net {net!r}; there are: {', '.join(trunks)}")
        return Lpips(**common, trunk=weights.find(trunks[net]), device=device)
    if first.metric in INCEPTION_FAMILIES:
        from harness.metrics.inception import Inception

        return Inception(specs, resamples=resamples, trunk=weights.find(known.INCEPTION), device=device)
    if first.metric in CODEBOOK_FAMILIES:
        from harness.metrics.codebook import Codebook

        if codebook_size is None:
            raise _UndefinedError("the tokenizer has no codebook")
        return Codebook(specs, codebook_size=codebook_size)
    from harness.metrics.rate import BitsPerPixel, Tokens

    return BitsPerPixel(**common) if first.metric == "bits-per-pixel" else Tokens(**common)


def _absent(spec: MetricSpec, reason: str, *, applies: bool) -> Cell:
    from harness.metrics.base import Cell

    family = METRICS[spec.metric]
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


def _check(protocol: Protocol) -> None:
    origin = f"protocol {protocol.name}"
    names = [spec.name for spec in protocol.metrics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BenchError(f"{origin}: two metrics are called {', '.join(twice)}")
    for spec in protocol.metrics:
        if spec.metric not in METRICS:
            raise BenchError(f"{origin}: no metric family {spec.metric!r}; there are: {', '.join(METRICS)}")
        if unknown := sorted(spec.options.keys() - METRICS[spec.metric].options.keys()):
            known = ", ".join(METRICS[spec.metric].options) or "none"
            raise BenchError(f"{origin}: {spec.metric} has no option {', '.join(unknown)}; it has: {known}")
