"""A plan's figures against the modules themselves, torch's own counters, and the paper."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig
from atoken.config import PRESETS, ATokenConfig, TransformerConfig
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.tokens import SparseTokens
from atoken.training.data.frames import draw_count, draw_frames
from atoken.training.data.pack import asset_sample, pack_samples, pixel_sample
from atoken.training.data.views import draw_cut, draw_side
from atoken.training.errors import TrainingError
from atoken.training.flops import (
    Load,
    VoxelLoad,
    align_flops,
    gaussian_flops,
    reconstruct_flops,
    segments_of,
    step_flops,
)
from atoken.training.loads import ASSUMED, Assumptions, expected
from atoken.training.memory import activations, gaussian_activations, parameters, states
from atoken.training.plan import PAPER_GPU_HOURS, VGG16, plan, show_plan
from atoken.training.plan_tables import render
from atoken.training.recipe import GaussianShape
from atoken.training.recipe_files import load_recipe
from atoken.training.tasks import AssetTask, ImageTask, VideoTask

MIXED = ATokenConfig(
    name="mixed",
    encoder=TransformerConfig(width=96, blocks=3, heads=2, mlp=256),
    decoder=TransformerConfig(width=64, blocks=5, heads=2, mlp=192),
    latent_channels=24,
)
GAUSSIAN = GaussianDecoderConfig(width=96, blocks=3, heads=4, mlp=384, gaussians=8)


@pytest.fixture(scope="module")
def model() -> AToken:
    torch.manual_seed(0)
    return AToken(MIXED)


@pytest.fixture(scope="module")
def pack() -> SparseTokens:
    """Images of two sizes and a clip of three temporal tiles, the last one short."""
    shapes = [(128, 128, 3), (128, 128, 3), (48, 64, 3), (40, 64, 48, 3)]
    return pack_pixels([torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes])


@pytest.fixture(scope="module")
def voxels() -> tuple[Tensor, tuple[int, ...]]:
    """Two assets, voxels crowded enough for windows of many sizes."""
    torch.manual_seed(0)
    return torch.randint(0, 20, (600, 3)), (200, 400)


def reconstructed(model: AToken, pack: SparseTokens) -> Tensor:
    _, moments = model.forward_encoder(pack)
    mean, logvar = moments.float().chunk(2, dim=-1)
    latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    rebuilt = model.forward_decoder(pack.with_features(latents)).float()
    return (rebuilt - pack.features).abs().mean()


def pooled(model: AToken, pack: SparseTokens) -> Tensor:
    features, _ = model.forward_encoder(pack)
    return model.pool(features, pack.lengths).float().square().sum()


def drawn(decoder: GaussianDecoder, voxels: tuple[Tensor, tuple[int, ...]]) -> Tensor:
    features = torch.randn(len(voxels[0]), decoder.config.channels, requires_grad=True)
    return decoder(features, *voxels).float().square().sum()


def voxel_load(voxels: tuple[Tensor, tuple[int, ...]]) -> VoxelLoad:
    coords, lengths = voxels
    items = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return VoxelLoad.of(coords, items, GAUSSIAN.window)


# -- FLOPs -----------------------------------------------------------------------------------------------------------


def counted(run: Callable[[], object]) -> int:
    """By torch; its CPU kernel of attention is unknown to the counter, the plain products are not."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("decoded", [True, False])
def test_flops_are_torchs_own_to_the_digit(model: AToken, pack: SparseTokens, decoded: bool) -> None:
    load = Load.of(segments_of(pack.items, MIXED), len(pack))
    run, flops = (reconstructed, reconstruct_flops) if decoded else (pooled, align_flops)
    found = flops(MIXED, load, recompute=False)
    with torch.no_grad():
        assert counted(lambda: run(model, pack)) == found.forward
    assert counted(lambda: run(model, pack).backward()) == found.model == found.total


def test_flops_of_the_gaussian_decoder_are_torchs_own(voxels) -> None:
    decoder = GaussianDecoder(GAUSSIAN)
    found = gaussian_flops(GAUSSIAN, GAUSSIAN.channels, voxel_load(voxels), recompute=False)
    with torch.no_grad():
        assert counted(lambda: drawn(decoder, voxels)) == found.forward
    assert counted(lambda: drawn(decoder, voxels).backward()) == found.model


def test_recomputed_blocks_are_counted_once_more(pack: SparseTokens) -> None:
    model = AToken(MIXED)
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        block.forward = _recomputed(block.forward)
    found = reconstruct_flops(MIXED, Load.of(segments_of(pack.items, MIXED), len(pack)), recompute=True)
    assert counted(lambda: reconstructed(model, pack).backward()) == found.total > found.model


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # Else the first part of a block whose gradient is known is not computed again.
    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False, early_stop=False)


