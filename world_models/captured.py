"""One function on a device, captured once for every size of batch: a CUDA graph per bucket.

A wave of a search is small and its networks are many small kernels, so that on a GPU most of the time goes
into launching them. A CUDA graph launches all at once, but has fixed addresses and a fixed batch: batches are
padded to the next bucket. Everything a call takes crosses to the device in one copy and everything it gives
comes back in one.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ForethoughtError

log = logging.getLogger(__name__)

BUCKETS = (8, 16, 32, 64, 128, 256, 512)
"""Batch sizes that graphs are captured for."""

Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""From a function that works on tensors of fixed addresses to one that does the same again."""


def bucket(sizes: Sequence[int], count: int) -> int:
    """The smallest size that holds ``count``; the largest where none does."""
    return sizes[min(bisect.bisect_left(sizes, count), len(sizes) - 1)]


def pieces(sizes: Sequence[int], count: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and bucket of the pieces into which ``count`` rows are cut."""
    for start in range(0, count, sizes[-1]):
        end = min(start + sizes[-1], count)
        yield start, end, bucket(sizes, end - start)


def cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    """Captures a function as a CUDA graph. It runs a few times before, so that libraries have made their
    workspaces; on the stream that it is captured on, as they keep them by stream."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    # Another thread may use the device meanwhile: a planner with a deadline runs in a thread of its own.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        function()
    return graph.replay


@dataclass(eq=False)
class Bucket:
    """The fixed tensors of one batch size, and what computes the second pair from the first.

    ``host`` is what crosses, ``int32 [n, inputs]``; ``answer`` what comes back, ``float32 [n, outputs]``.
    """

    host: Tensor
    device: Tensor
    result: Tensor
    answer: Tensor
    run: Callable[[], None]


class Captured:
    """A function of rows, computed on a device in buckets.

    Args:
        body: From ``int32 [n, inputs]`` to ``float32 [n, outputs]``, both on the device. It must not wait for
            the device and must not change its shape by what it reads. Rows are independent.
        padding: The row that fills a bucket, ``int32 [inputs]``.
        outputs: Numbers per row that come back.
        device: Where the body computes.
        sizes: Batch sizes, ascending; more rows than the last are computed in pieces.
        capture: Makes the function that repeats the body; by default a CUDA graph on a GPU, elsewhere the
            body itself. When it fails, that is logged and the body itself is called ever after.

    Attributes:
        captured: Buckets by size, as far as they were needed.
    """

    def __init__(
        self,
        body: Callable[[Tensor], Tensor],
        padding: np.ndarray,
        outputs: int,
        device: torch.device,
        sizes: Sequence[int] = BUCKETS,
        capture: Capture | None = None,
    ) -> None:
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
            raise ForethoughtError(f"Buckets are ascending sizes of batches, from 1 on; got {list(sizes)}.")
        self.sizes = tuple(int(size) for size in sizes)
        self.device = device
        self.captured: dict[int, Bucket] = {}
        self._body, self._padding, self._outputs = body, torch.from_numpy(np.int32(padding)), outputs
        self._capture = capture or (cuda_graph if device.type == "cuda" else None)

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The function of ``int32 [M, inputs]``: ``float32 [M, outputs]``."""
        out = np.empty((len(rows), self._outputs), np.float32)
        for start, end, size in pieces(self.sizes, len(rows)):
            out[start:end] = self._compute(torch.from_numpy(rows[start:end]), self._bucket(size))
        return out

    @torch.inference_mode()
    def prepare(self) -> None:
        """Capture all buckets now, instead of each when it is first needed."""
        for size in self.sizes:
            self._bucket(size)

    def _compute(self, rows: Tensor, place: Bucket) -> np.ndarray:
        place.host[: len(rows)] = rows
        place.host[len(rows) :] = self._padding
        place.device.copy_(place.host, non_blocking=True)
        place.run()
        place.answer.copy_(place.result, non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return place.answer[: len(rows)].numpy()

    def _bucket(self, size: int) -> Bucket:
        if size not in self.captured:
            self.captured[size] = self._make(size)
        return self.captured[size]

    def _make(self, size: int) -> Bucket:
        pinned = self.device.type == "cuda"
        inputs = torch.empty((size, self._padding.numel()), dtype=torch.int32, pin_memory=pinned)
        inputs[:] = self._padding
        place = Bucket(
            host=inputs,
            device=inputs.to(self.device, copy=True),
            result=torch.empty((size, self._outputs), device=self.device),
            answer=torch.empty((size, self._outputs), pin_memory=pinned),
            run=lambda: None,
        )

        def body() -> None:
            place.result.copy_(self._body(place.device))

        place.run = body
        if self._capture is not None:
            try:
                place.run = self._capture(body)
            except RuntimeError as error:
                log.warning("Batches are computed without CUDA graphs: capturing failed (%s).", error)
                self._capture = None
        return place
