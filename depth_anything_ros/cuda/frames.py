"""Whole frames on an engine's GPU: raw image bytes -> stages 2 to 5 -> results in page-locked memory, for one camera or several at once.

Kernels and network are one CUDA graph for each combination of kinds of frames that comes more than once; only copies stand
outside of it, so that results can go to memory that nobody holds any more.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..contract import ModelContract
from ..errors import EngineError
from .pinned import PinnedPool
from .plan import FramePlan
from .stages import CudaStages

if TYPE_CHECKING:
    from ..engines.cuda_runtime import CudaGraph, CudaSession

KINDS_KEPT = 3
"""Kinds of frames of one camera whose buffers are kept: with and without a cloud, and one more while something changes."""
BATCHES_KEPT = 64
"""Combinations of kinds of frames whose graphs are kept: four cameras that meet by chance, with and without a cloud each, make 80."""

Shape = tuple[int, ...]
Results = dict[str, npt.NDArray[Any]]


class Network(Protocol):
    """The network for inputs of one shape (N, 3, h, w), between two buffers in device memory."""

    @property
    def input_address(self) -> int:
        """Where the input lies, in C order."""

    @property
    def output_address(self) -> int:
        """Where the output lies: (N, h, w)."""

    def enqueue(self) -> None:
        """Put one inference on the session's stream; raises EngineError."""


@dataclass
class _Batch:
    """What is known of a combination of kinds of frames; `graph` holds for this very network only."""

    network: Network
    graph: CudaGraph | None = None
    no_graph_reason: str = ""


