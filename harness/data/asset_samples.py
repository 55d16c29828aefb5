"""The models that every installation has: 24 pieces of furniture, in ``assets/furniture.zip`` beside this file.

Taken from the library "Blend Swap CC-0" of furniture for Sweet Home 3D, all of it dedicated to the public domain by
its authors (CC0 1.0). Each model's folder is byte for byte the library's,
with its licence file where it has one; nothing is reduced. The library's catalogue numbers its models: those whose
number divides by 5 are kept from training in this project, and all of these are among them, so that no model trained
here has seen them. Left out of those 35: two umbrellas and tables too many, and a telephone that shows trademarks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.data.assets import AssetDataset, ModelMember
from harness.data.base import Sample
from harness.data.catalog import DatasetEntry
from harness.data.fingerprint import content_sha256
from harness.data.stores import UnreadableError, ZipStore
from harness.errors import BenchError

ARCHIVE = Path(__file__).parent / "assets" / "furniture.zip"


@dataclass(frozen=True, slots=True)
class SampleModel:
    """One model.

    Attributes:
        id: category and folder in the archive.
        subject: what it shows.
        author: who made it, as the library's catalogue says.
        number: in that catalogue.
        sha256: of the folder's files, as `content_sha256` of their names and hashes.
    """

    id: str
    subject: str
    author: str
    number: int
    sha256: str

    @property
    def category(self) -> str:
        """The catalogue's, which says where such a piece stands, not what it is: a biplane lies in the bedroom."""
        return self.id.partition("/")[0]

    @property
    def file(self) -> str:
        """The model's own file in the archive."""
        return f"{self.id}/{PurePosixPath(self.id).name}.obj"


