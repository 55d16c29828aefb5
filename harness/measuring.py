"""Reconstructs one pack and feeds it to every metric: each sample once, all metrics in one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from harness.data.prepare import eight_bit, to_unit_range
from harness.errors import BenchError
from harness.loading import Prepared
from harness.metrics.base import Metric, Pairs
from harness.plan import sample_seed
from harness.protocol import Protocol
from harness.shards import Row
from harness.tokenizers.base import Encoded, Tokenizer
from harness.workload import Failed, Measured, joined


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstructed:
    """One image before and after; float32 and uint8 ``[3, H, W]`` on the run's device."""

    reference: Tensor
    reference_u8: Tensor
    reconstruction: Tensor
    reconstruction_u8: Tensor


class Measurer:
    """A tokenizer under a protocol, with its metrics.

    Args:
        metrics: may be empty (the gallery only reconstructs).
    """

    def __init__(self, tokenizer: Tokenizer, protocol: Protocol, metrics: Sequence[Metric], device: str) -> None:
        self._tokenizer = tokenizer
        self._protocol = protocol
        self._metrics = metrics
        self._device = torch.device(device)
        # A tokenizer without a posterior has no sample to give: its only latent is what `mean` asks for.
        self._latent = protocol.latent if protocol.latent in tokenizer.card.latent_modes else "mean"
        self._threads = torch.get_num_threads()

    def tokens(self, item: Prepared) -> int:
        """What `item` counts in the token budget: its padded size."""
        height, width = item.pixels.shape[:2]
        rows, columns = self._tokenizer.card.multiple
        return self._tokenizer.token_count(height + -height % rows, width + -width % columns)

    @torch.inference_mode()
    def measure(self, pack: Sequence[Prepared]) -> Measured:
        """Reconstruct and measure a pack.

        Raises:
            BenchError: the tokenizer breaks its contract (NaN, wrong size) or the device's memory is full.
        """
        try:
            # Plain arithmetic on one small image after another: a second thread waits for the first and takes
            # the decoding workers' core. The tokenizer and the metrics' networks get all threads.
            with _threads(1):
                images, encoded, times = self._reconstruct(pack)
                columns, features = self._update(images, encoded)
        except InputError as error:
            return self._one_by_one(pack, error)
        except torch.OutOfMemoryError as error:
            raise BenchError(
                f"{self._tokenizer.card.name}: out of device memory with {len(pack)} images in a pack; "
                "lower --token-budget"
            ) from error
        return Measured(rows=_rows(pack, encoded, times), failed=[], columns=columns, features=features)

    @torch.inference_mode()
    def reconstruct(self, pack: Sequence[Prepared]) -> list[Reconstructed]:
        """Reconstruct without measuring."""
        return self._reconstruct(pack)[0]

    def _one_by_one(self, pack: Sequence[Prepared], error: InputError) -> Measured:
        # The tokenizer cannot take one of these images: find out which, measure the others.
        if len(pack) == 1:
            return Measured(rows=[], failed=[Failed(pack[0].id, str(error))], columns={}, features={})
        return Measured.of([self.measure([item]) for item in pack])

    def _reconstruct(self, pack: Sequence[Prepared]) -> tuple[list[Reconstructed], Encoded, tuple[float, float]]:
        prepared = [self._to_device(item.pixels) for item in pack]
        sizes = [item.pixels.shape[:2] for item in pack]
        inputs = [self._padded(item.pixels, image) for item, (image, _) in zip(pack, prepared, strict=True)]
        seeds = [sample_seed(self._protocol.seed, item.id) for item in pack]
        with _threads(self._threads):
            start = self._now()
            encoded = self._tokenizer.encode(inputs, latent=self._latent, seeds=seeds)
            middle = self._now()
            outputs = self._tokenizer.decode(encoded)
            end = self._now()
        self._check(pack, inputs, outputs)
        images = []
        for (reference, reference_u8), output, (height, width) in zip(prepared, outputs, sizes, strict=True):
            reconstruction = output[:, :height, :width].to(self._device, torch.float32)
            images.append(
                Reconstructed(
                    reference=reference,
                    reference_u8=reference_u8,
                    reconstruction=reconstruction,
                    reconstruction_u8=eight_bit(reconstruction, self._protocol.eight_bit),
                )
            )
        return images, encoded, (middle - start, end - middle)

    def _to_device(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        # numpy transposes bytes three times faster than torch.
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self._device)
        if tensor.dtype == torch.uint8:
            return to_unit_range(tensor), tensor
        return tensor, eight_bit(tensor, self._protocol.eight_bit)

    def _padded(self, pixels: np.ndarray, image: Tensor) -> Tensor:
        """`image` on the tokenizer's device, its sides a multiple of what the card asks for, by reflection."""
        height, width = pixels.shape[:2]
        rows, columns = self._tokenizer.card.multiple
        missing = (-height % rows, -width % columns)
        if any(missing):
            # numpy reflects as often as it takes, so that one pixel fills a patch; torch does not.
            wide = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
            image = self._to_device(wide)[0]
        return image.to(self._tokenizer.device)

    def _check(self, pack: Sequence[Prepared], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        name = self._tokenizer.card.name
        if len(outputs) != len(inputs):
            raise BenchError(f"{name}: decoded {len(outputs)} images from {len(inputs)}; the adapter is wrong")
        for item, given, output in zip(pack, inputs, outputs, strict=True):
            if output.shape != given.shape:
                raise BenchError(
                    f"{name}: {item.id} went in as {tuple(given.shape)} and came back as {tuple(output.shape)}; "
                    "state `multiple` in the card or pad and crop in the adapter"
                )
        # A sum is finite only if every value is, and costs a twentieth of looking at each; a sum that is not
        # may have overflowed, so then each is looked at.
        sums = torch.stack([output.sum(dtype=torch.float32) for output in outputs]).tolist()
        for item, output, total in zip(pack, outputs, sums, strict=True):
            if not math.isfinite(total) and not bool(torch.isfinite(output).all()):
                raise BenchError(
                    f"{name}: the reconstruction of {item.id} holds NaN or infinite values; "
                    "check the weights (and --dtype: float16 may overflow)"
                )

    def _update(
        self, images: Sequence[Reconstructed], encoded: Encoded
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(tuple(image.reference.shape), []).append(index)
        columns: list[dict[str, np.ndarray]] = []
        features: list[dict[str, np.ndarray]] = []
        for members in groups.values():
            pairs = _pairs([images[i] for i in members], encoded, members)
            row_columns: dict[str, np.ndarray] = {}
            row_features: dict[str, np.ndarray] = {}
            for metric in self._metrics:
                with _threads(self._threads if metric.weights else 1):
                    measured, extracted = metric.update(pairs)
                if set(measured) != set(metric.columns):
                    raise RuntimeError(f"{type(metric).__name__} gave columns {sorted(measured)}, not its own")
                row_columns |= measured
                row_features |= extracted
            columns.append(row_columns)
            features.append(row_features)
        # Back from groups of one size to the pack's order.
        order = np.argsort([index for members in groups.values() for index in members])
        return (
            {name: array[order] for name, array in joined(columns).items()},
            {name: array[order] for name, array in joined(features).items()},
        )

    def _now(self) -> float:
        for device in {self._device, self._tokenizer.device}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return time.perf_counter()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give torch `count` threads on the CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pairs(images: Sequence[Reconstructed], encoded: Encoded, members: Sequence[int]) -> Pairs:
    def chosen(values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[i] for i in members]

    return Pairs(
        reference=torch.stack([image.reference for image in images]),
        reconstruction=torch.stack([image.reconstruction for image in images]),
        reference_u8=torch.stack([image.reference_u8 for image in images]),
        reconstruction_u8=torch.stack([image.reconstruction_u8 for image in images]),
        tokens=[encoded.tokens[i] for i in members],
        bits=chosen(encoded.bits),
        codes=chosen(encoded.codes),
    )


def _rows(pack: Sequence[Prepared], encoded: Encoded, times: tuple[float, float]) -> list[Row]:
    total = sum(encoded.tokens)
    rows = []
    for item, tokens in zip(pack, encoded.tokens, strict=True):
        share = tokens / total if total else 1 / len(pack)
        rows.append(
            Row(
                id=item.id,
                label=item.label,
                sha256=item.sha256,
                height=item.pixels.shape[0],
                width=item.pixels.shape[1],
                height_in=item.size_in[0],
                width_in=item.size_in[1],
                encode_ms=1000 * times[0] * share,
                decode_ms=1000 * times[1] * share,
                tokens=tokens,
            )
        )
    return rows
