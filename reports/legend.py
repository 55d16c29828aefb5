"""What the metrics mean, in a line each, for a reader who meets them for the first time."""

from __future__ import annotations

from collections.abc import Iterable

from reports.model import Comparison

_MEANINGS = {
    "PSNR": ("PSNR ↑", "How small the error of the pixels is, in decibel. 3 dB more is half the squared error."),
    "SSIM": ("SSIM ↑", "Whether local structure is kept: 1 is equal, 0 unrelated."),
    "LPIPS": ("LPIPS ↓", "How different the pictures look to a trained network: 0 is equal."),
    "rFID": (
        "rFID ↓",
        "How far the set of reconstructions as a whole strays from the set of originals. It grows when n is small, so "
        "only figures of equal n compare.",
    ),
    "rFVD": (
        "rFVD ↓",
        "How far the set of reconstructed clips as a whole strays from the originals, to a network trained on motion. "
        "A few dozen clips say little: read the interval.",
    ),
    "PSNR (foreground)": (
        "PSNR (foreground) ↑",
        "Of the pixels alone that an asset covers: those that it leaves free are right in any reconstruction.",
    ),
    "top-1": (
        "top-1 ↑",
        "How often the class whose sentences are nearest to the sample is its own. It hangs on how many there are.",
    ),
    "top-5": ("top-5 ↑", "How often the own class is among the five nearest."),
    "mean per-class accuracy": ("mean per-class accuracy ↑", "Top-1 of each class alone, averaged over classes."),
    "text-to-image R@1": (
        "text-to-image R@1 ↑",
        "How often the image nearest to a caption is the one that it describes.",
    ),
    "image-to-text R@1": ("image-to-text R@1 ↑", "How often a caption nearest to an image is one of its own."),
    "text-to-video R@1": (
        "text-to-video R@1 ↑",
        "How often the clip nearest to a caption is the one that it describes.",
    ),
    "video-to-text R@1": ("video-to-text R@1 ↑", "How often a caption nearest to a clip is one of its own."),
    "MS-SSIM": ("MS-SSIM ↑", "SSIM over five sizes of each picture, so that coarse structure counts too."),
    "foreground": ("foreground", "Share of a view that the asset covers: how much there is to get wrong."),
    "seam": (
        "seam ↓",
        "Whether the error jumps where one of a tokenizer's tiles ends and the next begins: 0 dB is no more than "
        "around it, 3 dB twice as much.",
    ),
}


def legend(comparisons: Iterable[Comparison]) -> list[tuple[str, str]]:
    """The metrics that the panels show, as (name with its direction, meaning)."""
    panels = [panel for comparison in comparisons for panel in comparison.panels if panel.measured]
    shown = {metric.name for panel in panels for metric in (*panel.metrics, *panel.further)}
    return [meaning for name, meaning in _MEANINGS.items() if name in shown]
