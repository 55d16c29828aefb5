"""Zero-shot classification of 3D assets (paper section 4.4): the 3D accuracy of Table 3."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="asset-classify",
    title="Zero-shot 3D asset classification",
    modality="asset",
    subject="embedder",
    status="built",
    fills=(Fills(table="table03", group={"toys4k": "3D"}, columns={"top-1": "Acc.↑"}),),
    datasets=("samples", "toys4k"),
    protocols=("sentences", "one-sentence", "bare", "all-assets", "views-12", "views-4", "preview"),
    defaults={"samples": "preview"},
    tokenizers=("atoken:atoken-nano",),
    runner="harness.runner:run",
    needs="Toys4k meshes (TRELLIS's 3,229 or all 4,000), a checkpoint, the SigLIP2 text tower",
)
