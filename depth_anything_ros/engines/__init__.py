"""Stage 3/6: EngineInput -> raw output, on whatever hardware there is."""

from .base import Engine, TensorSpec
from .registry import ENGINES, open_engine

__all__ = ["ENGINES", "Engine", "TensorSpec", "open_engine"]
