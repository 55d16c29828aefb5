"""Packed attention against a dense, masked reference; positions; compiled blocks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from atoken import attention
from atoken.attention import Segments, attend
from atoken.patches import pack_pixels
from atoken.positions import LearnedPositions, rotary_table, rotate
from atoken.tiles import plan_tiles

CPU = torch.device("cpu")


def dense(q, k, v, queries, keys):
    owner_q = torch.repeat_interleave(torch.arange(len(queries)), torch.tensor(queries))
    owner_k = torch.repeat_interleave(torch.arange(len(keys)), torch.tensor(keys))
    scores = torch.einsum("lhd,mhd->hlm", q.double(), k.double()) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(owner_q[:, None] != owner_k, -torch.inf)
    return torch.einsum("hlm,mhd->lhd", scores.softmax(-1), v.double()).float()


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_segments_see_only_themselves(lengths):
    queries, keys = [q for q, _ in lengths], [k for _, k in lengths]
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(sum(queries), 2, 8, generator=generator)
    k, v = torch.randn(2, sum(keys), 2, 8, generator=generator)
    segments = Segments.of(queries, keys, device=CPU, dtype=torch.float32)
    assert sum(count for count, _, _ in segments.runs) == len(lengths)
    assert segments.cumulative_keys[-1] == sum(keys)
    torch.testing.assert_close(attend(q, k, v, segments), dense(q, k, v, queries, keys), rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(sizes=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)), scores=st.integers(1, 500))
def test_pieces_of_queries_give_the_same(sizes, scores):
    count, queries, keys = sizes
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(count * queries, 2, 8, generator=generator)
    k, v = torch.randn(2, count * keys, 2, 8, generator=generator)
    segments = Segments.of([queries] * count, [keys] * count, device=CPU, dtype=torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SCORES", scores)
        got = attend(q, k, v, replace(segments, fused=False))
    torch.testing.assert_close(got, attend(q, k, v, segments), rtol=0, atol=1e-6)


def test_where_no_fused_kernel_is_known_queries_go_in_pieces():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert Segments.of([4], device=CPU, dtype=dtype).fused
    assert not attention._fused(torch.device("mps"), torch.float32)
    with sdpa_kernel(SDPBackend.MATH):
        attention._fused.cache_clear()
        assert not Segments.of([4], device=CPU, dtype=torch.float32).fused
    attention._fused.cache_clear()


LONG = """
import resource, sys, torch
from atoken import attention
from atoken.config import TransformerConfig
from atoken.tiles import plan_raster
from atoken.transformer import Context, Decoder, Encoder
torch.set_num_threads(1)
kind, half = sys.argv[1:]
if kind == "pieces":
    attention._fused = lambda device, dtype: False
config = TransformerConfig(width=72, blocks=1, heads=1, mlp=8)
stack = Encoder(config, 8) if half == "encoder" else Decoder(config, 8, 8)
tiles, merge = plan_raster((4, 64, 64), device=torch.device("cpu"), dtype=torch.float32)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
rest = () if half == "encoder" else (None,)
run = lambda n: stack.run(torch.randn(n, 8), tiles, Context.of(tiles, 72), *rest)
before = peak()
with torch.set_grad_enabled(kind == "grad"):
    out = run(4 * 64 * 64)
if kind == "grad":
    out.sum().backward()
