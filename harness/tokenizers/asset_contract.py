"""The part of the adapter contract that concerns 3D assets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from atoken.assets.cameras import orbit
from atoken.assets.mesh import Material, Mesh
from harness.tokenizers.asset import AssetTokenizer, InputViews
from harness.tokenizers.base import LatentMode
from harness.tokenizers.specimens import FLAT_TOLERANCE, gap, with_random_state

INPUTS = InputViews(12, 64)
SIDE = 48
CAMERAS = (orbit(0.4, 0.3), orbit(3.0, -0.5))
# Small in the cube: a learned decoder makes 32 Gaussians of each of its some 2,000 voxels.
SMALL = (0.4, 0.32, 0.24)
# Linear colours of the flat models; 0 and 1 are the same in sRGB.
FLAT = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0), "white": (1.0, 1.0, 1.0)}


def asset_faults(tokenizer: AssetTokenizer, *, trained: bool) -> list[str]:
    """What an adapter does wrong with assets; see `harness.tokenizers.contract.check_adapter`.

    Of one whose decoder is missing (`unrendered`) the counts alone are looked at.
    """
    faults = []
    for mode in tokenizer.card.latent_modes:
        faults += [f"{mode}: {fault}" for fault in _mode_faults(tokenizer, mode)]
    if "sample" in tokenizer.card.latent_modes and tokenizer.unrendered is None:
        one, two = (_run(tokenizer, box(sides=SMALL), "sample", seed)[1] for seed in (1, 2))
        faults += ["sample: the seed changes nothing"] if gap(one, two) == 0 else []
    if trained and tokenizer.unrendered is None and not faults:
        faults += _flat_faults(tokenizer)
    return faults


def box(colour: tuple[float, float, float] | None = None, *, sides: tuple[float, float, float] = (1, 0.8, 0.6)) -> Mesh:
    """A box in the middle of the unit cube with a colour for each face, or one for all."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * sides
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))], np.int32)
    shades = [(0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.1, 0.2, 0.9), (0.9, 0.8, 0.1), (0.6, 0.6, 0.6), (0.2, 0.1, 0.1)]
    materials = tuple(Material(colour=(*(colour or shade), 1.0)) for shade in shades)
    return Mesh("box", corners, faces, np.repeat(np.arange(6), 2).astype(np.int32), materials)


def _run(tokenizer: AssetTokenizer, mesh: Mesh, mode: LatentMode, seed: int) -> tuple[tuple[int, int | None], Tensor]:
    """Counts, and the views of `CAMERAS` ``[2, SIDE, SIDE, 4]`` (none where nothing can be looked at)."""
    encoded = tokenizer.encode_asset(mesh, INPUTS, latent=mode, seed=seed)
    counts = (encoded.tokens, encoded.voxels)
    if tokenizer.unrendered is not None:
        return counts, torch.zeros(0, SIDE, SIDE, 4)
    rendered = tokenizer.decode_asset(encoded)
    return counts, torch.stack([rendered.render(camera, SIDE).cpu() for camera in CAMERAS])


def _mode_faults(tokenizer: AssetTokenizer, mode: LatentMode) -> Iterator[str]:
    mesh, other = box(sides=SMALL), box(sides=(0.2, 0.4, 0.1))
    before = mesh.vertices.copy()

    def again() -> tuple[tuple[int, int | None], Tensor]:
        return _run(tokenizer, mesh, mode, 3)

    counts, views = with_random_state(1, again)
    if counts[0] < 1 or (counts[1] is not None and counts[1] < 1):
        yield f"a box takes {counts[0]} tokens and {counts[1]} voxels"
    if len(views):
        if views.shape[1:] != (SIDE, SIDE, 4) or views.dtype != torch.float32:
            yield f"views come as {views.dtype} {tuple(views.shape[1:])}; float32 ({SIDE}, {SIDE}, 4) is wanted"
            return
        if not torch.isfinite(views).all():
            yield "views hold NaN or infinite values"
            return
        if views[..., 3].min() < -1e-4 or views[..., 3].max() > 1 + 1e-4:
            yield f"alpha reaches from {float(views[..., 3].min()):.3g} to {float(views[..., 3].max()):.3g}; 0 to 1"
    if not np.array_equal(mesh.vertices, before):
        yield "writes into the mesh that it is given"
    second = with_random_state(2, again)
    if second[0] != counts or not torch.equal(second[1], views):
        yield "a second call, under another global random state, gives another result"
        return
    _run(tokenizer, other, mode, 4)
    third = again()
    if third[0] != counts or not torch.equal(third[1], views):
        yield "an asset changes with the asset before it"


def _flat_faults(tokenizer: AssetTokenizer) -> Iterator[str]:
    mode = tokenizer.card.latent_modes[0]
    for name, colour in FLAT.items():
        _, views = _run(tokenizer, box(colour, sides=SMALL), mode, 0)
        # The middle of the picture, where a box is whichever way it is turned.
        middle = views[:, SIDE // 2 - 2 : SIDE // 2 + 2, SIDE // 2 - 2 : SIDE // 2 + 2].mean((0, 1, 2))
        if float((middle - torch.tensor((*colour, 1.0))).abs().max()) > FLAT_TOLERANCE / 2:
            seen = ", ".join(f"{value:.2f}" for value in middle.tolist())
            yield f"a {name} box comes back as ({seen}) in RGBA; sRGB times alpha in 0..1 is wanted"
