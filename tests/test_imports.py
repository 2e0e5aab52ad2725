"""The house's rules: imports run one way, and the runtime's core needs neither ROS nor an engine nor torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"structs", "errors"},
    {"config", "config_cameras", "config_parameter", "config_scale", "contract", "meter", "memory", "overlap", "throttled_log", "transport"},
    {"arguments", "decode", "preprocess", "postprocess", "geometry", "rays", "scale", "engines", "color", "self_check", "cuda"},
    {"edges", "laser_scan", "temporal", "confidence", "reference_points", "reference_scale", "scale_filter", "ground_scale"},
    {"messages", "pipeline", "gpu_pipeline", "prediction", "camera", "reference_messages", "obstacles"},
    {"worker", "predict", "build_engine", "bag", "video"},
    {"parameters", "inputs", "outputs", "diagnostics", "transitions", "sensors", "transforms", "live_scale", "services", "snapshot"},
    {"channel", "batching"},
    {"node"},
    {"demo"},
]
OPTIONAL = {
    *("torch", "tensorrt", "pycuda", "onnxruntime", "rclpy", "cv_bridge", "sensor_msgs", "std_msgs", "diagnostic_msgs", "lifecycle_msgs", "std_srvs"),
    *("rosbags", "lz4", "yaml"),
}
TRAINING_MAY_USE = {"structs", "contract", "preprocess", "postprocess", "geometry", "errors", "self_check"}


def imported_siblings(path: Path) -> set[str]:
    """Return the modules of depth_anything_ros that a file of it imports."""
    depth = len(path.relative_to(ROOT / "depth_anything_ros").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names if not alias.name.startswith("__")}
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("depth_anything_ros.")}
    return found


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize("path", sorted((ROOT / "depth_anything_ros").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_runtime_imports_point_inwards(path):
    module = path.relative_to(ROOT / "depth_anything_ros").parts[0].removesuffix(".py")
    if module == "__init__":
        assert not imported_siblings(path)
        return
    for imported in imported_siblings(path) - {module}:
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"


def test_decode_and_messages_see_only_structs_and_errors():
    for name in ("decode", "messages"):
        assert imported_siblings(ROOT / "depth_anything_ros" / f"{name}.py") <= {"structs", "errors"}


@pytest.mark.parametrize("path", sorted((ROOT / "depth_anything_ros").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_runtime_never_imports_torch_or_training(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"torch", "training"}


@pytest.mark.parametrize("path", sorted((ROOT / "training").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_uses_only_the_runtime_core(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("depth_anything_ros"):
            parts = node.module.split(".")[1:2] or [a.name for a in node.names]
            assert set(parts) <= TRAINING_MAY_USE, f"{path}: {node.module}"


def test_core_runs_with_every_optional_package_blocked():
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import numpy as np
from depth_anything_ros import decode, predict
from depth_anything_ros.config import RuntimeConfig
from depth_anything_ros.engines import open_engine
from depth_anything_ros.errors import EngineError
from depth_anything_ros.pipeline import Pipeline
from depth_anything_ros.structs import RgbFrame
config = RuntimeConfig().updated({{"engine": "synthetic"}})
depth = Pipeline(open_engine(config))(RgbFrame(np.zeros((48, 64, 3), np.uint8)), config, None).depth
assert depth.values.shape == (48, 64)
try:
    open_engine(RuntimeConfig())
except EngineError as error:
    assert "pip install onnxruntime" in str(error), error
else:
    raise AssertionError("onnxruntime was not blocked")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
