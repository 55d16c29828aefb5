"""The paper's experiments that are not built yet: what each measures, the cells it fills, what it needs.

They are listed so that nobody takes the suite for the whole paper; running one says that it is planned.
An experiment that gets built moves to a module of its own.
"""

from __future__ import annotations

from harness.experiment import Experiment, Fills

_GENERATED = {"gFID": "gFID↓", "IS": "IS↑", "precision": "Pre.↑", "recall": "Rec.↑"}

LIGHTNINGDIT = Experiment(
    name="image-generation-lightningdit",
    title="Class-conditional image generation on continuous tokens with LightningDiT",
    fills=(
        Fills(table="table11", group={"imagenet-train": ""}, columns={"gFID": "gFID↓", "sFID": "sFID↓", **_GENERATED}),
    ),
    datasets=("imagenet-train",),
    needs="ImageNet train, ADM's reference statistics, a checkpoint, a LightningDiT trained on its latents",
)

TOKENBRIDGE = Experiment(
    name="image-generation-tokenbridge",
    title="Class-conditional image generation on discrete tokens with TokenBridge",
    fills=(Fills(table="table12", group={"imagenet-train": ""}, columns=_GENERATED),),
    datasets=("imagenet-train",),
    needs="ImageNet train, ADM's reference statistics, a So/D checkpoint, a TokenBridge-L trained on its codes",
)

TEXT_TO_VIDEO = Experiment(
    name="text-to-video",
    title="Text-to-image and text-to-video generation",
    fills=(
        Fills(
            table="table13",
            group={"image-prompts": "T2I"},
            columns={"CLIP score": "CLIP", "PickScore": "Pick"},
        ),
        Fills(table="table13", group={"geneval": "T2I"}, columns={"GenEval": "GenEval"}),
        Fills(
            table="table13",
            group={"vbench": "T2V: VBench"},
            columns={"quality": "Quality", "semantic": "Semantic", "total": "Total"},
        ),
    ),
    datasets=("image-prompts", "geneval", "vbench"),
    needs="a text-to-video model trained on the latents; CLIP, PickScore, GenEval and VBench with their weights",
)

_IMAGE_TASKS = {
    "realworldqa": ("General & Knowledge", "RW-QA (test)"),
    "ai2d": ("General & Knowledge", "AI2D (test)"),
    "scienceqa": ("General & Knowledge", "SQA (test)"),
    "mmmu": ("General & Knowledge", "MMMU (val)"),
    "mathvista": ("General & Knowledge", "MathV (testmini)"),
    "ocrbench": ("TextRich", "OCRBench (test)"),
    "textvqa": ("TextRich", "TextVQA (val)"),
}
_VIDEO_TASKS = {
    "videomme": ("General VideoQA", "VideoMME (w/o sub)"),
    "perceptiontest": ("General VideoQA", "PercepTest (val)"),
    "nextqa": ("General VideoQA", "NExT-QA (test)"),
    "longvideobench": ("Long-Form Video Understanding", "LongVideoBench (val)"),
    "mlvu": ("Long-Form Video Understanding", "MLVU (m-avg)"),
    "lvbench": ("Long-Form Video Understanding", "LVBench (avg)"),
}

LLAVA_IMAGE = Experiment(
    name="slowfast-llava-image",
    title="Image understanding of SlowFast-LLaVA-1.5 on frozen features",
    fills=tuple(
        Fills(table="table09", group={dataset: group}, columns={"score": column})
        for dataset, (group, column) in _IMAGE_TASKS.items()
    ),
    datasets=tuple(_IMAGE_TASKS),
    needs="a SlowFast-LLaVA-1.5 trained on the frozen encoder (1B, 3B, 7B), lmms-eval with its datasets",
)

LLAVA_VIDEO = Experiment(
    name="slowfast-llava-video",
    title="Video understanding of SlowFast-LLaVA-1.5 on frozen features",
    fills=tuple(
        Fills(table="table10", group={dataset: group}, columns={"score": column})
        for dataset, (group, column) in _VIDEO_TASKS.items()
    ),
    datasets=tuple(_VIDEO_TASKS),
    needs="a SlowFast-LLaVA-1.5 trained on the frozen encoder (1B, 3B, 7B), lmms-eval with its datasets",
)

# Figures only: they fill no cell of a table.

IMAGE_TO_3D = Experiment(
    name="image-to-3d",
    title="Image-to-3D generation (Figure 14)",
    datasets=("toys4k",),
    needs="Toys4k renderings, a checkpoint with its Gaussian decoder, a TRELLIS flow model trained on its latents",
)

EXPERIMENTS = (
    LIGHTNINGDIT,
    TOKENBRIDGE,
    TEXT_TO_VIDEO,
    LLAVA_IMAGE,
    LLAVA_VIDEO,
    IMAGE_TO_3D,
)
