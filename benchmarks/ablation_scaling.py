"""Two model sizes through the training stages (paper section 4.5, Figure 7)."""

from __future__ import annotations

from harness.ablation import Ablation, Measure, Variant

ABLATION = Ablation(
    name="ablation-scaling",
    title="Two model sizes through the training stages",
    status="built",
    figure="Figure 7",
    asks="Does a small model lose images when it learns videos and assets, where a larger one gains?",
    recipe="ablation-curriculum",
    # Figure 7 ends with stage 3.
    variants=(
        Variant(name="pico", title="pico", changes=("model=pico", "stages.discrete-tokens=null")),
        Variant(name="nano", title="nano", changes=("model=nano", "stages.discrete-tokens=null")),
    ),
    measures=(
        Measure(experiment="image-recon", protocol="paper"),
        Measure(experiment="video-recon", protocol="preview"),
        Measure(experiment="asset-recon", protocol="preview"),
    ),
    needs="training images, videos and assets; trunk weights of FID to measure rFID with",
)
