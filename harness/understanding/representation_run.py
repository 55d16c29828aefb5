"""Starts runs of Figure 8: some classes of a labelled set, chosen by the protocol, then as any other run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from importlib.util import find_spec

from harness import runner
from harness.building import dataset_of, protocols_of
from harness.data.base import Dataset
from harness.errors import BenchError
from harness.experiment import Experiment
from harness.plan import sample_seed, slug
from harness.protocol import Protocol
from harness.request import Request
from harness.storage import make_folder, write_atomically

FOLDER = "lists"


def run(experiment: Experiment, request: Request) -> None:
    """Choose the samples, write their ids below ``runs/lists`` and run on them, set by set and protocol by protocol.

    Raises:
        BenchError: scikit-learn is missing, a dataset has no labels or too few samples, or a run fails.
    """
    if find_spec("sklearn") is None:
        raise BenchError("t-SNE and separability need scikit-learn; install atoken[understanding]")
    problems: list[str] = []
    texts = request.data or experiment.datasets[:1]
    asked = [(text, protocols_of(experiment, text.partition("=")[0], request.protocol, problems)) for text in texts]
    if problems:
        raise BenchError("\n".join(dict.fromkeys(problems)))
    for text, protocols in asked:
        dataset = dataset_of(experiment.modality, text, request.only)
        for protocol in protocols:
            ids = chosen(dataset, protocol)
            data = "".join(f"{id_}\n" for id_ in ids).encode()
            name = f"{slug(f'{dataset.name}-{protocol.name}')}-{hashlib.sha256(data).hexdigest()[:8]}.txt"
            make_folder(request.runs / FOLDER)
            write_atomically(request.runs / FOLDER / name, data)
            # A protocol of a file of the user's own keeps its path.
            wanted = request.protocol if request.protocol not in (None, "all") else protocol.name
            only = request.runs / FOLDER / name
            runner.run(experiment, replace(request, data=(text,), protocol=wanted, only=only))


def chosen(dataset: Dataset, protocol: Protocol) -> list[str]:
    """Ids of the samples that a protocol takes, sorted: by hashes of its seed with labels and ids, so that neither the
    order of the set nor what else lies in it moves the choice of a class's samples.

    Raises:
        BenchError: no labels, or fewer than two classes of two samples.
    """
    rules = protocol.structure
    if rules is None:
        raise BenchError(f"protocol {protocol.name}: does not say which classes are taken; give it a `structure`")
    classes: dict[int, list[str]] = defaultdict(list)
    for sample in dataset.samples:
        if sample.label is None:
            how = "; ".join(dataset.notes) or "a folder of class folders has them: --data classes=FOLDER"
            raise BenchError(f"{dataset.title} ({dataset.name}): {sample.id} has no label ({how})")
        classes[sample.label].append(sample.id)
    full = {label: ids for label, ids in classes.items() if len(ids) > 1}
    if len(full) < 2:
        raise BenchError(
            f"{dataset.title} ({dataset.name}): {len(full)} of its {len(classes)} classes have two samples; "
            "how classes lie apart needs two such classes; take --data classes=FOLDER or parquet=FOLDER"
        )
    taken = sorted(full, key=lambda label: sample_seed(protocol.seed, f"class {label}"))[: rules.classes]
    return sorted(
        id_
        for label in taken
        for id_ in sorted(full[label], key=lambda id_: sample_seed(protocol.seed, id_))[: rules.per_class]
    )
