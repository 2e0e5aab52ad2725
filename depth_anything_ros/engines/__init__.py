"""Stage 3/6: EngineInput -> raw output, on whatever hardware there is."""

from .base import Engine, TensorSpec
from .build_watch import BuildWatch
from .registry import ENGINES, open_engine, prepare_engine

__all__ = ["ENGINES", "BuildWatch", "Engine", "TensorSpec", "open_engine", "prepare_engine"]