def test_vgg16_is_torchvisions() -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        network, image = vgg16(weights=None).features[:30], torch.zeros(1, 3, 224, 224)
    assert counted(lambda: network(image)) == sum(2 * side**2 * 9 * a * b for side, a, b in VGG16)


def test_flops_of_a_pack_are_those_of_its_task(model: AToken, voxels) -> None:
    frames = np.zeros((20, 48, 32, 3), np.uint8)
    (clips,) = pack_samples([pixel_sample(frames, "clip", None, is_image=False)] * 2, 10_000)
    assert clips.lengths == (30, 30)
    load = Load.of([24, 6, 24, 6], 2)
    assert step_flops(model, clips, recompute=True) == reconstruct_flops(MIXED, load, recompute=True).total
    (told,) = pack_samples([pixel_sample(frames[:1], "image", "a word", is_image=True)], 10_000)
    assert step_flops(model, told, recompute=False) == align_flops(MIXED, Load.of([6], 1), recompute=False).total
    coords, lengths = voxels
    model = AToken(MIXED)
    model.attach_gaussians(GaussianDecoder(GAUSSIAN))
    pictures = np.zeros((1, 16, 16, 4), np.uint8)
    parts = coords.split(list(lengths))
    assets = [
        asset_sample(
            np.zeros((len(part), 768), np.uint8), part.numpy().astype(np.uint8), "asset", None, pictures=pictures
        )
        for part in parts
    ]
    (seen,) = pack_samples(assets, 10_000)
    plain = reconstruct_flops(MIXED, Load.of(lengths, 2), recompute=False)
    gaussians = gaussian_flops(GAUSSIAN, 768, voxel_load(voxels), recompute=False)
    assert step_flops(model, seen, recompute=False) == plain.total + gaussians.total
    for part in (model.encoder, model.decoder, model.proj):
        part.requires_grad_(False)
    assert step_flops(model, seen, recompute=False) == plain.forward + gaussians.total


def test_a_tokenizer_that_is_not_trained_is_planned_forwards_alone() -> None:
    recipe = load_recipe("nano-gaussians")
    everything = replace(recipe, stages=(replace(recipe.stages[0], trained="all"),))
    (alone,), (whole,) = (plan(which, gpus=1, mfu=0.4).stages for which in (recipe, everything))
    assert alone.tasks[0].flops.forward == whole.tasks[0].flops.forward
    assert 0 < alone.tasks[0].flops.backward < whole.tasks[0].flops.backward / 10
    assert 0 < alone.tasks[0].activations < whole.tasks[0].activations / 2


# -- Memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_modules(name: str) -> None:
    with torch.device("meta"):
        model = AToken(PRESETS[name])
        decoder = GaussianDecoder()
    counts = parameters(PRESETS[name], GaussianShape())
    assert counts.total == sum(p.numel() for module in (model, decoder) for p in module.parameters())
    assert counts.encoder == sum(p.numel() for p in model.encoder.blocks.parameters())
    assert counts.largest_block == max(
        sum(p.numel() for p in block.parameters())
        for block in (model.encoder.blocks[0], model.decoder.blocks[0], decoder.blocks[0])
    )


def test_a_stage_with_more_blocks_is_planned_with_them() -> None:
    nano = load_recipe("nano")
    before, after = (plan(nano, stages=[index]).stages[0] for index in (2, 3))
    with torch.device("meta"):
        block = AToken(PRESETS["nano"]).encoder.blocks[0], AToken(PRESETS["nano"]).decoder.blocks[0]
    more = [sum(p.numel() for p in part.parameters()) for part in block]
    assert after.parameters - before.parameters == 4 * more[0] + more[1]


def test_parameters_are_those_of_the_release() -> None:
    # FACTS section 1.
    released = {"so-c": 845_738_048, "so-d": 845_738_048, "so-c-s1": 845_682_752}
    assert {name: parameters(PRESETS[name]).total for name in released} == released
    assert parameters(PRESETS["so-c"], GaussianShape()).total - released["so-c"] == 85_887_424


