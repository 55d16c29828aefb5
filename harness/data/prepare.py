"""Pixel pipelines from one printable string, and the way from [-1, 1] back to 8 bits.

``rgb|resize_short(256,bicubic)|center_crop(256)`` says all that happens between a decoded image and the
tokenizer, so that the protocol's hash covers it. The steps:

``rgb``                              8-bit RGB, as every decoded image is; always first. Videos: exact chroma and
                                     rounding. ``rgb(ffmpeg)``: videos as ffmpeg converts them by default, and so
                                     the scripts that read through it; see `atoken.video.colour`.
``native``                           the image keeps its size.
``resize_short(N,FILTER)``           torchvision's ``Resize(N)`` of a PIL image, antialiased; FILTER is
                                     bicubic, bilinear, lanczos or box.
``resize_short_above(N,FILTER)``     only where the shorter side is above N: that side to N, the other rounded;
                                     TokenBench's preprocessing, with N 1080 and FILTER lanczos.
``resize(N,FILTER)``                 torchvision's ``Resize((N, N))`` of a PIL image, antialiased: whatever its aspect,
                                     the image becomes a square (SigLIP2's convention).
``resize_area(N,M,FILTER)``          the aspect stays, the area becomes about N x N, the sides are floored to multiples
                                     of M: NaFlex's sequence of (N / M)^2 patches, as AToken's release counts it.
``center_crop(N)``                   torchvision's ``CenterCrop(N)``; a side below N is padded with zeros.
``center_crop_multiple(N)``          the largest centre crop with sides that N divides: 1080 rows become 1072 with
                                     N 16, as in AToken's release.
``adm_center_crop(N)``               guided-diffusion's ``center_crop_arr``.
``to_tensor``                        torchvision's ``ToTensor``: leaves 8 bit, float32 in [0, 1].
``tensor_resize_short(N,bilinear,antialias)``  torchvision's ``Resize(N)`` of that tensor.
``release_area(N,M)``                the release's ``process_image(square_image_length=N)``: as resize_area, but
                                     bilinear WITHOUT antialiasing. It and the next leave 8 bit: float32, [-1, 1].
``release_crop(N,M)``                its ``min_resolution=max_resolution=N``: shorter side to N, centre crop to N x N;
                                     bilinear without antialiasing.
``normalize``                        torchvision's ``Normalize(0.5, 0.5)``: [0, 1] to [-1, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from harness.data import geometry
from harness.errors import BenchError
from harness.protocol import EightBitRule

if TYPE_CHECKING:
    from torch import Tensor

    from atoken.video import Colour

Step = Callable[[np.ndarray], np.ndarray]
Range = Literal["any", "8-bit", "[0, 1]", "[-1, 1]"]


def _resize_short(pixels: np.ndarray, size: int, kernel: geometry.Kernel) -> np.ndarray:
    return geometry.resize(pixels, geometry.short_side(pixels.shape, size), kernel)


def _resize_short_center_crop(pixels: np.ndarray, size: int, kernel: geometry.Kernel, crop: int) -> np.ndarray:
    """Both steps at once where no padding is needed: the same pixels, without the part that is cut off."""
    new = geometry.short_side(pixels.shape, size)
    if crop > size:
        return geometry.center_crop(geometry.resize(pixels, new, kernel), crop)
    place = geometry.center_crop_of(new, crop)
    return geometry.resize_window(pixels, new, kernel, top=place.top, left=place.left, window=crop)


def _resize_short_above(pixels: np.ndarray, size: int, kernel: geometry.Kernel) -> np.ndarray:
    if min(pixels.shape[:2]) <= size:
        return pixels
    return geometry.resize(pixels, geometry.short_side_rounded(pixels.shape, size), kernel)


def _resize_square(pixels: np.ndarray, size: int, kernel: geometry.Kernel) -> np.ndarray:
    return geometry.resize(pixels, (size, size), kernel)


def _resize_area(pixels: np.ndarray, size: int, multiple: int, kernel: geometry.Kernel) -> np.ndarray:
    return geometry.resize(pixels, geometry.same_area(pixels.shape, size, multiple), kernel)


def _release(pixels: np.ndarray, size: int, multiple: int, rule: Literal["area", "crop"]) -> np.ndarray:
    import torch

    from atoken.errors import InputError
    from atoken.preprocess import process_image

    image, bound = torch.from_numpy(np.ascontiguousarray(pixels)), (size, size)
    try:
        made = (
            process_image(image, square_image_length=size, size_factor=multiple)
            if rule == "area"
            else process_image(image, min_resolution=bound, max_resolution=bound, size_factor=multiple)
        )
    except InputError as error:
        raise geometry.ShapeError(str(error)) from None
    return made.numpy()


def _to_tensor(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(255)


def _normalize(pixels: np.ndarray) -> np.ndarray:
    return (pixels - np.float32(0.5)) / np.float32(0.5)


def _unchanged(pixels: np.ndarray) -> np.ndarray:
    return pixels


class _Known(NamedTuple):
    arguments: str  # a pattern
    usage: str
    takes: Range
    gives: Range
    bare: bool = False  # whether the arguments may be left out


_N = r"([1-9]\d{0,4})"
_FILTER = "|".join(geometry.FILTERS)
_KNOWN = {
    "rgb": _Known("(ffmpeg)", "rgb or rgb(ffmpeg)", "8-bit", "8-bit", bare=True),
    "native": _Known("", "native", "8-bit", "8-bit"),
    "resize_short": _Known(rf"{_N},({_FILTER})", "resize_short(N,FILTER)", "8-bit", "8-bit"),
    "resize_short_above": _Known(rf"{_N},({_FILTER})", "resize_short_above(N,FILTER)", "8-bit", "8-bit"),
    "resize": _Known(rf"{_N},({_FILTER})", "resize(N,FILTER)", "8-bit", "8-bit"),
    "resize_area": _Known(rf"{_N},{_N},({_FILTER})", "resize_area(N,M,FILTER)", "8-bit", "8-bit"),
    "release_area": _Known(rf"{_N},{_N}", "release_area(N,M)", "8-bit", "[-1, 1]"),
    "release_crop": _Known(rf"{_N},{_N}", "release_crop(N,M)", "8-bit", "[-1, 1]"),
    "center_crop": _Known(_N, "center_crop(N)", "any", "any"),
    "center_crop_multiple": _Known(_N, "center_crop_multiple(N)", "any", "any"),
    "adm_center_crop": _Known(_N, "adm_center_crop(N)", "8-bit", "8-bit"),
    "to_tensor": _Known("", "to_tensor", "8-bit", "[0, 1]"),
    "tensor_resize_short": _Known(
        rf"{_N},bilinear,antialias", "tensor_resize_short(N,bilinear,antialias)", "[0, 1]", "[0, 1]"
    ),
    "normalize": _Known("", "normalize", "[0, 1]", "[-1, 1]"),
}


def _kernel(arguments: tuple[str, ...]) -> geometry.Kernel:
    """Of the arguments of a resize step: a PIL filter's name after the size, or none for tensors."""
    return geometry.FILTERS[arguments[1]] if len(arguments) > 1 else geometry.tensor_bilinear


