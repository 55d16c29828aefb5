"""Sets of Gaussians, and their PLY files beside an independent reader and writer of PLY."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atoken.assets.gaussian_files import load_ply, save_ply
from atoken.assets.gaussians import Gaussians
from atoken.errors import InputError
from atoken.files import WriteError

PARTS = ("means", "features_dc", "log_scales", "quaternions", "opacity_logits")
FIELDS = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
FIELDS += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def some(count: int = 5, seed: int = 0) -> Gaussians:
    torch.manual_seed(seed)
    shapes = ((count, 3), (count, 3), (count, 3), (count, 4), (count,))
    return Gaussians(*(torch.randn(shape) for shape in shapes))


def same(a: Gaussians, b: Gaussians) -> bool:
    """Equal to the last bit: also -0.0 and 0.0 differ."""
    return all(getattr(a, name).numpy().tobytes() == getattr(b, name).numpy().tobytes() for name in PARTS)


def write(path: Path, header: str, values: bytes = b"") -> Path:
    path.write_bytes(header.encode() + values)
    return path


def header(count: object, fields: list[str] = FIELDS, kind: str = "binary_little_endian") -> str:
    properties = "".join(f"property float {name}\n" for name in fields)
    return f"ply\nformat {kind} 1.0\nelement vertex {count}\n{properties}end_header\n"


def test_activations() -> None:
    set_ = Gaussians.of(
        means=torch.zeros(2, 3),
        features_dc=torch.tensor([[0.0, 1.0, -9.0], [9.0, 0.0, 0.0]]),
        scales=torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]),
        rotations=torch.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 4.0]]),
        opacities=torch.tensor([0.25, 0.999]),
    )
    torch.testing.assert_close(set_.scales, torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]))
    torch.testing.assert_close(set_.rotations, torch.tensor([[1.0, 0, 0, 0], [0, 0.6, 0, 0.8]]))
    torch.testing.assert_close(set_.opacities, torch.tensor([0.25, 0.999]))
    # 1 / (2 sqrt(pi)); below 0 is cut off, above 1 is not.
    harmonic = 0.5 / math.sqrt(math.pi)
    torch.testing.assert_close(set_.colours, torch.tensor([[0.5, 0.5 + harmonic, 0.0], [0.5 + 9 * harmonic, 0.5, 0.5]]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scales", torch.tensor([[1.0, 0.0, 1.0]]), "scales must be above 0, got 0"),
        ("scales", torch.tensor([[1.0, math.nan, 1.0]]), "scales must be above 0, got nan"),
        ("opacities", torch.tensor([1.0]), "strictly between 0 and 1"),
        ("opacities", torch.tensor([0.0]), "strictly between 0 and 1"),
        ("rotations", torch.zeros(1, 3), r"quaternions must be \['N', 4\], got \[1, 3\]"),
        ("features_dc", torch.zeros(2, 3), r"features_dc must be \['N', 3\], got \[2, 3\] \(N = 1\)"),
        ("features_dc", torch.zeros(1, 3, dtype=torch.int64), "one floating dtype"),
        ("features_dc", torch.zeros(1, 3, dtype=torch.float64), "one floating dtype"),
    ],
)
def test_what_is_no_gaussian_is_refused(name: str, value: torch.Tensor, said: str) -> None:
    parts = {
        "means": torch.zeros(1, 3),
        "features_dc": torch.zeros(1, 3),
        "scales": torch.ones(1, 3),
        "rotations": torch.ones(1, 4),
        "opacities": torch.full((1,), 0.5),
    }
    with pytest.raises(InputError, match=said):
        Gaussians.of(**parts | {name: value})


def test_cat_and_some_of_a_set() -> None:
    a, b = some(3), some(4, seed=1)
    both = Gaussians.cat([a, b])
    assert len(both) == 7
    assert same(both[:3], a)
    assert same(both[torch.arange(3, 7)], b)
    assert same(both[torch.tensor([False] * 3 + [True] * 4)], b)
    with pytest.raises(InputError, match="at least one part"):
        Gaussians.cat([])
    with pytest.raises(InputError, match=r"differ in dtype or device.*float64"):
        Gaussians.cat([a, b.to(dtype=torch.float64)])


def test_gradients_flow_through_to() -> None:
    parts = [getattr(some(), name).requires_grad_() for name in PARTS]
    moved = Gaussians(*parts).to("cpu", torch.float64)
    assert moved.means.dtype == torch.float64
    (moved.scales.sum() + moved.opacities.sum()).backward()
    assert parts[2].grad is not None
    assert parts[4].grad is not None


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
turning = st.floats(0.0009765625, 1e6, width=32)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(np.float32, st.tuples(st.integers(0, 5), st.just(10)), elements=finite),
    arrays(np.float32, (5, 4), elements=turning),
)
def test_a_set_comes_back_from_a_file_to_the_last_bit(tmp_path: Path, values: np.ndarray, turns: np.ndarray) -> None:
    columns = torch.from_numpy(values)
    set_ = Gaussians(
        columns[:, :3], columns[:, 3:6], columns[:, 6:9], torch.from_numpy(turns)[: len(values)], columns[:, 9]
    )
    save_ply(set_, tmp_path / "a.ply")
    back = load_ply(tmp_path / "a.ply")
    assert same(set_, back)
    save_ply(back, tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_other_readers_find_what_3dgs_puts_where(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile", reason="plyfile, an independent reader, is not installed")
    set_ = some(7)
    save_ply(set_, tmp_path / "a.ply")
    data = plyfile.PlyData.read(tmp_path / "a.ply")
    assert [element.name for element in data.elements] == ["vertex"]
    assert not data.text
    assert data.byte_order == "<"
    vertex = data["vertex"]
    assert [p.name for p in vertex.properties] == FIELDS
    assert {p.val_dtype for p in vertex.properties} == {"f4"}
    for i, name in enumerate("xyz"):
        assert np.array_equal(vertex[name], set_.means[:, i].numpy())
        assert not vertex[f"n{name}"].any()
        assert np.array_equal(vertex[f"f_dc_{i}"], set_.features_dc[:, i].numpy())
        np.testing.assert_allclose(np.exp(vertex[f"scale_{i}"]), set_.scales[:, i], rtol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-vertex["opacity"])), set_.opacities, rtol=1e-6)
    turns = np.stack([vertex[f"rot_{i}"] for i in range(4)], axis=1)
    np.testing.assert_allclose(turns / np.linalg.norm(turns, axis=1, keepdims=True), set_.rotations, rtol=1e-5)


@pytest.mark.parametrize("fields", [FIELDS[::-1], [name for name in FIELDS if name not in ("nx", "ny", "nz")]])
def test_files_of_other_writers_are_read(tmp_path: Path, fields: list[str]) -> None:
    plyfile = pytest.importorskip("plyfile", reason="plyfile, an independent writer, is not installed")
    random = np.random.default_rng(0)
    rows = np.zeros(6, [(name, "<f4") for name in fields])
    for name in fields:
        rows[name] = random.normal(size=6)
    vertex = plyfile.PlyElement.describe(rows, "vertex")
    plyfile.PlyData([vertex], byte_order="<", comments=["made elsewhere"]).write(tmp_path / "theirs.ply")
    set_ = load_ply(tmp_path / "theirs.ply")
    assert np.array_equal(set_.means[:, 1].numpy(), rows["y"])
    assert np.array_equal(set_.quaternions[:, 3].numpy(), rows["rot_3"])
    assert np.array_equal(set_.log_scales[:, 2].numpy(), rows["scale_2"])
    assert np.array_equal(set_.features_dc[:, 0].numpy(), rows["f_dc_0"])
    assert np.array_equal(set_.opacity_logits.numpy(), rows["opacity"])


ROW = np.ones(17, "<f4").tobytes()


@pytest.mark.parametrize(
    ("header_", "values", "said"),
    [
        ("", b"", "not a PLY file"),
        ("ply\n", b"", "broken PLY header at ''"),
        ("ply\nformat binary_little_endian 1.0\n" + "comment x\n" * 2000, b"", "no end within"),
        ("ply\ncomment " + "x" * 10000 + "\n", b"", "broken PLY header"),
        (header(1, kind="ascii"), b"1 " * 17, r"binary little endian PLY 1\.0 only, not 'format ascii 1\.0'"),
        (header(1, kind="binary_big_endian"), ROW, "not 'format binary_big_endian"),
        (header(2), ROW, r"announces 2 Gaussians, which makes \d+ bytes, but the file has \d+"),
        (header(1), ROW[:-1], "announces 1 Gaussians"),
        (header(1), ROW + b"x", "announces 1 Gaussians"),
        (header(10**17), ROW, "announces 1" + "0" * 17),
        (header(10**30), ROW, "one element, 'element vertex N'"),
        (header(-1), ROW, "not element vertex -1"),
        (header("1.0"), ROW, "one element"),
        (header("³"), ROW, "one element"),
        (header(1, ["x", "y", "z"]), ROW, r"lacks f_dc_0, .*rot_3 \(a mesh or a point cloud"),
        (header(1, [*FIELDS, "f_rest_0", "f_rest_1"]), ROW, r"depend on the view \(2 fields f_rest_\*\)"),
        (header(1, [*FIELDS, "segment"]), ROW, "unknown or repeated fields segment"),
        (header(1, [*FIELDS, "x"]), ROW, "unknown or repeated fields x"),
        (header(1).replace("float opacity", "double opacity"), ROW, "are float, not 'property double opacity'"),
        (header(1).replace("end_", "element face 2\nproperty list uchar int i\nend_"), ROW, "a mesh is no splat"),
        (header(1), np.full(17, np.nan, "<f4").tobytes(), r"means is NaN or infinite in 1 of 1"),
        (header(1), np.full(17, np.inf, "<f4").tobytes(), r"means is NaN or infinite in 1 of 1"),
        (header(1), np.zeros(17, "<f4").tobytes(), "the quaternion is shorter"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, header_: str, values: bytes, said: str) -> None:
    path = write(tmp_path / "bad.ply", header_, values)
    with pytest.raises(InputError, match=rf"(?s)bad\.ply: .*{said}") as caught:
        load_ply(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.ply: No such file"):
        load_ply(tmp_path / "none.ply")
    with pytest.raises(InputError, match="directory"):
        load_ply(tmp_path)


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ply", header(1).replace("\n", "\r\n"), ROW)
    assert len(load_ply(path)) == 1


def test_what_cannot_be_stored_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    save_ply(some(2), path)
    before = path.read_bytes()
    bad = some(3)
    bad.features_dc[1, 2] = torch.nan
    with pytest.raises(InputError, match=r"features_dc is NaN or infinite in 1 of 3 \(the first is number 1\)"):
        save_ply(bad, path)
    with pytest.raises(InputError, match="means is NaN or infinite"):  # 1e300 is infinite in float32
        save_ply(Gaussians(*(1e300 * getattr(some(1), name).double() for name in PARTS)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="nothing was written"):
        save_ply(some(1), tmp_path / "file" / "a.ply")