def kept(run: Callable[[], Tensor], weights: Iterable[Tensor], inputs: Tensor, *, half: bool) -> int:
    """Bytes of the storages that autograd saves, and of the inputs; not of weights, nor of their bfloat16 copies."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    shapes = {shape for weight in weights if weight.ndim == 2 for shape in (weight.shape, weight.T.shape)}
    held = {inputs.untyped_storage().data_ptr(): inputs}

    def save(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        copied = half and tensor.dtype == torch.bfloat16 and tensor.shape in shapes
        if place not in own and not copied:
            held[place] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("decoded", [True, False])
def test_activations_are_what_autograd_keeps(model: AToken, pack: SparseTokens, decoded: bool, half: bool) -> None:
    load = Load.of(segments_of(pack.items, MIXED), len(pack))
    run = reconstructed if decoded else pooled
    measured = kept(lambda: run(model, pack), list(model.parameters()), pack.features, half=half)
    if decoded:
        # On a CPU an RMSNorm also keeps its normalised rows; CUDA's kernel does not.
        measured -= 4 * load.tokens * MIXED.decoder.width * (2 * MIXED.decoder.blocks + 1)
    planned = activations(MIXED, load, decoded=decoded, half=half, recompute=False)
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("half", [False, True])
def test_activations_of_the_gaussian_decoder(voxels, half: bool) -> None:
    decoder, load = GaussianDecoder(GAUSSIAN), voxel_load(voxels)
    features = torch.zeros(0)
    measured = kept(lambda: drawn(decoder, voxels), list(decoder.parameters()), features, half=half)
    measured -= 4 * load.voxels * GAUSSIAN.width * 2 * GAUSSIAN.blocks
    planned = gaussian_activations(GAUSSIAN, GAUSSIAN.heads, GAUSSIAN.channels, load, half=half, recompute=False)
    assert planned == pytest.approx(measured, rel=0.1)


def test_recomputing_keeps_the_inputs_of_blocks(pack: SparseTokens) -> None:
    model = AToken(MIXED)
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        block.forward = _recomputed(block.forward)
    load = Load.of(segments_of(pack.items, MIXED), len(pack))
    measured = kept(lambda: reconstructed(model, pack), list(model.parameters()), pack.features, half=False)
    one = [
        activations(replace(MIXED, encoder=half, decoder=half), load, decoded=True, half=False, recompute=False)
        for half in (replace(MIXED.encoder, blocks=1), replace(MIXED.encoder, blocks=2))
    ]
    assert measured < activations(MIXED, load, decoded=True, half=False, recompute=False) / 2
    # Beside the inputs, the plan has one block of each half at work.
    planned = activations(MIXED, load, decoded=True, half=False, recompute=True)
    assert measured < planned < measured + (one[1] - one[0])


def test_states_are_cut_over_gpus() -> None:
    counts = parameters(PRESETS["so-c"])
    alone, many = (states(counts, gpus, half=True, activations=7.0) for gpus in (1, 256))
    assert alone.weights == 4 * counts.total
    assert alone.moments == 2 * alone.weights
    assert alone.working == 2 * counts.total
    assert many.gradients == alone.gradients / 256
    assert alone.total == (4 + 4 + 8 + 4 + 2) * counts.total + 7.0
    assert many.total < alone.total / 20


# -- Tokens ----------------------------------------------------------------------------------------------------------

DRAWS = 4000


def sampled(task: ImageTask | VideoTask) -> tuple[float, float, int]:
    """Mean tokens, mean pairs and most tokens of samples cut as the data cuts them, from a large long clip."""
    rng = np.random.default_rng(0)
    aspect = ASSUMED.video_aspect if isinstance(task, VideoTask) else ASSUMED.image_aspect
    height, width = 4000, round(4000 * aspect)
    tokens, pairs = [], []
    for _ in range(DRAWS):
        cut = draw_cut(height, width, task, draw_side(task, rng), rng)
        grid, steps = cut.height // 16 * (cut.width // 16), 1
        if isinstance(task, VideoTask):
            clip = round(30 * ASSUMED.clip_seconds)
            steps = len(draw_frames(clip, Fraction(30), task, draw_count(task, rng), rng)) // 4
        segments = [4] * (steps // 4) + ([steps % 4] if steps % 4 else [])
        tokens.append(grid * steps)
        pairs.append(sum((grid * length) ** 2 for length in segments))
    return float(np.mean(tokens)), float(np.mean(pairs)), max(tokens)


@pytest.mark.parametrize(
    "task",
    [
        ImageTask(samples=1, resolution=(64, 512)),
        ImageTask(samples=1, resolution=(64, 256), view="crop"),
        ImageTask(samples=1, resolution=(96, 160), view="resized-crop"),
        VideoTask(samples=1, resolution=(64, 512), frames=(16, 32), strides=((1, 3), (4, 12))),
        VideoTask(samples=1, resolution=(64, 512), frames=(4, 64), fps=1),
        VideoTask(samples=1, resolution=(64, 128), frames=(4, 16), view="crop", fps=8),
    ],
    ids=["whole", "crop", "resized-crop", "strides", "second", "rate"],
)
def test_expected_tokens_are_those_that_the_data_draws(task: ImageTask | VideoTask) -> None:
    mean, pairs, most = sampled(task)
    found = expected(task, PRESETS["nano"])
    # Three standard errors of so many draws are about 4 and 8 %.
    assert found.mean.tokens == pytest.approx(mean, rel=0.04)
    assert found.mean.pairs == pytest.approx(pairs, rel=0.08)
    assert most <= found.largest.tokens <= 1.08 * most


def test_a_fixed_size_is_exact() -> None:
    square = Assumptions(image_aspect=1.0, video_aspect=1.0)
    image = expected(ImageTask(samples=1, resolution=(256, 256)), PRESETS["nano"], square)
    assert (image.mean.tokens, image.mean.pairs) == (256, 256**2)
    clip = VideoTask(samples=1, resolution=(64, 64), frames=(24, 24), strides=((1, 1),))
    # Two tiles: of four and of two latent steps.
    assert expected(clip, PRESETS["nano"], square).mean.pairs == (4 * 16) ** 2 + (2 * 16) ** 2
    asset = expected(AssetTask(samples=1), PRESETS["nano"], Assumptions(voxels=10, mates=3))
    assert (asset.mean.pairs, asset.voxels.pairs) == (100, (30, 30))


# -- The plan --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def so400m():
    return load_recipe("so400m")


def test_the_parts_of_a_plan_add_up(so400m) -> None:
    planned = plan(so400m, gpus=256, mfu=0.4, peak=1000.0)
    assert [stage.number for stage in planned.stages] == [1, 2, 3, 4]
    for stage in planned.stages:
        # Image-text in every step, and one other.
        assert sum(task.share for task in stage.tasks) == pytest.approx(2)
        assert stage.tokens == sum(task.share * task.samples * task.drawn.mean.tokens for task in stage.tasks)
        assert stage.hours == pytest.approx(stage.stage.steps * stage.flops / (256 * 0.4 * 1e15) / 3600)
        assert stage.memory.activations == max(task.activations for task in stage.tasks)
    assert planned.gpu_hours == pytest.approx(256 * sum(stage.hours for stage in planned.stages))
    # The latents are drawn anew from stage to stage, the Gaussian decoder joins in stage 3.
    assert [stage.parameters for stage in planned.stages] == [
        parameters(replace(PRESETS["so-c-s1"], patch=(1, 16, 16))).total,
        845_738_048,
        845_738_048 + 85_887_424,
        845_738_048 + 85_887_424,
    ]


def test_what_a_plan_depends_on(so400m) -> None:
    base = plan(so400m, stages=[2])
    (stage,) = base.stages
    assert plan(so400m, stages=[2], mfu=0.2).gpu_hours == pytest.approx(2 * base.gpu_hours)
    half = plan(so400m, stages=[2], gpus=128)
    assert half.gpu_hours == pytest.approx(base.gpu_hours)
    assert half.stages[0].hours == pytest.approx(2 * stage.hours)
    assert half.stages[0].memory.moments == pytest.approx(2 * stage.memory.moments)
    plain = plan(replace(so400m, recompute=False), stages=[2])
    assert plain.gpu_hours < base.gpu_hours
    assert plain.stages[0].memory.activations > 3 * stage.memory.activations
    small = plan(replace(so400m, pack_tokens=4096), stages=[1])
    assert small.stages[0].memory.activations < plan(so400m, stages=[1]).stages[0].memory.activations
    assert small.stages[0].tasks[0].packs > plan(so400m, stages=[1]).stages[0].tasks[0].packs


def test_the_papers_hours_are_within_reach(so400m) -> None:
    # The assumptions are ours, so no equality; but their hours must be those of a utilisation that is possible.
    planned = plan(so400m, mfu=1.0)
    assert 0.05 < planned.gpu_hours / PAPER_GPU_HOURS < 0.6


@pytest.mark.parametrize("bad", [{"gpus": 0}, {"mfu": 0.0}, {"mfu": 40.0}, {"peak": -1.0}])
def test_a_plan_of_nothing_is_refused(so400m, bad: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="a plan needs 1 GPU or more"):
        plan(so400m, **bad)


def test_the_tables_say_what_they_rest_on(so400m, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(so400m, gpus=256, mfu=0.4)
    text = capsys.readouterr().out
    assert text == render(plan(so400m, gpus=256, mfu=0.4))
    for said in ("4 discrete-tokens", "asset_recon", "138,000 GPU-hours", "20,000 voxels", "Not counted:"):
        assert said in text
    assert max(map(len, text.splitlines())) <= 118
    show_plan(load_recipe("nano"), stages=[0], gpus=1)
    text = capsys.readouterr().out
    assert "stages, on 1 GPU " in text
    assert "138,000" not in text


def test_a_plan_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from atoken.training.plan import show_plan\n"
        "from atoken.training.recipe_files import load_recipe\n"
        "show_plan(load_recipe('so400m'))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
