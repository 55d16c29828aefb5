"""All stages of a run, one after another: each starts from the averaged model of an earlier one (paper 3.4)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atoken.assets.gaussian_decoder import GaussianDecoderConfig
from atoken.checkpoint import Source, locate
from atoken.config import preset
from atoken.errors import CheckpointError
from atoken.tokenizer import AToken
from atoken.training.checkpoints import Checkpoints
from atoken.training.data import Batches, Pack, Sources
from atoken.training.errors import TrainingError
from atoken.training.recipe import Stage
from atoken.training.start.basis import fit_basis
from atoken.training.start.clips import refit
from atoken.training.start.grow import with_blocks, with_clips, with_frames, with_latents, with_quantizer
from atoken.training.start.pca import initialise
from atoken.training.trainee import Trainee
from atoken.training.trainer import Run, Trainer

if TYPE_CHECKING:
    from atoken.text import TextHead

__all__ = ["MODEL", "Stages", "located", "stage_folder"]

MODEL = "model"
"""Folder of a stage's averaged model, in float32: what the next stage starts from."""

BASIS_PATCHES = 300_000
"""Patches that the PCA of a start is fitted on, at most; 768 components need a few hundred each."""
BASIS_STEPS = 64
"""Steps whose images they come from, at most."""


def located(path: Path) -> Source:
    """A given tokenizer's files.

    Raises:
        TrainingError: there is none.
    """
    try:
        return locate(path)
    except CheckpointError as error:
        raise TrainingError(f"--pretrained {error}") from None


def stage_folder(out: Path, stage: int) -> Path:
    """Where the stage of that index (0 for the first) has its checkpoints, pictures and model."""
    return out / f"stage-{stage + 1}"


