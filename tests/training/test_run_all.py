"""The whole chain in its shortest form: every stage, real files between them, and the node's pipeline at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

for package in ("torch", "pydantic", "safetensors", "moderngl", "trimesh", "onnx", "onnxruntime", "tensorboard"):
    pytest.importorskip(package, reason=f"training needs {package}")

from depth_anything_ros.contract import read_model_file  # noqa: E402
from training.checkpoint import sha256_of  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_chain_from_nothing_to_a_student_that_the_node_runs(tmp_path: Path) -> None:
    out = tmp_path / "chain"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "training" / "run_all.sh"), "--images", "16", "--steps", "2", "--out", "chain"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    records = {name: json.loads((out / name / "checkpoint.json").read_text()) for name in ("encoder", "teacher", "student", "metric")}
    assert all(record["step"] == 2 for record in records.values())
    student = records["student"]
    encoder = records["encoder"]["sha256"]
    assert student["origin"]["files"] == {"network.initial": encoder, "network.frozen_encoder": encoder}
    assert student["data"]["pseudo"]["teacher"]["sha256"] == sha256_of(out / "teacher.onnx")
    assert student["data"]["pseudo"]["labels"] == 8
    assert records["metric"]["origin"]["files"] == {"network.initial": student["sha256"]}
    kinds = {name: read_model_file(out / f"{name}.onnx").contract.output_kind for name in ("teacher", "student_relative", "student_metric")}
    relative = "disparity_affine_invariant"
    assert kinds == {"teacher": relative, "student_relative": relative, "student_metric": "depth_canonical_focal"}
    for name in ("student_relative", "student_metric"):
        assert np.isfinite(np.load(out / f"predicted_{name}" / "picture.npy")).any()
        assert cv2.imread(str(out / f"predicted_{name}" / "picture.png")) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage:"),
        (["--images", "30"], "usage:"),
        (["--images", "3", "--steps", "3"], "--images must be at least 16"),
        (["--fast"], "unknown argument '--fast'"),
    ],
)
def test_wrong_arguments_show_the_usage(arguments: list[str], message: str) -> None:
    done = subprocess.run(["bash", str(ROOT / "training" / "run_all.sh"), *arguments], capture_output=True, text=True)
    assert (done.returncode, message in done.stderr) == (2, True)
