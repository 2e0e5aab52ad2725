"""What tests of pseudo-labels share: random images, tar shards, a run of make_pseudo_labels, and what it wrote."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.make_pseudo_labels import main

KILLED = """
import os, signal, sys
from training import make_pseudo_labels
from training.data import pseudo
calls, original = [], getattr({module}, {function!r})
def dying(*args):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
setattr({module}, {function!r}, dying)
make_pseudo_labels.main(sys.argv[1:])
"""
"""A program that ends itself by SIGKILL in the given call of a function."""


def image(seed: int, ending: str = "png") -> bytes:
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(f".{ending}", pixels)[1].tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path) -> Path:
    """Write three shards of eight images."""
    for shard in range(3):
        members = {f"{shard}{i}.{ending}": image(10 * shard + i, ending) for i, ending in enumerate(["png", "jpg"] * 4)}
        write_tar(folder / f"{shard:03d}.tar", members)
    return folder


def make(images: Path, teacher: Path, output: Path, *options: str) -> int:
    return main([str(images), "--teacher", str(teacher), "--output", str(output), *options])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def manifest_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "manifest.json").read_text())


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}
