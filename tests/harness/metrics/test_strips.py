"""Cutting large frames into pieces, alone and on threads: no bit of a metric moves."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_inputs import disturbed, images
from skimage.metrics import structural_similarity

from harness.metrics import strips
from harness.metrics.psnr import psnr
from harness.metrics.ssim import FLAVOURS, ssim

CPU = torch.device("cpu")
RANGES = [((0.0, 1.0), 1.0), ((-1.0, 1.0), 2.0)]


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("interval", "data_range"), RANGES)
def test_strips_and_threads_move_no_bit(
    flavour: str,
    interval: tuple[float, float],
    data_range: float,
    monkeypatch: pytest.MonkeyPatch,
    two_threads: object,
) -> None:
    for height, width in ((7, 7), (23, 61), (64, 130)):
        a = images(2, height, width)
        for b in (disturbed(a), disturbed(a, 60), 255 - a):
            monkeypatch.setattr(strips, "PIECE", 1 << 30)
            whole = ssim(a, b, flavour, images=interval, data_range=data_range), psnr(a, b)
            for piece in (3 * width, 11 * width + 5):
                monkeypatch.setattr(strips, "PIECE", piece)
                np.testing.assert_array_equal(ssim(a, b, flavour, images=interval, data_range=data_range), whole[0])
                np.testing.assert_array_equal(psnr(a, b), whole[1])


@pytest.mark.parametrize("pair", ["noise", "inverse", "extremes"])
def test_a_frame_larger_than_a_piece_has_scikit_images_value(pair: str) -> None:
    a = images(1, 300, 640)
    b = {"noise": disturbed(a, 20), "inverse": 255 - a, "extremes": (a > 128).to(torch.uint8) * 255}[pair]
    if pair == "extremes":
        a = 255 - b
    assert a[0, 0].numel() > strips.PIECE
    expected = structural_similarity(
        a[0].permute(1, 2, 0).numpy(), b[0].permute(1, 2, 0).numpy(), channel_axis=-1, data_range=255
    )
    assert ssim(a, b, "skimage", images=(0, 255), data_range=255)[0] == pytest.approx(expected, abs=1e-7)


@given(st.integers(1, 3000), st.integers(1, 300_000))
def test_strips_cover_every_row_once(height: int, width: int) -> None:
    cut = list(strips.strips(height, width, CPU))
    assert [row for first, end in cut for row in range(first, end)] == list(range(height))
    assert all((end - first) * width <= max(strips.PIECE, width) for first, end in cut)


def test_threads_share_the_work_keep_its_order_and_leave_torch_as_it_was(two_threads: object) -> None:
    both = threading.Barrier(2, timeout=20)
    seen = []

    def work(item: int) -> int:
        both.wait()  # passed only where two work at once
        seen.append(torch.get_num_threads())
        return item * item

    assert strips.on_threads(work, range(6), CPU) == [0, 1, 4, 9, 16, 25]
    assert seen == [1] * 6
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [2, 2]


def test_an_error_in_a_thread_comes_out(two_threads: object) -> None:
    with pytest.raises(ZeroDivisionError):
        strips.on_threads(lambda item: 1 // item, [1, 0, 2], CPU)
    assert torch.get_num_threads() == 2
