"""A discriminator against the Gram loss (paper section 3.3, Figure 4)."""

from __future__ import annotations

from harness.ablation import Ablation, Measure, Variant

# LightningDiT weighs its adversarial term with 0.5, times the adaptive weight.
GAN = ("losses.l1=1", "losses.adversarial=0.5")

ABLATION = Ablation(
    name="ablation-gan-vs-gram",
    title="Training with a discriminator against the Gram loss",
    status="built",
    figure="Figure 4",
    asks="Does the discriminator overpower the tokenizer, and does the Gram loss do better?",
    recipe="ablation-image",
    variants=(
        Variant(name="l1", title="L1"),
        Variant(name="l1-gan", title="L1 + GAN", changes=GAN),
        Variant(name="l1-lpips-gan", title="L1 + LPIPS + GAN", changes=(*GAN, "losses.lpips=10"), vgg=True),
        Variant(
            name="l1-lpips-gram",
            title="L1 + LPIPS + Gram",
            changes=("losses.l1=1", "losses.lpips=10", "losses.gram=1e3"),
            vgg=True,
        ),
    ),
    measures=(Measure(experiment="image-recon", protocol="paper"),),
    needs="training images, torchvision's VGG16; trunk weights of LPIPS and FID to measure with",
)
