"""Configs: presets, strict round trip, values that cannot work."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from atoken.config import PRESETS, ATokenConfig, FSQConfig, TransformerConfig, preset
from atoken.errors import CheckpointError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_through_json(name):
    config = preset(name)
    assert config.name == name
    assert ATokenConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_released_models():
    assert preset("so-c").latent_channels == preset("so-d").latent_channels == 48
    assert preset("so-c-s1").latent_channels == 32
    assert preset("so-c").quantizer is None
    assert preset("so-d").quantizer == FSQConfig(levels=(4,) * 6, codebooks=8)
    assert preset("so-d").quantizer.codebook_size == 4096
    assert preset("so-c").token_channels == 3072
    assert preset("so-c").tile_steps == 4


def test_unknown_names_are_named():
    with pytest.raises(CheckpointError, match=r"'so-x'.*so-c, so-c-s1, so-d, base, nano"):
        preset("so-x")
    data = preset("nano").to_dict()
    with pytest.raises(CheckpointError, match="unknown key 'colour'"):
        ATokenConfig.from_dict(data | {"colour": 1})
    with pytest.raises(CheckpointError, match="unknown key 'depth'"):
        ATokenConfig.from_dict(data | {"encoder": data["encoder"] | {"depth": 3}})
    with pytest.raises(CheckpointError, match="missing key 'decoder'"):
        ATokenConfig.from_dict({k: v for k, v in data.items() if k != "decoder"})
    with pytest.raises(CheckpointError, match="must be an object with keys, got 3"):
        ATokenConfig.from_dict(data | {"encoder": 3})
    with pytest.raises(CheckpointError, match="gathering must be nearest or average or visible, got 'mean'"):
        ATokenConfig.from_dict(data | {"gathering": "mean"})
    with pytest.raises(CheckpointError, match="name"):
        ATokenConfig.from_dict({k: v for k, v in data.items() if k != "name"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 20}, "10 channels a head"),
        ({"width": 33}, "16.5 channels a head"),
        ({"blocks": 0}, "blocks must be a positive whole number, got 0"),
        ({"mlp": 1.5}, "mlp must be a positive whole number, got 1.5"),
        ({"heads": True}, "heads"),
    ],
)
def test_impossible_halves(change, message):
    with pytest.raises(CheckpointError, match=message):
        TransformerConfig(**({"width": 32, "blocks": 1, "heads": 2, "mlp": 8} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile_frames": 6}, "multiple of 4"),
        ({"quantizer": FSQConfig(codebooks=4)}, "24 channels.*48"),
        ({"patch": (4, 16)}, "patch"),
        ({"latent_channels": -1}, "latent_channels"),
    ],
)
def test_impossible_models(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(preset("nano"), **change)


def test_impossible_levels():
    with pytest.raises(CheckpointError, match="level"):
        FSQConfig(levels=(4, 1))


def test_importing_the_package_leaves_torch_alone():
    program = "import sys, atoken; assert 'torch' not in sys.modules; atoken.preset('so-c')"
    subprocess.run([sys.executable, "-c", program], check=True)
