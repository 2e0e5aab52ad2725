"""Depth of image files, without ROS: the same pipeline as the node's, one .npy and one .png per image, one JSON line each."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from .color import rgb_from_map
from .config import RuntimeConfig
from .engines import ENGINES, open_engine
from .errors import DecodeError, DepthAnythingError
from .pipeline import Pipeline, pipeline_for
from .structs import RgbFrame


def main(argv: list[str] | None = None) -> int:
    """Predict every image; returns 0 where all went well, 1 where some failed, 2 where nothing could start."""
    parser = argparse.ArgumentParser(prog="python3 -m depth_anything_ros.predict", description=__doc__)
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="image files that OpenCV reads")
    parser.add_argument("--output-dir", type=Path, required=True, help="where <stem>.npy and <stem>.png go")
    parser.add_argument("--model", default="", help="ONNX model (default: the one inside the package)")
    parser.add_argument("--engine", default="onnxruntime", help=f"inference engine: {', '.join(ENGINES)}")
    parser.add_argument(
        "--hfov-deg",
        type=float,
        default=RuntimeConfig.fallback_hfov_deg,
        help="the camera's horizontal field of view, for models that need the focal length (default: %(default)g)",
    )
    args = parser.parse_args(argv)
    twins = [stem for stem, count in Counter(path.stem for path in args.images).items() if count > 1]
    if twins:
        parser.error(f"several images would write '{twins[0]}.npy'; give each call images with different names")
    inputs = {path.resolve() for path in args.images}
    for path in args.images:
        for output in _outputs(path, args.output_dir).values():
            if output.resolve() in inputs:
                parser.error(f"the result '{output}' would overwrite an input; choose another --output-dir")
    try:
        config = RuntimeConfig().updated({"model": args.model, "engine": args.engine, "fallback_hfov_deg": args.hfov_deg})
        engine = open_engine(config)
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except (DepthAnythingError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    failures = 0
    with closing(engine):
        pipeline = pipeline_for(engine)
        for path in tqdm(args.images, unit="image", disable=None):
            try:
                line = _predict(path, pipeline, config, args.output_dir)
            except (DepthAnythingError, OSError) as error:
                failures += 1
                line = {"image": str(path), "error": str(error)}
            tqdm.write(json.dumps(line), file=sys.stdout)
    return 1 if failures else 0


def _predict(path: Path, pipeline: Pipeline, config: RuntimeConfig, output_dir: Path) -> dict[str, Any]:
    started = time.perf_counter()
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DecodeError(f"'{path}' is missing or not an image that OpenCV reads")
    decode_s = time.perf_counter() - started
    prediction = pipeline(RgbFrame(np.ascontiguousarray(bgr[..., ::-1]), decode_s=decode_s), config)
    depth_map = prediction.depth or prediction.relative
    if depth_map is None:
        raise DecodeError(f"'{path}': {prediction.no_depth_reason}")
    values = depth_map.values
    shown = values[np.isfinite(values)]
    near_m, far_m = np.percentile(shown, (1, 99)) if shown.size else (0.5, 10.0)
    rgb = rgb_from_map(depth_map, config.color.colormap, max(float(near_m), 1e-3), max(float(far_m), float(near_m) * 1.1, 2e-3))
    outputs = _outputs(path, output_dir)
    _write(outputs["npy"], lambda temporary: np.save(temporary, values))
    _write(outputs["png"], lambda temporary: cv2.imwrite(temporary, rgb[..., ::-1]))
    timing_ms = {f"{stage}_ms": round(s * 1000, 2) for stage, s in prediction.stage_s.items()}
    kind = {"kind": depth_map.kind, "unit": "m" if depth_map.kind == "depth_m" else "none", "size_hw": list(values.shape)}
    return {"image": str(path), **kind, **{name: str(out) for name, out in outputs.items()}, **timing_ms}


def _outputs(path: Path, output_dir: Path) -> dict[str, Path]:
    return {ending: output_dir / f"{path.stem}.{ending}" for ending in ("npy", "png")}


def _write(path: Path, save: Any) -> None:  # noqa: ANN401 - a function of a file name
    """Write under a temporary name (of the same ending) and rename: a file under its own name is complete."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    save(str(temporary))
    temporary.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
