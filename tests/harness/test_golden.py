"""The audit must pass on what the reference computed, and must see every fault that is put in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from atoken import attention, positions, quantizer, streaming, transformer
from atoken.assets.cameras import camera_from_opengl
from atoken.assets.voxels import occupied_by_points, unprojected
from atoken.config import ATokenConfig
from atoken.pooling import PoolingHead, pooling_segments
from atoken.tiles import plan_raster
from atoken.transformer import Block, HeadNorm
from harness import golden_views
from harness.errors import BenchError
from harness.golden import SHIPPED, Row, audit_golden, run_golden

LIMIT_BYTES = 6_000_000


def test_the_shipped_cases_pass() -> None:
    rows = run_golden(None)
    assert {row.verdict for row in rows} == {"ok"}
    assert {row.case for row in rows} == {path.stem for path in SHIPPED.glob("*.safetensors")}


def test_the_shipped_cases_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < LIMIT_BYTES


def test_every_reference_case_passes(shared: Path) -> None:
    rows = run_golden(shared / "reference" / "golden")
    assert not [row for row in rows if row.verdict == "FAIL"]
    built = {row.case.split("_")[0] for row in rows if row.verdict == "ok"}
    assert built == {"a1", "a", "b", "c", "de", "f", "g", "h", "i", "j", "k", "l", "n"}
    # Not judged, and only here: an item ends before another's last window.
    assert [(row.case, row.output) for row in rows if row.verdict == "no target"] == [
        ("f_mixed", "kv4_stride4/rec_feats"),
        ("f_mixed", "stream/kv4_stride4/rec_feats"),
    ]
    streams = {(row.case, row.output) for row in rows if row.output.startswith("stream/") and row.verdict == "ok"}
    for case, output in (
        *((name, key) for name in ("c_video8", "de_video40", "f_mixed") for key in ("mean", "logvar", "rec_feats")),
        *(("c_video8", "kv4_stride4/rec_feats"), ("de_video40", "kv4_stride12/rec_feats"), ("f_mixed", "pixels_1")),
        *(("c_video8", "pixels_0"), ("de_video40", "pixels_0_first4"), ("de_video40", "pixels_0_last4")),
    ):
        assert (case, f"stream/{output}") in streams
    compared = {row.output for row in rows if row.case == "a_image"}
    assert {f"dbg/{half}/block_1_attn" for half in ("encoder", "decoder")} <= compared


def test_half_precision_has_tolerances_of_its_own() -> None:
    rows = run_golden(None, dtype="bfloat16")
    assert not [row for row in rows if row.verdict == "FAIL"]
    assert max(row.max_abs_diff or 0 for row in rows if row.case == "g_fsq") > 1e-3


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_passes_too(dtype: str) -> None:
    assert not [row for row in run_golden(None, device="cuda", dtype=dtype) if row.verdict == "FAIL"]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A folder with the FSQ network alone."""
    (tmp_path / "g.safetensors").write_bytes((SHIPPED / "g_fsq.safetensors").read_bytes())
    return tmp_path


def failing(folder: Path) -> list[Row]:
    return [row for row in run_golden(folder) if row.verdict == "FAIL"]


def edited(folder: Path, **changes: object) -> None:
    """Rewrite the case: a header entry (str), or a tensor by its key with / for __ (a function, or None to drop)."""
    path = folder / "g.safetensors"
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, change in changes.items():
        name = key.replace("__", "/")
        if isinstance(change, str):
            header[name] = change
        elif change is None:
            header.pop(name, None)
            tensors.pop(name, None)
        else:
            tensors[name] = change(tensors.get(name))
    save_file(tensors, path, header)


Mutation = Callable[[pytest.MonkeyPatch], None]


def _interpolation(**changed: object) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        usual = positions.interpolate
        patch.setattr(positions, "interpolate", lambda image, **given: usual(image, **given | changed))

    return mutate


def _tables(frequencies: Callable[[int], torch.Tensor]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        # The table itself is cached for good: build it anew, and only here.
        def table(coords: torch.Tensor, head_dim: int) -> torch.Tensor:
            angles = coords[..., None].float() * frequencies(head_dim)
            return torch.polar(torch.ones_like(angles), angles).flatten(1)

        patch.setattr(transformer, "rotary_table", table)

    return mutate


def _gelu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.nn.GELU, "forward", lambda self, x: torch.nn.functional.gelu(x))


