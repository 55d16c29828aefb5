"""The metric families by name, of images, of videos and of 3D assets. A light table: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.experiment import Modality


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


_RFVD = {
    "detector": "styleganv (its TorchScript file, as TokenBench) or state-dict (the same network, weights only)",
    "max_frames": "300: a longer clip's first so many",
}
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
"""What can be measured of images."""
CLIP_METRICS: Mapping[str, Family] = MappingProxyType(
    {
        "psnr": Family(
            title="PSNR of the 8-bit frames: peak 255, mean over clips",
            higher_is_better=True,
            unit="dB",
            options={
                "mse": "frame (mean over a clip's frames of their dB) or clip (dB of one MSE over all its frames: "
                "TokenBench)",
                "epsilon": "added to the root of the MSE, in grey levels; 0 for frame, 2^-23 for clip (TokenBench): "
                "above 0 an identical clip has a finite value",
            },
        ),
        "ssim": Family(
            title="SSIM of each 8-bit frame as of an image, mean over a clip's frames, then over clips",
            higher_is_better=True,
            options={name: METRICS["ssim"].options[name] for name in ("flavour", "images", "data_range")},
        ),
        "lpips": Family(
            title="LPIPS v0.1 of each frame as of an image, mean over a clip's frames, then over clips",
            higher_is_better=False,
            options={"net": METRICS["lpips"].options["net"], "input": "8bit"},
        ),
        "rfvd": Family(
            title="Frechet distance of I3D's 400 outputs, one vector a video, reconstructions to originals",
            higher_is_better=False,
            options=_RFVD,
        ),
        "rfvd-mean": Family(
            title="mean term of rfvd: |mu1 - mu2|^2",
            higher_is_better=False,
            options=_RFVD,
        ),
        "rfvd-covariance": Family(
            title="covariance term of rfvd: tr(S1 + S2 - 2 sqrt(S1 S2))",
            higher_is_better=False,
            options=_RFVD,
        ),
        "seam": Family(
            title="how much more the error changes across the tokenizer's tile borders than inside its tiles: median "
            "over a clip's borders, mean over clips; 0 dB: no seam",
            higher_is_better=False,
            unit="dB",
            options={
                "axis": "time (from frame to frame) or space (from row to row and column to column)",
                "inside": "what a border is compared with: all steps inside tiles, or those between tokens only",
            },
        ),
        "bits-per-pixel": Family(
            title="size of the code: bits over coded frames x height x width, mean over clips; codecs and discrete "
            "tokenizers",
            higher_is_better=False,
            unit="bit/pixel",
        ),
        "tokens": Family(title="tokens of a clip, mean over clips", higher_is_better=False, unit="tokens"),
        "codebook-usage": Family(
            title=METRICS["codebook-usage"].title,
            higher_is_better=True,
        ),
        "codebook-entropy": Family(
            title=METRICS["codebook-entropy"].title,
            higher_is_better=True,
            unit="bit",
        ),
    }
)
"""What can be measured of videos."""
_BACKGROUND = {"background": "black or white: what both lie on"}
ASSET_METRICS: Mapping[str, Family] = MappingProxyType(
    {
        "psnr": Family(
            title="PSNR of the 8-bit views: peak 255, mean over assets",
            higher_is_better=True,
            unit="dB",
            options={
                "mse": "view (mean over an asset's views of their dB) or asset (dB of one MSE over all its views: "
                "AToken's release)",
                **_BACKGROUND,
                "foreground": "false, or true: only pixels that the original covers by half or more",
            },
        ),
        "ssim": Family(
            title="SSIM of each 8-bit view as of an image, mean over an asset's views, then over assets",
            higher_is_better=True,
            options={**CLIP_METRICS["ssim"].options, **_BACKGROUND},
        ),
        "ms-ssim": Family(
            title="multi-scale SSIM of each 8-bit view (torchmetrics: 5 scales, 11x11, sigma 1.5), mean over views, "
            "then over assets",
            higher_is_better=True,
            options=_BACKGROUND,
        ),
        "lpips": Family(
            title="LPIPS v0.1 of each view as of an image, mean over an asset's views, then over assets",
            higher_is_better=False,
            options={**CLIP_METRICS["lpips"].options, **_BACKGROUND},
        ),
        "foreground": Family(
            title="share of the pixels that the original covers by half or more, mean over views, then over assets",
            higher_is_better=True,
        ),
        "tokens": Family(title="tokens of an asset, mean over assets", higher_is_better=False, unit="tokens"),
        "voxels": Family(title="occupied voxels of an asset, mean over assets", higher_is_better=False, unit="voxels"),
        "gaussians": Family(
            title="Gaussians of a reconstruction, mean over assets", higher_is_better=False, unit="gaussians"
        ),
    }
)
"""What can be measured of 3D assets."""
FAMILIES: Mapping[Modality, Mapping[str, Family]] = MappingProxyType(
    {"image": METRICS, "video": CLIP_METRICS, "asset": ASSET_METRICS}
)
EMBEDDING_METRICS: Mapping[str, Family] = MappingProxyType(
    {
        "top-k": Family(
            title="zero-shot: samples whose own class is among the k nearest, equal scores counting against",
            higher_is_better=True,
            unit="%",
            options={"k": "1"},
        ),
        "class-mean": Family(
            title="zero-shot: share of each class's samples that are right first, mean over the classes that are there",
            higher_is_better=True,
            unit="%",
        ),
        "recall": Family(
            title="retrieval: queries whose right answer is among the k best, equal scores counting against",
            higher_is_better=True,
            unit="%",
            options={
                "query": "text or sample",
                "k": "1",
                "ranked": "where samples ask: captions, one by one, or items, by their best caption",
            },
        ),
    }
)
"""What can be measured of vectors that are compared with texts, whatever they are of."""
STRUCTURE_METRICS: Mapping[str, Family] = MappingProxyType(
    {
        "silhouette": Family(
            title="how far classes lie apart: mean silhouette by cosine distance, -1 to 1 (scikit-learn)",
            higher_is_better=True,
            options={"vectors": "pooled, mean, latent or fsq-input"},
        ),
        "neighbours": Family(
            title="samples whose k nearest others, by cosine distance, are mostly of their class; ties count against",
            higher_is_better=True,
            unit="%",
            options={"vectors": "pooled, mean, latent or fsq-input", "k": "a whole number"},
        ),
    }
)
"""What can be measured of labelled vectors that are compared with each other."""
