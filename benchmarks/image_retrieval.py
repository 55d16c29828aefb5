"""Zero-shot image-text retrieval (paper section 4.2): Table 5."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="image-retrieval",
    title="Zero-shot image-text retrieval",
    subject="embedder",
    status="built",
    fills=(
        Fills(
            table="table05",
            group={"coco-karpathy": "COCO", "flickr30k": "Flickr"},
            columns={"text-to-image R@1": "T→I", "image-to-text R@1": "I→T"},
        ),
    ),
    datasets=("samples", "coco-karpathy", "flickr30k"),
    protocols=(
        *(f"siglip2-{side}" for side in (256, 224, 384, 512)),
        *("naflex-256", "crop-256", "release-area-256", "release-crop-256", "own-64"),
    ),
    # The shipped model has learnt names at this side; enlarged pictures are another task to it.
    defaults={"samples": "own-64"},
    tokenizers=("atoken:atoken-nano",),
    runner="harness.runner:run",
    needs="the test images of COCO and Flickr30k with Karpathy's files, a checkpoint, the SigLIP2 text tower",
)
