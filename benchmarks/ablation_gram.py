"""Terms of the image loss one by one: what the Gram loss adds, in which form (paper section 3.3, equations 5 and 6)."""

from __future__ import annotations

from harness.ablation import Ablation, Measure, Variant

LPIPS = ("losses.l1=1", "losses.lpips=10")

ABLATION = Ablation(
    name="ablation-gram",
    title="L1, with LPIPS, with the Gram loss in three forms",
    status="built",
    figure="Equation 5",
    asks="What does each term of the image loss add, and which reading of the Gram loss does the paper mean?",
    recipe="ablation-image",
    variants=(
        Variant(name="l1", title="L1"),
        Variant(name="l1-lpips", title="L1 + LPIPS", changes=LPIPS, vgg=True),
        # Equation 6 weighs the Gram loss with 1e3 and does not say which form; Cosmos weighs its own with 0.062.
        Variant(
            name="gram-g1",
            title="L1 + LPIPS + Gram, G1",
            changes=(*LPIPS, "losses.gram=1e3", "losses.gram_form=G1"),
            vgg=True,
        ),
        Variant(
            name="gram-g2",
            title="L1 + LPIPS + Gram, G2",
            changes=(*LPIPS, "losses.gram=1e3", "losses.gram_form=G2"),
            vgg=True,
        ),
        Variant(
            name="gram-g3",
            title="L1 + LPIPS + Gram, G3",
            changes=(*LPIPS, "losses.gram=0.062", "losses.gram_form=G3"),
            vgg=True,
        ),
    ),
    measures=(Measure(experiment="image-recon", protocol="paper"),),
    needs="training images, torchvision's VGG16; trunk weights of LPIPS and FID to measure with",
)
