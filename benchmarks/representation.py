"""t-SNE of class embeddings at every stage (paper Figure 8), with numbers for how far classes lie apart."""

from __future__ import annotations

from harness.experiment import Experiment

EXPERIMENT = Experiment(
    name="representation",
    title="t-SNE of class embeddings at every stage (Figure 8)",
    subject="encoder",
    status="built",
    datasets=("imagenet-val", "classes", "parquet", "imagenet-v2"),
    protocols=("classes-20-256", "classes-10-256", "classes-20-224", "native"),
    defaults={"parquet": "native"},
    tokenizers=("atoken:atoken-nano",),
    runner="harness.understanding.representation_run:run",
    needs="ImageNet val or another labelled set, the checkpoints of every stage, scikit-learn",
)