@dataclass(kw_only=True)
class Stages:
    """The stages of a run, in one folder.

    Attributes:
        head: text tower and projection, saved beside each model so that its vectors can be compared with texts; None
            where no stage has a text task.
        pretrained: weights of a SigLIP2 encoder or a whole tokenizer, for recipes that start from them.
    """

    run: Run
    sources: Sources
    out: Path
    head: TextHead | None = None
    pretrained: Path | None = None

    def train(
        self,
        stages: range,
        *,
        seconds: float = math.inf,
        stop: Callable[[], bool] = lambda: False,
        begun: Callable[[Trainer], None] = lambda _: None,
    ) -> bool:
        """Train these stages; those that have a model already are left as they are.

        Args:
            seconds, stop: as `Trainer.run`, over all stages.
            begun: called with each stage's trainer before its first step.

        Returns:
            Whether the last of them is done.

        Raises:
            TrainingError: a stage whose predecessor has no model, and what `Trainer` raises.
        """
        end = time.monotonic() + seconds
        for index in stages:
            folder = stage_folder(self.out, index)
            if (folder / MODEL / "config.json").is_file():
                self._check_done(folder, index)
                continue
            trainer = self._open(index)
            begun(trainer)
            if not trainer.run(seconds=end - time.monotonic(), stop=stop):
                return False
            self._export(trainer, folder / MODEL)
        return True

    def _open(self, index: int) -> Trainer:
        recipe, world = self.run.recipe.in_stage(index), self.run.world
        stage = recipe.stages[index]
        trainee = Trainee(self._model(index), **self._scores(index))
        if "asset_recon" in stage.tasks and trainee.tokenizer.gaussian_decoder is None:
            from atoken.training.start.gaussians import start_gaussians

            shape = {name: value for name, value in asdict(recipe.gaussian_decoder).items() if value is not None}
            decoder = start_gaussians(GaussianDecoderConfig(**shape), seed=recipe.seed)
            trainee.tokenizer.attach_gaussians(decoder)
        given, smallest = trainee.tokenizer.gaussian_decoder, recipe.gaussian_decoder.smallest_scale
        if given is not None and smallest is not None:
            given.config = replace(given.config, smallest_scale=smallest)
        batches = self._batches(index, trainee.tokenizer.config.patch, world.rank, world.size)
        checkpoints = Checkpoints(stage_folder(self.out, index) / "checkpoints", world)
        return Trainer(replace(self.run, recipe=recipe), index, trainee.to(world.device).train(), batches, checkpoints)

    def _batches(self, index: int, patch: tuple[int, int, int], rank: int, world: int) -> Batches:
        recipe = self.run.recipe
        return Batches(
            self.sources,
            recipe.stages[index],
            stage_index=index,
            seed=recipe.seed,
            rank=rank,
            world=world,
            patch=patch,
            pack_tokens=recipe.pack_tokens,
        )

    def _model(self, index: int) -> AToken:
        """The model that a stage starts with, in the stage's shape."""
        stage, place = self.run.recipe.stages[index], self.run.recipe.before(index)
        if place is None:
            if self.run.recipe.start != "atoken":
                return self._first()
            model = self._given()
        else:
            before = stage_folder(self.out, place) / MODEL
            if not before.is_dir():
                raise TrainingError(
                    f"{before}: no such folder; stage {index + 1} starts from the model of stage {place + 1}"
                )
            model = AToken.from_pretrained(before)
        if self._starts_clips(model, stage):
            images = fit_basis(pack.patches() for pack in self._first_packs(0, "image_recon"))
            packs = list(self._first_packs(index, "video_recon"))  # bytes; drawing clips takes longer than both fits
            model = with_clips(model, images, fit_basis(pack.patches() for pack in packs))
            refit(model, (pack.tokens(model.config.patch) for pack in packs))
        if model.config.patch[0] != stage.frames:
            # A start from the PCA repeats a still frame; pretrained encoders keep what they see of it.
            model = with_frames(model, stage.frames, still=self.run.recipe.start == "pca")
        if model.config.latent_channels != stage.latents:
            model = with_latents(model, stage.latents)
        shape = self.run.recipe.shape(index)
        if (model.config.encoder.blocks, model.config.decoder.blocks) != (shape.encoder.blocks, shape.decoder.blocks):
            model = with_blocks(model, shape.encoder.blocks, shape.decoder.blocks, seed=self.run.recipe.seed)
        if stage.discrete and model.quantizer is None:
            model = with_quantizer(model)
        return model

    def _given(self) -> AToken:
        """The user's tokenizer, of the shape that the recipe names."""
        recipe, path = self.run.recipe, self.pretrained
        if path is None:
            raise TrainingError(f"recipe {recipe.name} starts from a tokenizer: give one with --pretrained PATH")
        source = located(path)
        # A file alone need not say what it holds.
        model = AToken.from_pretrained(path, preset=None if source.config else recipe.model)
        shape, wanted = model.config, preset(recipe.model)
        if (shape.encoder, shape.decoder) != (wanted.encoder, wanted.decoder):
            raise TrainingError(f"{path}: is no {recipe.model}, which recipe {recipe.name} trains; set model")
        if shape.gathering != recipe.gathering:
            raise TrainingError(
                f"{path}: has seen voxels coloured by {shape.gathering}, recipe {recipe.name} wants "
                f"{recipe.gathering}; give --set gathering={shape.gathering}"
            )
        return model

    def _starts_clips(self, model: AToken, stage: Stage) -> bool:
        """Whether the stage gets longer patches and the one latent that tells clips from images."""
        grows = (stage.frames - model.config.patch[0], stage.latents - model.config.latent_channels)
        return self.run.recipe.start == "pca" and grows == (3, 1) and "video_recon" in stage.tasks

    def _first(self) -> AToken:
        recipe = self.run.recipe
        quantizer = preset(recipe.model).quantizer if recipe.stages[0].discrete else None
        torch.manual_seed(recipe.seed)
        model = AToken(replace(recipe.shape(0), quantizer=quantizer))
        if recipe.start == "siglip2":
            if self.pretrained is None:
                raise TrainingError(
                    f"recipe {recipe.name} starts from SigLIP2: give its weights with --pretrained PATH"
                )
            from atoken.training.start.siglip2 import load_encoder

            load_encoder(model, self.pretrained)
        if recipe.start == "pca":
            images = fit_basis(pack.patches() for pack in self._first_packs(0, "image_recon"))
            initialise(model, images, latent_std=recipe.latent_std, seed=recipe.seed)
        return model

    def _first_packs(self, index: int, task: str) -> Iterator[Pack]:
        """What a task's first steps train on, over all ranks: every rank must begin with the same weights."""
        batches, found, step = self._batches(index, preset(self.run.recipe.model).patch, 0, 1), 0, 0
        while found < BASIS_PATCHES and step < BASIS_STEPS:
            for pack in batches.batch(task, step).packs:
                yield pack
                found += len(pack.values)
            step += 1

    def _scores(self, index: int) -> dict[str, float]:
        """Scale and bias of scores at the start of a stage: what the one that it starts from came to."""
        if self.head is None:
            return {}
        place = self.run.recipe.before(index)
        if place is None:
            return {"log_scale": self.head.log_scale, "bias": self.head.bias}
        from atoken.text import TextHead

        before = TextHead.from_pretrained(stage_folder(self.out, place) / MODEL)
        return {"log_scale": before.log_scale, "bias": before.bias}

    def _check_done(self, folder: Path, index: int) -> None:
        """A stage that is done must be of this recipe: its last checkpoint says of which it is."""
        notes = Checkpoints(folder / "checkpoints", self.run.world).newest()
        if notes is not None and notes["step"] != self.run.recipe.stages[index].steps:
            raise TrainingError(
                f"{folder}: is done after {notes['step']} steps, the recipe has {self.run.recipe.stages[index].steps}; "
                "give another folder, or the recipe that it was made by"
            )

    def _export(self, trainer: Trainer, folder: Path) -> None:
        """The averaged model, whole, in float32, with its text head."""
        state = trainer.averaged()
        if self.run.world.is_main:
            model = averaged_model(trainer, state)
            model.save_pretrained(folder)
            if self.head is not None:
                self.head.with_scores(float(state["log_scale"]), float(state["bias"])).save_pretrained(folder)
        self.run.world.barrier()


def averaged_model(trainer: Trainer, state: dict[str, Tensor]) -> AToken:
    """The model of `Trainer.averaged()`, apart from the one in training, on the CPU, in evaluation mode."""
    trained = trainer.trainee.tokenizer
    with torch.device("meta"):
        model = type(trained)(trained.config)
        if trained.gaussian_decoder is not None:
            model.attach_gaussians(type(trained.gaussian_decoder)(trained.gaussian_decoder.config))
    prefix = "tokenizer."
    own = {key.removeprefix(prefix): value.cpu() for key, value in state.items() if key.startswith(prefix)}
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)