def _build(name: str, arguments: tuple[str, ...]) -> Step:
    step: Step = _unchanged  # rgb and native say what holds already
    if name in ("resize_short", "tensor_resize_short"):
        step = partial(_resize_short, size=int(arguments[0]), kernel=_kernel(arguments))
    elif name == "resize_short_above":
        step = partial(_resize_short_above, size=int(arguments[0]), kernel=_kernel(arguments))
    elif name == "resize":
        step = partial(_resize_square, size=int(arguments[0]), kernel=geometry.FILTERS[arguments[1]])
    elif name == "resize_area":
        step = partial(
            _resize_area, size=int(arguments[0]), multiple=int(arguments[1]), kernel=geometry.FILTERS[arguments[2]]
        )
    elif name in ("release_area", "release_crop"):
        rule: Literal["area", "crop"] = "area" if name == "release_area" else "crop"
        step = partial(_release, size=int(arguments[0]), multiple=int(arguments[1]), rule=rule)
    elif name == "center_crop_multiple":
        step = partial(geometry.center_crop_multiple, multiple=int(arguments[0]))
    elif name == "center_crop":
        step = partial(geometry.center_crop, size=int(arguments[0]))
    elif name == "adm_center_crop":
        step = partial(geometry.adm_center_crop, size=int(arguments[0]))
    elif name == "to_tensor":
        step = _to_tensor
    elif name == "normalize":
        step = _normalize
    return step


