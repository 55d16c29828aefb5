"""Zero-shot image classification (paper section 4.2): Table 5, and the image accuracy of Table 3."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="image-classify",
    title="Zero-shot image classification",
    subject="embedder",
    status="built",
    fills=(
        Fills(table="table05", group={"imagenet-val": "ImageNet-1k"}, columns={"top-1": "val"}),
        Fills(table="table05", group={"imagenet-v2": "ImageNet-1k"}, columns={"top-1": "v2"}),
        Fills(table="table03", group={"imagenet-val": "Image"}, columns={"top-1": "Acc.↑"}),
    ),
    datasets=("samples", "imagenet-val", "imagenet-v2", "classes", "parquet"),
    protocols=(
        *(f"siglip2-{side}" for side in (256, 224, 384, 512)),
        *("naflex-256", "crop-256", "bigvision-256", "release-area-256", "release-crop-256"),
        *("templates-80-256", "bare-256", "own-256", "own-64", "native"),
    ),
    # The shipped model has learnt names at this side; enlarged pictures are another task to it.
    defaults={"samples": "own-64", "parquet": "native"},
    tokenizers=("atoken:atoken-nano",),
    runner="harness.runner:run",
    needs="ImageNet val and ImageNet-V2, a checkpoint, the SigLIP2 text tower, open_clip for CLIP's templates",
)
