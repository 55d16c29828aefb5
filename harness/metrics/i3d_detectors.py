"""The two published I3D files as detectors: how each is read, and how it is asked for a clip's feature.

Both hold the weights of TensorFlow Hub's network. They are two detectors, and never stand in for one another:

- ``state-dict``: ``i3d_pretrained_400.pt``, tensors only, run by `harness.metrics.i3d.I3d`. The file's first users
  (VideoGPT, TATS) ran it with a batch-norm epsilon of 1e-5; the graph that the weights belong to has 1e-3, and so has
  `I3d`. A file of the same layout with other weights (``rgb_imagenet.pt`` of pytorch-i3d, DeepMind's first release)
  loads under that name too where the user vouches for it, and its cells are called unofficial.
- ``styleganv``: ``i3d_torchscript.pt`` of StyleGAN-V, the network as a program, as TokenBench runs it. Its options
  are all off but the last: ``rescale`` and ``resize`` would scale and stretch the frames, which `crop` has done
  in another way (and which would make another number), ``return_features`` asks for logits, not probabilities.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.errors import BenchError
from harness.metrics.i3d import FEATURES, I3d
from harness.metrics.loading import load_state
from harness.metrics.precision import exact_float32
from harness.weights import Found

Detector = Callable[[Tensor], np.ndarray]
"""From what `crop` gives of a clip, `MIN_FRAMES` or more, to its feature, float32 ``[400]``."""


def load_network(file: Found) -> I3d:
    """`I3d` with the weights of a state dict; batches counted in training, which some files hold, are left out.

    Raises:
        BenchError: the file is not to be read without running code in it, or has other keys or shapes.
    """
    with torch.device("meta"):
        network = I3d()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    counters = {f"{name.removesuffix('running_mean')}num_batches_tracked" for name in shapes if "running_mean" in name}
    state = load_state(file.path, shapes, optional=dict.fromkeys(counters, ()))
    network.load_state_dict({name: state[name] for name in shapes}, strict=True, assign=True)
    return network.to(torch.float32).eval().requires_grad_(False)


def load_script(file: Found) -> torch.jit.ScriptModule:
    """StyleGAN-V's program. It can do whatever it likes once it runs: what is loaded are the very bytes that have
    the published SHA-256, or the one that the user vouches for.

    Raises:
        BenchError: the bytes are others by now, are no TorchScript, or take other arguments.
    """
    content = file.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise BenchError(f"{file.path}: has changed since it was checked; start again")
    try:
        with warnings.catch_warnings():
            # Torch means to drop TorchScript; whoever has this file can do nothing about it.
            warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=FutureWarning)
            program: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BenchError(f"{file.path}: no TorchScript program: {first}") from None
    # A program without a method of that name has torch's own, which has no schema.
    schema = getattr(program.forward, "schema", None)
    names = [argument.name for argument in schema.arguments[1:]] if schema else []
    if names[:1] != ["x"] or not {"rescale", "resize", "return_features"} <= set(names):
        raise BenchError(
            f"{file.path}: not StyleGAN-V's I3D: it takes ({', '.join(names)}), "
            "not (x, rescale, resize, return_features)"
        )
    return program.eval()


def load_detector(flavour: str, file: Found, device: torch.device) -> Detector:
    """A detector by its name, one of `harness.weights.I3D_FILES`.

    Raises:
        BenchError: as `load_network` and `load_script`; when it is called, if the program gives no 400 numbers.
    """
    return {"styleganv": _program_detector, "state-dict": _network_detector}[flavour](file, device)


def _network_detector(file: Found, device: torch.device) -> Detector:
    network = load_network(file).to(device)

    def detect(clip: Tensor) -> np.ndarray:
        with exact_float32():
            return _feature(network(_clips(clip, device)), file)

    return detect


def _program_detector(file: Found, device: torch.device) -> Detector:
    program = load_script(file).to(device)

    def detect(clip: Tensor) -> np.ndarray:
        # Without the profiling executor, whose third call runs another program than its first.
        with exact_float32(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            found = program(_clips(clip, device), rescale=False, resize=False, return_features=True)
            return _feature(found, file)

    return detect


def _clips(frames: Tensor, device: torch.device) -> Tensor:
    """``[T, 3, H, W]`` -> ``[1, 3, T, H, W]``."""
    return frames.to(device).transpose(0, 1).contiguous()[None]


def _feature(found: object, file: Found) -> np.ndarray:
    if not isinstance(found, Tensor) or found.numel() != FEATURES:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BenchError(f"{file.path}: gave {shape} for a clip, not {FEATURES} features")
    return found.float().reshape(FEATURES).cpu().numpy()
