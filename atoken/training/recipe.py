"""Everything that decides what a run computes, as data; no torch, so that --help stays quick.

A recipe has stages (Table 2 of the paper), a stage has tasks. Every step trains on image-text pairs, where the stage
has them, and on one other task, chosen in turn by the tasks' shares (paper 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from atoken.config import ATokenConfig, Gathering, preset
from atoken.training.errors import TrainingError
from atoken.training.tasks import IMAGE_TEXT, AssetTask, ImageTask, VideoTask, demand, demand_choice

__all__ = ["CHANGEABLE", "GaussianShape", "Losses", "Matrices", "Optimizer", "Recipe", "Stage"]

Start = Literal["random", "pca", "siglip2", "atoken"]
GramForm = Literal["G1", "G2", "G3"]
Directions = Literal["image-to-text", "both"]
Precision = Literal["float32", "bfloat16"]
Text = Literal["none", "sentence", "siglip2"]
Trained = Literal["all", "gaussian-decoder"]
Matrices = Literal["adamw", "muon"]

CHANGEABLE = ("optimizer", "losses", "gaussian_decoder", "log_every", "validate_every", "checkpoint_every")
"""Keys of a recipe that a stage can set for itself."""
_ALIKE = {
    "losses": ("lpips", "gram", "clip", "distillation", "adversarial"),
    "gaussian_decoder": ("width", "blocks", "heads", "mlp", "gaussians"),
}
"""Of those keys, what is the same in all stages: it needs networks that are loaded once, or is the decoder's shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One row of Table 2.

    Attributes:
        name: for logs and folders.
        steps: optimiser steps.
        latents: channels of the posterior's mean.
        frames: of a patch: 1 while a model sees images alone and need not carry weights for other frames, 4 after.
        encoder_blocks, decoder_blocks: from this stage on, more than before; None leaves their number.
        discrete: whether the latents pass through FSQ.
        trained: "gaussian-decoder" leaves the tokenizer as it is.
        after: the earlier stage whose model this one starts from; the one before if None.
        changes: to the recipe's other keys in this stage alone, see `CHANGEABLE`.
        tasks: by name, see `atoken.training.tasks`.
    """

    name: str
    steps: int
    latents: int
    frames: int
    tasks: Mapping[str, ImageTask | VideoTask | AssetTask]
    encoder_blocks: int | None = None
    decoder_blocks: int | None = None
    discrete: bool = False
    trained: Trained = "all"
    after: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_choice(f"{self.name}.trained", self.trained, Trained)
        demand(
            self.trained == "all" or set(self.tasks) == {"asset_recon"},
            f"{self.name}.tasks",
            sorted(self.tasks),
            "asset_recon alone where the Gaussian decoder alone is trained",
        )
        demand(isinstance(self.steps, int) and self.steps >= 1, f"{self.name}.steps", self.steps, "1 or more")
        demand(self.latents >= 1, f"{self.name}.latents", self.latents, "1 or more")
        for half, blocks in self.blocks().items():
            demand(blocks >= 1, f"{self.name}.{half}_blocks", blocks, "1 or more")
        demand(self.frames in (1, 4), f"{self.name}.frames", self.frames, "1 or 4")
        others = [task for task in self.tasks if task != IMAGE_TEXT]
        demand(bool(others), f"{self.name}.tasks", sorted(self.tasks), f"at least one beside {IMAGE_TEXT}")
        demand(
            self.frames == 4 or not any(task.startswith("video") for task in others),
            f"{self.name}.frames",
            self.frames,
            "4 where there are videos",
        )
        for task, values in self.tasks.items():
            values.check(task)

    def blocks(self) -> dict[str, int]:
        """By half, "encoder" or "decoder": how many it has from this stage on, where the stage says it."""
        given = {"encoder": self.encoder_blocks, "decoder": self.decoder_blocks}
        return {half: blocks for half, blocks in given.items() if blocks is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """The optimiser and its learning rate; the defaults are the paper's (3.5).

    Attributes:
        matrices: what moves the matrices of blocks and head; "muon" (`atoken.training.muon`) learns more in as many
            steps, each a little longer, and holds one number beside each weight instead of two.
        lr, final_lr: highest and last learning rate of a stage.
        warmup_steps: of a stage, in which the rate rises from 0; at most a tenth of its steps are taken.
        cooldown: last share of a stage's steps in which the rate falls by a half cosine; 1 is the usual cosine.
        encoder_lr_ratio: the encoder's rate relative to the rest's; below 1 where it starts pretrained.
        io_lr_ratio: the rate of all but the blocks' and the head's matrices relative to theirs; below 1 where the PCA
            has set them.
        betas: of AdamW.
        weight_decay: acts on matrices, whatever moves them.
        clip: largest norm of the gradient. The paper gives none.
        ema: decay of the weights' moving average, which is what is evaluated and shipped.
    """

    matrices: Matrices = "adamw"
    lr: float = 3e-4
    final_lr: float = 3e-5
    warmup_steps: int = 2000
    cooldown: float = 1.0
    encoder_lr_ratio: float = 0.1
    io_lr_ratio: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.9999

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        demand_choice("optimizer.matrices", self.matrices, Matrices)
        demand(0 < self.final_lr <= self.lr, "optimizer.final_lr", self.final_lr, "positive and at most lr")
        demand(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "0 or more")
        demand(0 < self.cooldown <= 1, "optimizer.cooldown", self.cooldown, "in (0, 1]")
        for name in ("encoder_lr_ratio", "io_lr_ratio"):
            demand(getattr(self, name) > 0, f"optimizer.{name}", getattr(self, name), "positive")
        demand(len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "two")
        demand(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        demand(self.clip > 0, "optimizer.clip", self.clip, "positive")
        demand(0 <= self.ema < 1, "optimizer.ema", self.ema, "in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Weights of eq. 4 and eq. 6, and the forms of what the paper leaves open; the defaults are the paper's.

    Attributes:
        reconstruction, semantic, kl: of eq. 4.
        l1, lpips, gram, clip: of eq. 6; the last three need trunks of the user's and act on images alone. At 0 a
            term is not computed and its trunk not needed.
        log_mse: of the logarithm of an image's or clip's squared error, which is PSNR in other units; not in the paper.
        pictures_log_mse: the same of an asset's pictures.
        voxels: of the L1 between an asset's voxels and their reconstruction, beside that of its pictures; not in the
            paper.
        gram_form: see `atoken.training.losses.gram`.
        distillation: whether images learn from a teacher's scores (eq. 7); else by the sigmoid loss, as videos and
            assets do.
        directions, temperature: of the distillation.
        adversarial: of the PatchGAN baseline of Fig. 4a; 0 in every recipe but its ablation's.
        adversarial_start: steps of a stage before its discriminator begins; LightningDiT waits 5,000.
    """

    reconstruction: float = 0.2
    semantic: float = 1.0
    kl: float = 1e-8
    l1: float = 1.0
    lpips: float = 10.0
    gram: float = 1e3
    clip: float = 1.0
    log_mse: float = 0.0
    pictures_log_mse: float = 0.0
    voxels: float = 0.0
    gram_form: GramForm = "G1"
    distillation: bool = True
    directions: Directions = "image-to-text"
    temperature: float = 2.0
    adversarial: float = 0.0
    adversarial_start: int = 5000

    def __post_init__(self) -> None:
        demand_choice("losses.gram_form", self.gram_form, GramForm)
        demand_choice("losses.directions", self.directions, Directions)
        demand(self.adversarial_start >= 0, "losses.adversarial_start", self.adversarial_start, "0 or more")
        demand(self.temperature > 0, "losses.temperature", self.temperature, "positive")
        for name in _WEIGHTS:
            value = getattr(self, name)
            demand(isinstance(value, int | float) and value >= 0, f"losses.{name}", value, "0 or more")


