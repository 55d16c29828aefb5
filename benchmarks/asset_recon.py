"""3D asset reconstruction (paper section 4.4): Table 8, and the 3D columns of Table 3."""

from __future__ import annotations

from harness.experiment import Experiment, Fills

EXPERIMENT = Experiment(
    name="asset-recon",
    title="3D asset reconstruction",
    modality="asset",
    status="built",
    fills=(
        Fills(
            table="table08",
            group={"toys4k": ""},
            columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓"},
        ),
        Fills(table="table03", group={"toys4k": "3D"}, columns={"PSNR": "PSNR↑", "LPIPS": "LPIPS↓"}),
    ),
    datasets=("samples", "toys4k", "folder"),
    # Those of Cycles need a Python with bpy; what they measure is lit as TRELLIS's data are.
    protocols=("paper", "trellis", "release", "preview", "paper-cycles", "trellis-cycles"),
    tokenizers=("identity", "voxel-colour", "atoken:atoken-nano"),
    runner="harness.runner:run",
    needs="Toys4k meshes (TRELLIS's 3,229), a checkpoint with its Gaussian decoder, LPIPS trunk weights",
)
