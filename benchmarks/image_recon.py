"""Image reconstruction (paper section 4.2): Table 4, and the image columns of Table 3."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="image-recon",
    title="Image reconstruction",
    status="built",
    fills=(
        Fills(
            table="table04",
            group={"imagenet-val": "ImageNet", "coco-val2017": "COCO"},
            columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓", "rFID": "rFID↓"},
        ),
        Fills(table="table03", group={"imagenet-val": "Image"}, columns={"PSNR": "PSNR↑", "rFID": "rFID↓"}),
    ),
    datasets=("samples", "imagenet-val", "coco-val2017", "folder", "tar"),
    protocols=("paper", "paper-mean", "lightningdit", "adm", "native"),
    # 0.375 bit per pixel is the rate of AToken-So/D (8 codes of 12 bit per 16x16 patch), 48 numbers
    # per patch the latent of AToken-So/C: a floor for each.
    tokenizers=(
        "identity",
        "jpeg@0.375",
        "dct:48",
        "pca:48",
        "atoken:atoken-nano",
        "atoken:atoken-nano-d",
    ),
    runner="harness.runner:run",
    needs="ImageNet val (50,000) and COCO val2017 (5,000), a checkpoint, trunk weights of LPIPS and FID",
)
