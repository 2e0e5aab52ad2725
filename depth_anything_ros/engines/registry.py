"""Engines by name. An engine's module, and what it imports, is loaded only when that engine is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from ..config import RuntimeConfig
from ..errors import EngineError
from .base import Engine
from .build_watch import BuildWatch


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine is and how to get what it needs."""

    module: str
    install: str


ENGINES: dict[str, EngineEntry] = {
    "onnxruntime": EngineEntry("ort_engine", "pip install onnxruntime (GPU: onnxruntime-gpu)"),
    "tensorrt": EngineEntry("tensorrt_engine", "pip install tensorrt pycuda (Jetson: apt install python3-libnvinfer); see docs/tensorrt.md"),
    "synthetic": EngineEntry("synthetic_engine", "nothing"),
}


def open_engine(config: RuntimeConfig) -> Engine:
    """Make and open the engine that a configuration asks for, and let it show that it computes what the model's maker saw.

    Raises:
        ContractError: the model file is unusable.
        EngineError: the engine is unknown, what it needs is not installed, it cannot open the model, or it failed its self-check.
    """
    create: Callable[[RuntimeConfig], Engine] = _module(config.engine).create
    engine = create(config)
    engine.open()
    try:
        engine.check(config.self_check)
    except BaseException:
        engine.close()
        raise
    return engine


def prepare_engine(config: RuntimeConfig, watch: BuildWatch) -> None:
    """Do what may take minutes before an engine can be opened, where it needs that; on any thread, for any engine.

    Raises:
        ContractError: the model file is unusable.
        EngineError: the engine is unknown, what it needs is not installed, or it cannot be built.
    """
    prepare: Callable[[RuntimeConfig, BuildWatch], None] | None = getattr(_module(config.engine), "prepare", None)
    if prepare is not None:
        prepare(config, watch)


def _module(engine: str) -> ModuleType:
    entry = ENGINES.get(engine)
    if entry is None:
        raise EngineError(f"engine '{engine}' is unknown; there are: {', '.join(ENGINES)}")
    try:
        return import_module(f"{__package__}.{entry.module}")
    except ImportError as error:
        raise EngineError(f"engine '{engine}' is not available: {error}; get it with: {entry.install}") from error