MODELS = (
    SampleModel(
        "bathroom/shower",
        "Shower head and faucet",
        "Wfg5001",
        40,
        "508e165c75d72d56fd383e83cfa0c0d4e36416a69e4dd6af7dc08c75cb1120e3",
    ),
    SampleModel(
        "bathroom/toiletBrush",
        "Toilet brush",
        "Nhumrod",
        55,
        "d0f3b8abfd6bc21b5b0d8a97b59cbcc9cddb8915dea38d00b33503f954373eb0",
    ),
    SampleModel(
        "bedroom/bedWithTexture",
        "Bed",
        "Nhumrod",
        5,
        "c733eeab28f9d290339110000cbe5e435ac5a8b06d352e8ea744f5a340d7ce30",
    ),
    SampleModel(
        "bedroom/cartoon_biplane",
        "Biplane",
        "Robo3dguy",
        10,
        "598f7bd13c3fe745b4f21a154a476356d73dd355a75185771f33121c084ce3b3",
    ),
    SampleModel(
        "bedroom/handbag",
        "Handbag",
        "Ulanbek",
        120,
        "cfcc5e50e3176c5c18cabf929220668ec266044d2fb410bc49c1d8b87ab8a11f",
    ),
    SampleModel(
        "bedroom/slippers",
        "Slippers",
        "Mik1190",
        85,
        "af2e1a2f948e494cd588a790c8983209eb8c0d7bd5f7aa1a80373d13f6cd02ec",
    ),
    SampleModel(
        "bedroom/woodToy",
        "Wood toy",
        "Miroljub",
        175,
        "b653d6325ffa589cc0ee24c99f7df423340a843e0b450a4ef929041b0b0c89aa",
    ),
    SampleModel(
        "exterior/childSwing",
        "Child swing",
        "Ulanbek",
        110,
        "9bceba3af5342157e2963cc13b8859edd388730ca7318d947b11f497335d2689",
    ),
    SampleModel(
        "exterior/deckChair",
        "Deck chair",
        "BigMouse",
        65,
        "775532d5fc8e9036d8b4a5635bd09bc2bb518c19138856909b737ea81a153c3d",
    ),
    SampleModel(
        "exterior/lantern",
        "Stone lantern",
        "CerFriBar",
        150,
        "af79737c272cc769c3bc32abc0fc49dc426736ef1a3eea11070f9c7c265176d8",
    ),
    SampleModel(
        "exterior/mofx_mailbox",
        "Mailbox",
        "Mofx",
        25,
        "cd28d34bbf01eeff815af955637e91bda7154a27b6ca70113eacaca92f91dee5",
    ),
    SampleModel(
        "exterior/umbrella",
        "Umbrella",
        "BigMouse",
        60,
        "5556da56a7f7335d8ce7ce74e0c5b6e13c304c295d9a6ae4bbf8c9b8b6e2344b",
    ),
    SampleModel(
        "kitchen/bread",
        "Bread",
        "Yd",
        90,
        "c363c7a0e78b2966c644079d4b2018f455b4c8434b16ff15e0142eaacb940e1c",
    ),
    SampleModel(
        "kitchen/knifeStandSwap",
        "Knife stand",
        "PrinterKiller",
        20,
        "d866832ab9aa77b62d1513db23a37ce9260a5040014ac6c24527ba038cbd9c8f",
    ),
    SampleModel(
        "kitchen/sinkCabinet",
        "Sink cabinet",
        "Vladoffsky",
        165,
        "9eb837098e2b019fe1a940a5cc089a8d6a438f1b1822d72f4ea139dfc12912da",
    ),
    SampleModel(
        "kitchen/stool",
        "Stool",
        "Redsymbzone",
        45,
        "ce84e5d80bcac21ea10f7fd87cc2f3de1d43cb7072236875504c7deb94d6290e",
    ),
    SampleModel(
        "lights/desklamp",
        "Desk lamp",
        "ColdShiverGames",
        15,
        "10c66ac7245392b76295f23ee252aec2482f0b3742f7a64e8bc100e4546611c8",
    ),
    SampleModel(
        "lights/outdoorLamp",
        "Outdoor lamp",
        "Mindfront",
        155,
        "72f89f1e6e0a2953d9e41a2e8d94430dcf8b2e4a1efefc1475908d0b3cf9521c",
    ),
    SampleModel(
        "living-room/couch",
        "Couch",
        "TowerCG",
        95,
        "908bbf9398afc8d4cd6c60a02f085aef4971a783f1e70e4a611c11c92500df28",
    ),
    SampleModel(
        "living-room/osakaChair",
        "Osaka chair",
        "Daniliescudsg",
        125,
        "cd2ab219510c82eba802fbf0111593e69ef1602e992a0624f30fbaede89a0529",
    ),
    SampleModel(
        "living-room/pianoAQueue",
        "Grand piano",
        "Dante",
        30,
        "735375a2cc49b8379316329058703e749a583500b618758a8bccd561913777ec",
    ),
    SampleModel(
        "miscellaneous/tatami",
        "Tatami",
        "Argonius",
        170,
        "b0d72c350cf845b826921ad59c5850ba3ecce122efd63a5dc03782686e97e97e",
    ),
    SampleModel(
        "office/desk",
        "Desk",
        "Razi",
        75,
        "a2a1576757ea0d582cb8bf7f59b184483772063b86de08113a0c25a3ca509702",
    ),
    SampleModel(
        "office/dustbin",
        "Dustbin",
        "Ndakasha",
        115,
        "39c7ced0b68121d3a20e80a9d9f07c9c92114eac9fd9a21211dd751cdc7e780e",
    ),
)

CATEGORIES = tuple(sorted({model.category for model in MODELS}))


def open_samples(entry: DatasetEntry) -> AssetDataset:
    """The models above, each checked against its hash; the catalogue's categories are their classes.

    Raises:
        BenchError: the installation's archive is missing or holds other files.
    """
    store = ZipStore(ARCHIVE)
    for model in MODELS:
        found = _sha256(store, model.id)
        if found != model.sha256:
            raise BenchError(
                f"samples: {model.id} in {ARCHIVE} is not the one that figures are compared on ({found}); "
                "install atoken anew"
            )
    label = {category: place for place, category in enumerate(CATEGORIES)}
    members = [ModelMember(Sample(model.id, label[model.category]), model.file) for model in MODELS]
    dataset = AssetDataset(entry, store, members)
    dataset.class_names = tuple(category.replace("-", " ") for category in CATEGORIES)
    return dataset


def _sha256(store: ZipStore, folder: str) -> str:
    names = [name for name in store.names() if name.startswith(f"{folder}/")]
    try:
        return content_sha256(
            (PurePosixPath(name).name, hashlib.sha256(store.read(name)).hexdigest()) for name in names
        )
    except UnreadableError as error:
        return str(error)