class GpuFrames:
    """Runs frames of all cameras of one engine. All calls on the thread that has the engine, but for those that say otherwise.

    Attributes:
        session: the engine's; its stream is the one that everything runs on.
        network_for: returns the network for an input shape (N, 3, h, w); called with the session active.
        launches: how often a batch was launched, as `graph` or `plain`.
    """

    def __init__(
        self, session: CudaSession, cubin: bytes, contract: ModelContract, dtypes: tuple[str, str], network_for: Callable[[Shape], Network]
    ) -> None:
        """Load the kernels.

        Args:
            session: the engine's; active.
            cubin: `sources.compiled_kernels` for its device.
            contract: of the model.
            dtypes: of the network's input and output.
            network_for: see above.
        """
        self.session, self.network_for, self._contract, self._dtypes = session, network_for, contract, dtypes
        with session.translated("load the kernels of the stages"):
            self._kernels = session.driver.module_from_buffer(cubin)
        self._pool = PinnedPool(session.driver)
        self._stages: OrderedDict[tuple[Hashable, ...], CudaStages] = OrderedDict()
        self._batches: OrderedDict[tuple[CudaStages, ...], _Batch] = OrderedDict()
        self.launches: Counter[str] = Counter()
        self._frames: Counter[str] = Counter()
        self._numpy_reasons: dict[Hashable, str] = {}

    def note(self, camera: Hashable, numpy_reason: str) -> None:
        """Count a frame of a camera: it runs here, or in numpy for a reason."""
        self._frames["numpy" if numpy_reason else "gpu"] += 1
        self._numpy_reasons[camera] = numpy_reason

    def stages_for(self, camera: Hashable, plan: FramePlan, rays_key: Hashable, rays: Callable[[], npt.NDArray[np.float32] | None]) -> CudaStages:
        """Return the buffers for a camera's frames of one kind; those that it had no use for the longest time go.

        Args:
            camera: whose they are: never shared with another one's.
            plan: the kind of frames.
            rays_key: what the rays depend on.
            rays: gives them; see `CudaStages`.

        Raises:
            EngineError: this model cannot give one of the outputs, or the memory does not suffice.
        """
        key = camera, plan, rays_key
        stages = self._stages.get(key)
        if stages is None:
            with self.session.active(), self.session.translated("prepare for a new kind of image"):
                own = [known for known in self._stages if known[0] == camera]
                if len(own) >= KINDS_KEPT:
                    self._let_go(own[0])
                stages = CudaStages(self.session.driver, self._kernels, self._contract, plan, rays(), self._dtypes)
            self._stages[key] = stages
        self._stages.move_to_end(key)
        return stages

    def forget(self, camera: Hashable) -> None:
        """Free what a camera used, but for results that somebody holds."""
        with self.session.active():
            for key in [key for key in self._stages if key[0] == camera]:
                self._let_go(key)

    def network_values(self, size_hw: tuple[int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return copies of what the network saw in the last frame of its own, (1, 3, h, w), and of what it gave, (1, h, w)."""
        with self.session.active(), self.session.translated("copy from the GPU"):
            network = self.network_for((1, 3, *size_hw))
            tensor, raw = np.empty((1, 3, *size_hw), self._dtypes[0]), np.empty((1, *size_hw), self._dtypes[1])
            self.session.driver.memcpy_dtoh(tensor, network.input_address)
            self.session.driver.memcpy_dtoh(raw, network.output_address)
        return tensor.astype(np.float32), raw.astype(np.float32)

    def _let_go(self, key: tuple[Hashable, ...]) -> None:
        stages = self._stages.pop(key)
        for batch in [batch for batch in self._batches if stages in batch]:
            self._drop(batch)
        stages.close()
        self._pool.free_unused()

    def _drop(self, batch: tuple[CudaStages, ...]) -> None:
        graph = self._batches.pop(batch).graph
        if graph is not None:
            self.session.free_graph(graph)

    def run(self, frames: Sequence[CudaStages]) -> list[Results]:
        """Run frames that are ready in their stages, all of the same network size, each of another camera; waits for them.

        Returns:
            The outputs of each by name, as `FramePlan.result` says, in page-locked memory that is the caller's (see `PinnedPool`).

        Raises:
            EngineError: the GPU, the network or the memory failed.
        """
        session = self.session
        # One combination is one combination, in whatever order its frames arrive.
        batch = tuple(sorted(frames, key=id))
        with session.active(), session.translated("run a frame"):
            network = self.network_for((len(batch), 3, *batch[0].plan.resize.network_size_hw))
            graph = self._graph(batch, network)
            self.launches["graph" if graph else "plain"] += 1
            results = {stages: {name: self._pool.lend(*stages.plan.result(name)) for name in stages.plan.outputs} for stages in batch}
            try:
                for stages in batch:
                    stages.enqueue_upload(session.stream)
                if graph is not None:
                    session.launch(graph)
                else:
                    self._enqueue(batch, network)
                for stages in batch:
                    stages.enqueue_download(session.stream, results[stages])
                session.synchronize()
            except BaseException:
                with suppress(EngineError):  # the first error counts; nothing may be written into memory that goes back
                    session.synchronize()
                raise
            self._keep(batch, network)
        return [results[stages] for stages in frames]

    def _graph(self, batch: tuple[CudaStages, ...], network: Network) -> CudaGraph | None:
        """Return the graph of kernels and network; None before they ran once (TensorRT and the driver set up things then), or if it cannot be."""
        known = self._batches.get(batch)
        if known is None:
            return None
        if known.network is not network:
            self._drop(batch)
            return None
        if known.graph is None and not known.no_graph_reason:
            try:
                known.graph = self.session.capture(lambda: self._enqueue(batch, network))
            except EngineError as error:
                known.no_graph_reason = str(error)
        return known.graph

    def _keep(self, batch: tuple[CudaStages, ...], network: Network) -> None:
        """Note that a combination ran; the one that did not for the longest time goes."""
        self._batches.setdefault(batch, _Batch(network))
        self._batches.move_to_end(batch)
        while len(self._batches) > BATCHES_KEPT:
            self._drop(next(iter(self._batches)))

    def _enqueue(self, batch: tuple[CudaStages, ...], network: Network) -> None:
        pixels = int(np.prod(batch[0].plan.resize.network_size_hw))
        input_bytes, output_bytes = 3 * pixels * np.dtype(self._dtypes[0]).itemsize, pixels * np.dtype(self._dtypes[1]).itemsize
        for index, stages in enumerate(batch):
            stages.enqueue_preprocess(self.session.stream, network.input_address + index * input_bytes)
        network.enqueue()
        for index, stages in enumerate(batch):
            stages.enqueue_postprocess(self.session.stream, network.output_address + index * output_bytes)

    def details(self) -> dict[str, str]:
        """Return what the diagnostics show; may be called from any thread."""
        reasons = set(self._numpy_reasons.copy().values()) - {""}
        return {
            "stages": f"numpy: {'; '.join(sorted(reasons))}" if reasons else "gpu",
            "gpu_frames": str(self._frames["gpu"]),
            "numpy_frames": str(self._frames["numpy"]),
        }

    def no_graph_reasons(self) -> set[str]:
        """Return why frames are not launched as CUDA graphs; may be called from any thread."""
        return {batch.no_graph_reason for batch in tuple(self._batches.values())}

    def close(self) -> None:
        """Free everything that is not lent; the session is active, and its stream done."""
        while self._stages:
            self._let_go(next(iter(self._stages)))
        self._kernels = None
