"""Video reconstruction (paper section 4.3): Table 6, and the video columns of Table 3."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="video-recon",
    title="Video reconstruction",
    modality="video",
    status="built",
    fills=(
        Fills(
            table="table06",
            group={"davis": "DAVIS", "tokenbench": "TokenBench"},
            columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓", "rFVD": "rFVD↓"},
        ),
        Fills(table="table03", group={"tokenbench": "Video"}, columns={"PSNR": "PSNR↑", "rFVD": "rFVD↓"}),
    ),
    datasets=("samples", "davis", "tokenbench", "folder"),
    protocols=("paper-davis", "paper-tokenbench", "tokenbench", "native", "preview"),
    defaults={"tokenbench": "paper-tokenbench"},
    # 0.09375 bit per pixel is the rate of AToken-So/D (8 codes of 12 bit per 4x16x16 patch), 48 numbers per patch
    # the latent of AToken-So/C: a floor for each. Frame by frame atoken-nano has four times the tokens.
    tokenizers=(
        "identity",
        "h264@0.09375",
        "av1@0.09375",
        "dct3d:48",
        "pca3d:48",
        "atoken:atoken-nano",
        "atoken:atoken-nano-d",
        "frames:atoken:atoken-nano",
    ),
    runner="harness.runner:run",
    needs="DAVIS 2016 at 1080p (50 clips), TokenBench (471 clips), a checkpoint, trunk weights of LPIPS and I3D",
)
