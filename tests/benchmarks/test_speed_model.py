"""The speed bench sees every product of the model, and replays just those."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.speed import model as bench


def test_recorded_products_are_the_models() -> None:
    model = bench.random_model("nano")
    sizes = [(32, 48), (32, 48), (20, 16)]
    products = bench.record(model, [torch.zeros(*size, 3, dtype=torch.uint8) for size in sizes])
    lengths = [6, 6, 2]
    layers = [m for key, m in model.named_modules() if isinstance(m, nn.Linear) and ".head." not in key]
    linear = sum(2 * sum(lengths) * layer.weight.numel() for layer in layers)
    halves = (model.config.encoder, model.config.decoder)
    attention = sum(2 * 2 * n * n * half.width * half.blocks for n in lengths for half in halves)
    assert sum(product.flops for product in products) == linear + attention
    weights = {layer.weight.data_ptr() for layer in layers}
    assert weights <= {product.right.data_ptr() for product in products}
    bench.replay(products)()


def test_an_unknown_kernel_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "reconstruct", lambda model, images: None)
    with pytest.raises(RuntimeError, match="not recorded"):
        bench.record(bench.random_model("nano"), [torch.zeros(16, 16, 3, dtype=torch.uint8)])


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        bench.main(["--preset", "nano", "--side", "32", "--batch", "2", "--repeats", "1", "--threads", "1"])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5
    assert [line.split()[0] for line in out[2:4]] == ["1", "2"]
