"""The interface of all engines: checks here, work in `_open`, `_infer` and `_close`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ..contract import ModelContract
from ..errors import EngineError
from ..self_check import measure

if TYPE_CHECKING:
    from ..cuda.frames import GpuFrames

BATCH_MAX = 8
"""Images in one call of an engine that takes any number of them."""


@dataclass(frozen=True)
class TensorSpec:
    """What an engine takes or gives: name, numpy dtype and shape, None for an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def accepts(self, array: npt.NDArray[np.generic]) -> bool:
        """Whether an array has this dtype and shape."""
        fits = len(array.shape) == len(self.shape) and all(want in (None, got) for want, got in zip(self.shape, array.shape))
        return fits and array.dtype.name == self.dtype


class Engine(ABC):
    """Runs one model. Life: `open`, any number of `infer` from one thread, `close`; may be opened again.

    Attributes:
        golden: what the model file holds for `check`; empty where it holds nothing.
        platform: what the model runs on: software, version, device.
        advice: what to do where the numbers are wrong.
        batch_pays: whether several images at once take much less time than one after another.
        self_check: what came of `check`, for people; empty until it ran.
        self_check_problem: why the numbers are not to be trusted; empty where nothing says so.
        gpu: runs the other stages on the open engine's GPU, too; None where the engine has none, or they cannot run there.
    """

    name: ClassVar[str]
    contract: ModelContract
    model_sha256: str
    input_spec: TensorSpec
    output_spec: TensorSpec
    golden: str = ""
    platform: str = ""
    advice: str = "use another engine, or another version of it"
    batch_pays: bool = True
    self_check: str = ""
    self_check_problem: str = ""
    gpu: GpuFrames | None = None

    @property
    def batch_max(self) -> int:
        """How many images one call of an open engine takes."""
        return self.input_spec.shape[0] or BATCH_MAX

    def __str__(self) -> str:
        """Name the model, what its numbers are, and the engine."""
        return f"model '{self.contract.name}' ({self.contract.output_kind}) with engine '{self.name}'"

    def open(self) -> None:
        """Load the model and run it once at each of its input sizes, so that what cannot work fails here.

        Raises:
            EngineError: the model cannot be loaded or run, or does not fit its contract.
        """
        self._open()
        try:
            for size in self.contract.input_sizes_hw:
                self._try(size)
        except BaseException:
            self.close()
            raise

    def check(self, mode: str) -> None:
        """Measure the open engine against the golden data in its model file, and its GPU's stages against those in numpy; note the result.

        Args:
            mode: `fail`, `warn` or `off`.

        Raises:
            ContractError: the golden data cannot be read.
            EngineError: the engine or a stage is beyond a bound, and the mode is `fail`.
        """
        self.self_check, self.self_check_problem = "off", ""
        if mode == "off":
            return
        problem = "; ".join(filter(None, (self._golden_problem(), self._stage_problem())))
        if problem and mode == "fail":
            raise EngineError(f"{problem}; self_check: warn uses it all the same")
        if problem:
            self.self_check_problem = problem
            logging.getLogger(__name__).warning(problem)

    def _golden_problem(self) -> str:
        if not self.golden:
            self.self_check = "not possible: the model file holds no golden image"
            return ""
        deviation = measure(self.golden, self.contract, self.infer)
        self.self_check = str(deviation)
        if deviation.acceptable:
            return ""
        wrong = f"{self.platform or self.name} does not compute what model '{self.contract.name}' should"
        return f"self-check failed: {wrong}: {deviation}; {self.advice}"

    def _stage_problem(self) -> str:
        if self.gpu is None:
            return ""
        from ..cuda.check import stage_problem

        problem = stage_problem(self.gpu, self.contract)
        self.self_check += f"; {problem or 'GPU stages agree with the numpy stages'}"
        return f"self-check failed on {self.platform or self.name}: {problem}; {self.name}.gpu_stages: off runs the numpy stages" if problem else ""

    def _try(self, size_hw: tuple[int, int]) -> None:
        tensor, name = np.zeros((1, 3, *size_hw), np.float32), self.contract.name
        if not self.input_spec.accepts(tensor):
            raise EngineError(f"model '{name}' takes {self.input_spec} but its contract says float32 {tensor.shape}")
        if self.contract.resize == "lower_bound" and None not in self.input_spec.shape[2:]:
            raise EngineError(f"model '{name}': 'lower_bound' needs free height and width, this model has {self.input_spec}")
        output = self.infer(tensor)
        if output.shape[-2:] != size_hw or output.size != tensor.size // 3:
            raise EngineError(
                f"model '{name}' gives {output.shape} for an input of {size_hw}: not one depth for every pixel; its contract does not fit it"
            )

    def infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the network once.

        Args:
            tensor: (N, 3, h, w) float32, normalised as the contract says; N is 1 .. `batch_max`.

        Returns:
            (N, h, w) or (N, 1, h, w) float32; what it is, the contract's `output_kind` says. Valid until the next call.

        Raises:
            EngineError: the input or output does not fit the specification, or the run failed.
        """
        if not self.input_spec.accepts(tensor):
            raise EngineError(f"engine '{self.name}' got {tensor.dtype} {tensor.shape} but takes {self.input_spec}")
        if len(tensor) > self.batch_max:
            raise EngineError(f"engine '{self.name}' got {len(tensor)} images at once but takes {self.batch_max}")
        output = self._infer(tensor)
        if not self.output_spec.accepts(output):
            raise EngineError(f"engine '{self.name}' gave {output.dtype} {output.shape} but should give {self.output_spec}")
        return output

    def details(self) -> dict[str, str]:
        """Return what an engine has to say about itself in the diagnostics; may be called from any thread."""
        return {}

    def close(self) -> None:
        """Free everything, also the page-locked memory that results of its GPU lie in; does nothing when it is closed already."""
        self._close()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...

    @abstractmethod
    def _close(self) -> None: ...