_WEIGHTS = (
    "reconstruction", "semantic", "kl", "l1", "lpips", "gram", "clip", "log_mse", "pictures_log_mse", "voxels",
    "adversarial",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianShape:
    """Shape of the Gaussian decoder; the defaults are the release's. See `GaussianDecoderConfig`.

    Attributes:
        smallest_scale: standard deviation that is added to every Gaussian's in quadrature, where the unit cube is 1;
            larger where pictures are smaller than the release's, or gaps show beside them. None is the release's, or
            what a given tokenizer's decoder has.
    """

    width: int = 768
    blocks: int = 12
    heads: int = 12
    mlp: int = 3072
    gaussians: int = 32
    smallest_scale: float | None = None

    def __post_init__(self) -> None:
        smallest = self.smallest_scale
        demand(smallest is None or smallest > 0, "gaussian_decoder.smallest_scale", smallest, "positive")
        for name in ("width", "blocks", "heads", "mlp", "gaussians"):
            value = getattr(self, name)
            demand(isinstance(value, int) and value >= 1, f"gaussian_decoder.{name}", value, "1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole training, all stages.

    Attributes:
        name: of the recipe.
        model: shape of the model, a name of `atoken.config.PRESETS`.
        start: "siglip2" takes weights of the user's, "atoken" a tokenizer of theirs (an official checkpoint, or what
            another run made), "pca" the principal components of the training patches. After the last a stage that goes
            from 1 frame to 4 and has one latent more begins with the components of clips beside those of images, see
            `atoken.training.start.clips`.
        latent_std: of the posterior at a start from the PCA, whose latents have about unit variance.
        seed: of weights, samples and latent noise; with stage and step it decides every batch.
        precision: of the network's arithmetic (autocast); weights, losses and averages are float32.
        text: the frozen text tower that images, videos and assets are aligned with.
        pack_tokens: most tokens of one forward and backward pass on a rank; a batch of more is accumulated. A single
            item of more goes alone.
        compile, recompute: torch.compile of the blocks; activation checkpointing of the blocks.
        cuda_graphs: on CUDA, record the passes of packs of one shape and replay them: for small models, whose kernels
            are shorter than asking for them. On one process, without perceptual terms.
        gathering: which views colour the voxels of assets (`atoken.assets.voxel_features`); the model keeps it.
        gaussian_decoder: shape of it, made when assets are first reconstructed.
        log_every, validate_every, checkpoint_every: in steps.
        patience: steps in a row with a loss that is not finite, after which the run stops.
    """

    name: str
    model: str
    start: Start
    seed: int
    precision: Precision
    text: Text
    pack_tokens: int
    stages: tuple[Stage, ...]
    latent_std: float = 0.02
    compile: bool = False
    recompute: bool = False
    cuda_graphs: bool = False
    gathering: Gathering = "nearest"
    gaussian_decoder: GaussianShape = field(default_factory=GaussianShape)
    optimizer: Optimizer = field(default_factory=Optimizer)
    losses: Losses = field(default_factory=Losses)
    log_every: int = 10
    validate_every: int = 1000
    checkpoint_every: int = 1000
    patience: int = 10

    def __post_init__(self) -> None:
        demand_choice("start", self.start, Start)
        demand_choice("precision", self.precision, Precision)
        demand_choice("text", self.text, Text)
        demand_choice("gathering", self.gathering, Gathering)
        for name in ("pack_tokens", "log_every", "validate_every", "checkpoint_every", "patience"):
            value = getattr(self, name)
            demand(isinstance(value, int) and value >= 1, name, value, "1 or more")
        demand(self.latent_std > 0, "latent_std", self.latent_std, "positive")
        demand(bool(self.stages), "stages", self.stages, "at least one")
        for index, after in enumerate(self.stages):
            self._changed(after)
            place = self.before(index)
            if place is None:
                continue
            before = self.stages[place]
            grows = before.latents <= after.latents and before.frames <= after.frames
            demand(grows, f"{after.name}.latents", after.latents, "no fewer latents and frames than before")
            for half, blocks in after.blocks().items():
                least = getattr(self.shape(place), half).blocks
                demand(blocks >= least, f"{after.name}.{half}_blocks", blocks, f"{least} or more, as many as before")
            demand(before.discrete <= after.discrete, f"{after.name}.discrete", False, "true, as in the stage before")
        if self.text == "none":
            aligned = [s.name for s in self.stages if any(task.endswith("_text") for task in s.tasks)]
            demand(not aligned, "text", self.text, f"a text tower, for the text tasks of {', '.join(aligned)}")

    def before(self, index: int) -> int | None:
        """The stage whose model the stage of that index starts from; None for the first."""
        name = self.stages[index].after
        if name is None:
            return index - 1 if index else None
        earlier = [stage.name for stage in self.stages[:index]]
        demand(name in earlier, f"{self.stages[index].name}.after", name, "the name of an earlier stage")
        return earlier.index(name)

    def shape(self, index: int) -> ATokenConfig:
        """Of the model in that stage, but for its quantizer.

        Raises:
            CheckpointError: there is no model of that name.
        """
        stage, place = self.stages[index], self.before(index)
        grown = replace(preset(self.model), quantizer=None) if place is None else self.shape(place)
        halves = {half: replace(getattr(grown, half), blocks=blocks) for half, blocks in stage.blocks().items()}
        patch = (stage.frames, *grown.patch[1:])
        return replace(grown, latent_channels=stage.latents, patch=patch, gathering=self.gathering, **halves)

    def in_stage(self, index: int) -> Recipe:
        """The recipe as that stage has it."""
        return replace(self, **self._changed(self.stages[index]))

    def _changed(self, stage: Stage) -> dict[str, Any]:
        """The keys that a stage sets for itself, whole."""
        found: dict[str, Any] = {}
        for name, value in stage.changes.items():
            key = f"{stage.name}.changes.{name}"
            demand(name in CHANGEABLE, key, value, f"left out: a stage sets {', '.join(CHANGEABLE)}")
            if not isinstance(value, Mapping):
                demand(isinstance(value, int) and value >= 1, key, value, "1 or more")
                found[name] = value
                continue
            for part in value:
                free = part not in _ALIKE.get(name, ())
                demand(free, f"{key}.{part}", value[part], "left out: it is the same in all stages")
            try:
                found[name] = replace(getattr(self, name), **value)
            except TrainingError as error:
                raise TrainingError(f"recipe: {stage.name}.changes.{str(error).removeprefix('recipe: ')}") from None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `atoken.training.recipe_files.parse` gives the same recipe back."""
        data: dict[str, Any] = _plain(asdict(self))
        data["stages"] = {stage.pop("name"): stage for stage in data["stages"]}
        return data


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
