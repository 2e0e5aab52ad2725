"""Engines by name. An engine's module, and what it imports, is loaded only when that engine is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..config import RuntimeConfig
from ..errors import EngineError
from .base import Engine


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine is and how to get what it needs."""

    module: str
    install: str


ENGINES: dict[str, EngineEntry] = {
    "onnxruntime": EngineEntry("ort_engine", "pip install onnxruntime (GPU: onnxruntime-gpu)"),
    "synthetic": EngineEntry("synthetic_engine", "nothing"),
}


def open_engine(config: RuntimeConfig) -> Engine:
    """Make and open the engine that a configuration asks for.

    Raises:
        ContractError: the model file is unusable.
        EngineError: the engine is unknown, what it needs is not installed, or it cannot open the model.
    """
    entry = ENGINES.get(config.engine)
    if entry is None:
        raise EngineError(f"engine '{config.engine}' is unknown; there are: {', '.join(ENGINES)}")
    try:
        create: Callable[[RuntimeConfig], Engine] = import_module(f"{__package__}.{entry.module}").create
    except ImportError as error:
        raise EngineError(f"engine '{config.engine}' is not available: {error}; get it with: {entry.install}") from error
    engine = create(config)
    engine.open()
    return engine