def _parse_step(word: str, text: str) -> tuple[str, tuple[str, ...], _Known]:
    name = word.partition("(")[0]
    known = _KNOWN.get(name)
    if known is None:
        usages = ", ".join(step.usage for step in _KNOWN.values())
        raise BenchError(f"prepare {text!r}: unknown step {word!r}; the steps are {usages}")
    pattern = rf"\({known.arguments}\)" if known.arguments else ""
    pattern = f"(?:{pattern})?" if known.bare else pattern
    match = re.fullmatch(pattern, word[len(name) :].replace(" ", ""))
    if match is None:
        filters = f", with FILTER one of {', '.join(geometry.FILTERS)}" if "FILTER" in known.usage else ""
        raise BenchError(f"prepare {text!r}: {word!r} is not of the form {known.usage}{filters}")
    return name, match.groups(), known


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A chain of pixel steps. Picklable.

    Attributes:
        text: the string that it was parsed from.
        steps: what runs, in order.
        colour: how a video's frames become RGB before the first step.
    """

    text: str
    steps: tuple[Step, ...]
    colour: Colour = "accurate"

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """Build from a string such as ``rgb|adm_center_crop(256)``.

        Raises:
            BenchError: an unknown step, a malformed argument, or steps that do not fit together.
        """
        parsed = [_parse_step(word.strip(), text) for word in text.split("|")]
        if parsed[0][0] != "rgb":
            raise BenchError(f"prepare {text!r}: the first step must be rgb")
        if any(name == "rgb" for name, _, _ in parsed[1:]):
            raise BenchError(f"prepare {text!r}: rgb can only be the first step")
        now: Range = "8-bit"
        for name, _, known in parsed:
            if known.takes not in ("any", now):
                raise BenchError(f"prepare {text!r}: {name} takes {known.takes} pixels, but gets {now}")
            now = now if known.gives == "any" else known.gives
        if now == "[0, 1]":
            raise BenchError(f"prepare {text!r}: ends with pixels in [0, 1]; add |normalize")
        steps: list[Step] = []
        for index, (name, arguments, _) in enumerate(parsed):
            before, sizes, _ = parsed[index - 1]
            if name == "center_crop" and before in ("resize_short", "tensor_resize_short"):
                steps[-1] = partial(
                    _resize_short_center_crop, size=int(sizes[0]), kernel=_kernel(sizes), crop=int(arguments[0])
                )
            else:
                steps.append(_build(name, arguments))
        return cls(text, tuple(steps), "ffmpeg" if parsed[0][1] == ("ffmpeg",) else "accurate")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Prepare one image.

        Args:
            pixels: uint8 ``[H, W, 3]``.

        Returns:
            uint8 ``[H', W', 3]``, or float32 ``[H', W', 3]`` in [-1, 1] where the pipeline leaves 8 bit.

        Raises:
            harness.data.geometry.ShapeError: an extreme shape that would fill the memory, or one too small to crop.
        """
        for step in self.steps:
            pixels = step(pixels)
        return np.ascontiguousarray(pixels)


# In grey levels. float32 noise of x/127.5 - 1 and of the way back is below 1e-4, so that an exact grey level
# never falls to the one below; a value that was not within 1/1024 of the next level is not touched by it.
_FLOOR_SLACK = 2.0**-10


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 [-1, 1], as ``u / 127.5 - 1``; every rule of `eight_bit` undoes it exactly."""
    return (pixels / 127.5).sub_(1.0)


def eight_bit(images: Tensor, rule: EightBitRule) -> Tensor:
    """[-1, 1] to uint8 by the protocol's rule, clamped.

    Args:
        images: float tensor of any shape; finite (NaN has no grey level: the caller refuses it).
        rule: ``half-up`` = floor(127.5 x + 128), ``half-even`` = round(127.5 (x + 1)), ties to even,
            ``floor`` = trunc(127.5 (x + 1)), with a slack of 1/1024 grey level so that an exact level stays.

    Returns:
        uint8 tensor of that shape.
    """
    import torch

    images = images.float()
    if rule == "half-up":
        levels = (images * 127.5).add_(128.0).floor_()
    elif rule == "half-even":
        levels = (images + 1.0).mul_(127.5).round_()
    elif rule == "floor":
        levels = (images + 1.0).mul_(127.5).add_(_FLOOR_SLACK).floor_()
    else:
        raise ValueError(f"8-bit rule {rule!r} is none of {get_args(EightBitRule)}")
    return levels.clamp_(0, 255).to(torch.uint8)