print(peak() - before)
"""


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", ["plain", "grad", "pieces"])
def test_scores_are_never_held_whole(kind, half):
    # 16,384 tokens: their scores take 1024 MiB; everything else a tenth of it, the pieces a quarter.
    command = [sys.executable, "-c", LONG, kind, half]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450


def test_equal_neighbours_share_a_call():
    segments = Segments.of([4, 4, 4, 7, 4], device=CPU, dtype=torch.float32)
    assert segments.runs == ((3, 4, 4), (1, 7, 7), (1, 4, 4))
    assert segments.kernel is None


@pytest.mark.parametrize(
    ("dtype", "autocast", "packed"),
    [
        (torch.float32, None, False),
        (torch.bfloat16, None, True),
        (torch.float16, None, True),
        (torch.float32, torch.bfloat16, True),
    ],
)
def test_the_packed_kernel_is_for_half_precision_on_cuda(monkeypatch, dtype, autocast, packed):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    # Without a device autocast refuses to be on.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: autocast is not None and device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: autocast)
    if packed and attention._varlen_kernel() is None:
        pytest.skip("this torch has no packed kernel, and flash-attn is not installed")
    monkeypatch.setattr(attention, "_cumulative", lambda *_: torch.empty(0))
    monkeypatch.setattr(attention, "_fused", lambda *_: True)
    kernel = Segments.of([1], device=torch.device("cuda"), dtype=dtype).kernel
    assert (kernel is not None) == packed
    assert attention._packed_kernel(CPU, dtype) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert attention._packed_kernel(torch.device("cuda"), dtype) is None


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_cuda_agrees_with_the_cpu(tiny, noise, dtype, tolerance):
    items = [noise(40, 48), noise(21, 32, 32), noise(16, 16)]
    model = deepcopy(tiny).to("cuda", dtype)
    want, got = tiny.encode(items), model.encode(items)
    torch.testing.assert_close(got.mean.features.cpu(), want.mean.features, rtol=0, atol=tolerance)
    for windows in ({}, {"stride_frames": 12, "cache_frames": 4}):
        pairs = zip(model.decode_pixels(want, **windows), tiny.decode_pixels(want, **windows), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a.cpu(), b, rtol=0, atol=tolerance)
    torch.testing.assert_close(model.embed(items).cpu(), tiny.embed(items), rtol=0, atol=tolerance)
    alone = model.encode(items[1:2]).mean.features
    torch.testing.assert_close(got.split()[1].mean.features, alone, rtol=0, atol=tolerance)


def test_rotation_is_relative_and_keeps_norms():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 5, 2, 72, generator=generator)
    coords = torch.randint(0, 30, (2, 5, 4), generator=generator)

    def scores(shift):
        tables = [rotary_table(c + shift, 72) for c in coords]
        return torch.einsum("lhd,mhd->hlm", rotate(q, tables[0]), rotate(k, tables[1]))

    torch.testing.assert_close(scores(0), scores(40), rtol=0, atol=2e-4)
    torch.testing.assert_close(rotate(q, rotary_table(coords[0], 72)).norm(), q.norm())
    assert rotate(q.bfloat16(), rotary_table(coords[0], 72)).dtype == torch.float32


def test_cached_grids_follow_the_weights(noise):
    embedder = LearnedPositions(8)
    tiles = plan_tiles(pack_pixels([noise(40, 80), noise(20, 20)]), 4)
    for write in (
        lambda w: w.normal_(),
        lambda w: w.data.add_(1),  # an optimiser may go behind autograd's version counter
        lambda w: w.data.copy_(torch.randn(256, 8)),
    ):
        with torch.no_grad():
            write(embedder.position_embedding.weight)
        fresh = embedder(tiles)
        assert fresh.requires_grad
        with torch.inference_mode():
            assert torch.equal(embedder(tiles), fresh)
            assert torch.equal(embedder(tiles), fresh)
    with torch.no_grad():
        for side in range(1, 60):
            embedder(plan_tiles(pack_pixels([noise(16 * side, 16)]), 4))
    assert len(embedder._grids) <= 32


def test_tables_made_under_inference_can_train(tiny, noise):
    tokens = pack_pixels([noise(16, 48)])
    with torch.inference_mode():
        tiny.forward_encoder(tokens)
    _, moments = tiny.forward_encoder(tokens)
    moments.sum().backward()
    tiny.zero_grad(set_to_none=True)


def test_blocks_are_one_graph_whatever_the_layout(tiny, noise):
    traced = deepcopy(tiny)
    for block in [*traced.encoder.blocks[:1], *traced.decoder.blocks[:1]]:
        block.compile(fullgraph=True, backend="eager")
    for items in ([noise(32, 32)], [noise(48, 32)], [noise(48, 32), noise(20, 16, 16)]):
        assert_same_results(traced, tiny, items)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_blocks_compile(tiny, noise):
    compiled = deepcopy(tiny)
    compiled.decoder.blocks[0].compile(fullgraph=True)
    assert_same_results(compiled, tiny, [noise(32, 48)])


def assert_same_results(model, reference, items):
    got, want = model.encode(items), reference.encode(items)
    torch.testing.assert_close(got.mean.features, want.mean.features, rtol=0, atol=2e-5)
    for a, b in zip(model.decode_pixels(got), reference.decode_pixels(want), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
