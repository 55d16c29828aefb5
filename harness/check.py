"""`atoken-bench check`: the adapter contract of one tokenizer, written down, so that a table of capabilities can be
made of what was seen and not of what a card claims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from harness import provenance, registry
from harness.data.base import ClipShape
from harness.devices import resolve
from harness.errors import BenchError
from harness.storage import make_folder, write_atomically
from harness.tokenizers.asset import AssetTokenizer
from harness.tokenizers.base import Adapter
from harness.tokenizers.card_contract import CONTINUOUS, DISCRETE
from harness.tokenizers.contract import faults_by_part
from harness.tokenizers.specimens import clip, fit
from harness.tokenizers.video import VideoTokenizer

SCHEMA = 1
NAME = "check.json"
FOLDER = "checks"

LONG = 17
"""Frames of the clip whose tokens are counted beside those of a single frame."""


def check(
    spec: str,
    *,
    ckpt: str | None,
    preset: str | None,
    options: Sequence[str],
    device: str,
    dtype: str,
    trained: bool,
    tolerance: float,
    runs: Path,
    echo: Callable[[str], None],
) -> int:
    """Check a tokenizer's adapter, write ``checks/NAME--HASH/check.json`` below ``runs`` and print the outcome.

    Args:
        spec, ckpt, preset: see `harness.registry.create_tokenizer`.
        options: ``KEY=VALUE`` for its factory.
        trained, tolerance: see `harness.tokenizers.contract.check_adapter`.

    Returns:
        Exit code: 1 if the contract is broken.

    Raises:
        BenchError: no such tokenizer, a bad option, or a folder that cannot be written.
    """
    keywords = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BenchError(f"--option {text}: not KEY=VALUE")
        keywords[key] = value
    device = resolve(device)
    tokenizer = registry.create_tokenizer(spec, ckpt=ckpt, preset=preset, device=device, dtype=dtype, options=keywords)
    parts = faults_by_part(tokenizer, trained=trained, tolerance=tolerance)
    if parts["card"]:
        # Without a right card there is nothing to file the outcome under.
        raise BenchError(f"{spec}: " + "; ".join(parts["card"]))
    capabilities = capabilities_of(tokenizer, parts)
    full = spec if ckpt is None else f"{spec}:{ckpt}"
    made: dict[str, Any] = {
        "schema": SCHEMA,
        "tokenizer": {"spec": full, "card": json.loads(json.dumps(asdict(tokenizer.card)))},
        "contract": {"trained": trained, "tolerance": tolerance, "faults": parts},
        "capabilities": capabilities,
        "settings": {"device": device, "dtype": dtype, "preset": preset, "options": keywords},
        "environment": provenance.environment([provenance.device_name(device)]),
        "code": provenance.code(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder = runs / FOLDER / f"{tokenizer.card.name}--{_key(made)}"
    make_folder(folder)
    write_atomically(folder / NAME, json.dumps(made, indent=1, ensure_ascii=False).encode())
    faults = [f"{part}: {fault}" for part, found in parts.items() for fault in found]
    count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    echo(f"{tokenizer.card.title}: {count if faults else 'the contract holds'}")
    for fault in faults:
        echo(f"  {fault}")
    for name, entry in capabilities.items():
        echo(f"  {'yes' if entry['holds'] else 'no ':3} {name}: {entry['seen']}")
    echo(f"Written: {folder / NAME}")
    return int(bool(faults))


def _key(made: Mapping[str, Any]) -> str:
    """What a second check of the same thing replaces."""
    card = made["tokenizer"]["card"]
    same = [made["tokenizer"]["spec"], card["weights_sha256"], made["settings"]]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:8]


def capabilities_of(tokenizer: Adapter, parts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """What the contract's outcome shows the tokenizer to do, by capability: whether it ``holds`` and what was ``seen``.

    Args:
        parts: of `faults_by_part`, without a fault of the card.
    """
    said: dict[str, tuple[bool, str]] = {}
    for part, what in (("image", "images"), ("video", "clips"), ("asset", "3D assets")):
        if part not in parts:
            said[f"{part} reconstruction"] = (False, f"its adapter takes no {what}")
        elif parts[part]:
            said[f"{part} reconstruction"] = (False, parts[part][0])
        elif isinstance(tokenizer, AssetTokenizer) and part == "asset" and tokenizer.unrendered is not None:
            said[f"{part} reconstruction"] = (False, tokenizer.unrendered)
        else:
            said[f"{part} reconstruction"] = (True, f"the contract's {what} came back as it demands")
    held = [part for part in ("image", "video") if part in parts and not parts[part]]
    kind = tokenizer.card.token_type
    several = any(not parts[part] for part in parts if part != "card")
    for name, kinds, seen in (
        ("discrete tokens", DISCRETE, "codes came, integers below the codebook's size"),
        ("continuous tokens", CONTINUOUS, "numbers came, and no codes"),
    ):
        holds = kind in kinds and several
        said[name] = (holds, seen if holds else f"its tokens are of type {kind}" if several else "nothing came back")
    said["temporal compression"] = _temporal(tokenizer, held)
    said["native resolution"] = (
        bool(held),
        f"{' and '.join('images' if part == 'image' else 'clips' for part in held)} of unlike sizes came back at theirs"
        if held
        else "nothing came back at several sizes",
    )
    return {name: {"holds": holds, "seen": seen} for name, (holds, seen) in said.items()}


@torch.inference_mode()
def _temporal(tokenizer: Adapter, held: Sequence[str]) -> tuple[bool, str]:
    """Whether a clip takes fewer tokens than its frames one by one."""
    if not isinstance(tokenizer, VideoTokenizer):
        return False, "its adapter takes no clips"
    if "video" not in held:
        return False, "not counted: clips do not come back as the contract demands"
    h, w = (fit(64, multiple) for multiple in tokenizer.card.multiple)
    one, many = (_tokens(tokenizer, clip(5, frames, h, w).to(tokenizer.device)) for frames in (1, LONG))
    return many < LONG * one, f"{LONG} frames of {h} x {w} take {many} tokens, one takes {one}"


def _tokens(tokenizer: VideoTokenizer, frames: torch.Tensor) -> int:
    shape = ClipShape(height=frames.shape[1], width=frames.shape[2], rate=Fraction(25))
    parts = tokenizer.encode_clip(iter([frames]), shape, latent=tokenizer.card.latent_modes[0], seed=0)
    return sum(part.tokens for part in parts)
