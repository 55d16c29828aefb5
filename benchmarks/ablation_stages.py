"""Each stage's checkpoint of one training on images, videos and assets (paper section 4.2; Tables 4, 6 and 8)."""

from __future__ import annotations

from harness.ablation import Ablation, Measure, Variant

ABLATION = Ablation(
    name="ablation-stages",
    title="Each stage of one training, measured alike",
    status="built",
    figure="Tables 4 and 6, rows Stage 1 to 3",
    asks="Does training on videos and assets help images?",
    recipe="ablation-curriculum",
    variants=(Variant(name="curriculum", title="the curriculum"),),
    measures=(
        Measure(experiment="image-recon", protocol="paper"),
        Measure(experiment="video-recon", protocol="preview"),
        Measure(experiment="asset-recon", protocol="preview"),
    ),
    takes_run=True,
    needs="training images, videos and assets, or the folder of a finished training (--option run=DIR)",
)
