"""One conversion of a bag from its command line: checks, engine, run, and what is said at the end."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..arguments import config_from
from ..config import RuntimeConfig
from ..engines import Engine, open_engine
from ..errors import DepthAnythingError
from ..pipeline import Pipeline
from .cameras import Camera, choose_cameras
from .input import BagError, BagInput
from .output import Progress, SegmentedBag
from .run import DepthRun


def convert(args: argparse.Namespace) -> int:
    """Do what the arguments of `bag` say; returns its exit status."""
    try:
        return _convert(args)
    except DepthAnythingError as error:
        _say(str(error))
    except (OSError, sqlite3.Error) as error:
        _say(f"cannot write '{args.output}': {error}; what is finished stays in '{args.output}.partial', the same command goes on from there")
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from the last finished file")
        return 130
    return 2


def _convert(args: argparse.Namespace) -> int:
    config = config_from(args)
    _check_paths(args.input, args.output)
    with BagInput(args.input) as bag:
        cameras, notes = choose_cameras(bag, args.topics, args.output_name)
        for note in notes:
            _say(note)
        with closing(open_engine(config)) as engine:
            storage = args.storage or bag.storage
            run = _description(args, bag, cameras, config, engine) | {"storage": storage}
            with SegmentedBag(args.output, storage, bag.topics, run, args.segment_images) as output:
                started_s, before = time.monotonic(), output.progress
                if before.messages:
                    _say(f"going on after {before.images} images")
                _run(DepthRun(bag, cameras, config, Pipeline(engine), output), args.cloud, bag, cameras, before)
                output.finish(bag.custom_data)
        _report(args.output, output.progress, output.progress.images - before.images, time.monotonic() - started_s)
        if bag.problem:
            _say(f"the input could not be read as a whole: {bag.problem}")
        return 1 if bag.problem or output.progress.depths < output.progress.images else 0


def _check_paths(source: Path, path: Path) -> None:
    if path.suffix in (".mcap", ".db3"):
        raise BagError(f"OUT is the folder of a bag: write '{path.with_suffix('')}' instead of '{path}'")
    if path.exists():
        same = source.exists() and path.resolve() == source.resolve()
        raise BagError(f"IN and OUT are the same, '{path}'" if same else f"'{path}' exists already; choose another name or remove it")


def _description(args: argparse.Namespace, bag: BagInput, cameras: list[Camera], config: RuntimeConfig, engine: Engine) -> dict[str, Any]:
    """Return everything that the result depends on, so that no run goes on with another one's files."""
    description = {
        "version": __version__,
        "input": {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in bag.files},
        "topics": [camera.image for camera in cameras],
        "output-name": args.output_name,
        "cloud": args.cloud,
        "segment-images": args.segment_images,
        "parameters": asdict(config),
        "model": engine.model_sha256,
    }
    return json.loads(json.dumps(description))


def _run(run: DepthRun, with_cloud: bool, bag: BagInput, cameras: list[Camera], before: Progress) -> None:
    names, warned = {camera.image for camera in cameras}, set()

    def warn(topic: str, kind: str, text: str) -> None:
        if (topic, kind) not in warned:
            warned.add((topic, kind))
            tqdm.write(f"bag: {topic}: {kind}: {text} (said once)", file=sys.stderr)

    total = sum(topic.message_count for topic in bag.topics if topic.name in names)
    with tqdm(total=total or None, initial=before.images, unit="image", disable=None) as bar:
        run(with_cloud, bar.update, warn)


def _report(path: Path, progress: Progress, images: int, seconds: float) -> None:
    clouds = f", {progress.clouds} clouds" if progress.clouds else ""
    refused = f", {progress.refused} images could not be decoded" if progress.refused else ""
    print(f"{path}: {progress.messages} messages copied, {progress.depths} depth images of {progress.images} images{clouds}{refused}")
    print(f"{images} images in {seconds:.1f} s: {images / max(seconds, 1e-9):.1f} images/s")


def _say(text: str) -> None:
    print(f"bag: {text}", file=sys.stderr)