def _scale(patch: pytest.MonkeyPatch) -> None:
    usual = attention.scaled_dot_product_attention
    patch.setattr(attention, "scaled_dot_product_attention", lambda q, k, v: usual(q, k, v, scale=1.0))


def _no_residual(patch: pytest.MonkeyPatch) -> None:
    def forward(self: PoolingHead, x: torch.Tensor, lengths: list[int], _: object = None) -> torch.Tensor:
        segments = pooling_segments(lengths, x.device, x.dtype)
        pooled: torch.Tensor = self.mlp(self.layernorm(self.attention(self.probe, x, segments)))
        return pooled

    patch.setattr(PoolingHead, "forward", forward)


MUTATIONS: dict[str, Mutation] = {
    "GELU by erf": _gelu,
    "norms with eps 1e-5": lambda patch: patch.setattr(transformer, "NORM_EPS", 1e-5),
    "positions without antialias": _interpolation(antialias=False),
    "positions with aligned corners": _interpolation(align_corners=True),
    "usual RoPE exponents": _tables(lambda d: 10000.0 ** -(torch.arange(d // 8) / (d // 8))),
    "RoPE axes in another order": lambda patch: patch.setattr(
        transformer, "rotary_table", lambda coords, d: positions.rotary_table(coords.flip(1), d)
    ),
    "attention without its scale": _scale,
    "tiles of another length": lambda patch: patch.setattr(ATokenConfig, "tile_steps", property(lambda self: 3)),
    "pooling without its residual": _no_residual,
    "FSQ without the 1e-3": lambda patch: patch.setattr(quantizer, "EPS", 0.0),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_shipped_cases_catch_a_wrong_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    failed = failing(SHIPPED)
    assert failed
    assert all("schema" not in row.note for row in failed)


@pytest.mark.parametrize(
    ("name", "wrong", "outputs"),
    [
        (
            "unprojected",
            lambda depth, cameras, corner: unprojected(depth, cameras),
            {"surface_points_first256", "coords"},
        ),
        ("occupied_by_points", lambda points, n: occupied_by_points(points * 1.01, n), {"coords"}),
        ("camera_from_opengl", lambda matrix, fov: camera_from_opengl(matrix, fov * 1.001), {"intrinsics"}),
        ("PATCH", 32, {"view_row_col"}),
    ],
)
def test_the_shipped_case_of_views_catches_a_wrong_formula(
    name: str, wrong: object, outputs: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "n.safetensors").write_bytes((SHIPPED / "n_multiview.safetensors").read_bytes())
    monkeypatch.setattr(golden_views, name, wrong)
    assert outputs <= {row.output for row in failing(tmp_path)}


def test_views_in_another_paint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    with safe_open(SHIPPED / "n_multiview.safetensors", "pt") as file:
        header, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, header | {"image_formula": "row + col"})
    (row,) = run_golden(tmp_path)
    assert row.verdict == "FAIL"
    assert "painted" in row.note


def test_a_gain_of_one_in_ten_thousand_fails(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = HeadNorm.forward
    monkeypatch.setattr(HeadNorm, "forward", lambda self, x: usual(self, x) * 1.0001)
    failed = {row.output for row in failing(part)}
    assert failed == {"rec_feats", "pixels_1", "stream/rec_feats", "stream/pixels_1"}


def test_a_skipped_block_fails(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "forward", lambda self, x, context, carry=None: x)
    failed = {row.output for row in failing(part)}
    assert {"x_no_proj", "image_feat", "mean", "kl_per_token", "indices", "rec_feats"} <= failed


def test_a_fault_of_streams_alone_shows_in_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = streaming._windows
    monkeypatch.setattr(streaming, "_windows", lambda model, parts, steps: usual(model, parts, steps - 1))
    assert {row.output for row in failing(SHIPPED)} == {"stream/pixels_0_first4", "stream/pixels_0_last4"}


def test_carried_keys_that_are_lost_show(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "de_video40.safetensors"
    (tmp_path / name).write_bytes((shared / "reference" / "golden" / name).read_bytes())
    lost = {"held": 0, "keep": 0}
    monkeypatch.setattr(streaming, "plan_raster", lambda grid, **rest: plan_raster(grid, **(rest | lost)))
    assert {row.output for row in failing(tmp_path)} == {"stream/kv4_stride12/rec_feats"}


def test_nan_fails(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "forward", lambda self, x, context, carry=None: x * float("nan"))
    assert "x_no_proj" in {row.output for row in failing(part)}


def test_one_changed_value_fails(part: Path) -> None:
    def nudge(mean: torch.Tensor) -> torch.Tensor:
        mean[3, 5] += 3e-5
        return mean

    edited(part, out__mean=nudge)
    at_once, stream = failing(part)
    assert (at_once.output, stream.output) == ("mean", "stream/mean")
    assert at_once.max_abs_diff == pytest.approx(3e-5, rel=0.2)


def test_indices_are_exact_except_on_a_border(part: Path) -> None:
    def flipped(indices: torch.Tensor) -> torch.Tensor:
        indices[2, 1] ^= 1
        return indices

    edited(part, out__indices=flipped)
    assert "indices" in {row.output for row in failing(part)}

    def on_border(margin: torch.Tensor) -> torch.Tensor:
        margin[2, 6] = 1e-6  # codebook 1 owns channels 6..11
        return margin

    edited(part, out__fsq_rounding_margin=on_border)
    rows = {row.output: row for row in run_golden(part)}
    assert rows["indices"].verdict == "ok"
    assert rows["indices"].note == "1 of 192 lie on a rounding border"
    # The margin itself is compared too, so that a file cannot excuse what it likes.
    assert rows["fsq_rounding_margin"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out__surprise": lambda _: torch.zeros(3)}, "knows no such output"),
        ({"out__mean": lambda mean: mean[1:].clone()}, "[24, 48] instead of [23, 48]"),
        ({"arch_cfg": None}, "unknown kind of case: g"),
        ({"in__raw_0": None}, "does not follow the schema"),
        ({"base_config": "x", "weights__proj.weight": None}, "1 missing: proj.weight"),
    ],
)
def test_a_file_that_breaks_the_schema_fails_with_words(part: Path, changes: dict[str, object], words: str) -> None:
    edited(part, **changes)
    assert words in " ".join(row.note for row in failing(part))


def test_an_unsupported_architecture_is_named(part: Path) -> None:
    with safe_open(part / "g.safetensors", "pt") as file:
        arch = file.metadata()["arch_cfg"]
    edited(part, arch_cfg=arch.replace('"decoder_use_bias": false', '"decoder_use_bias": true'))
    assert "decoder_use_bias = True" in failing(part)[0].note


def test_a_truncated_file_fails_and_the_others_run(part: Path) -> None:
    (part / "a.safetensors").write_bytes((part / "g.safetensors").read_bytes()[:5000])
    rows = run_golden(part)
    assert [row.case for row in rows if row.verdict == "FAIL"] == ["a"]
    assert sum(row.verdict == "ok" for row in rows) > 10


def test_it_reads_headers_not_names(part: Path) -> None:
    (part / "g.safetensors").rename(part / "i_rope.safetensors")
    assert not failing(part)


def test_the_table_names_everything_and_the_exit_code_tells(part: Path) -> None:
    lines: list[str] = []
    assert audit_golden(part, "cpu", "float32", lines.append) == 0
    text = "\n".join(lines)
    for word in ("image_feat_raw", "kl_per_token", "1.0e-04", "2.0e-05", "ok"):
        assert word in text
    assert lines[-1] == "1 case: 19 ok"
    edited(part, out__mean=lambda mean: mean + 1)
    assert audit_golden(part, "cpu", "float32", lines.append) == 1
    assert "FAIL" in lines[-1]


def test_what_cannot_be_audited_is_said(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        run_golden(tmp_path / "gone")
    with pytest.raises(BenchError, match="holds no golden case"):
        run_golden(tmp_path)
    with pytest.raises(BenchError, match="dtype 'float99'"):
        run_golden(None, dtype="float99")
    with pytest.raises(BenchError, match="device 'nowhere'"):
        run_golden(None, device="nowhere")
