"""Stage of training: a published labelled data set + a SegFormer -> one sky mask per image. It may be stopped and started again.

Run: python -m training.make_sky_masks --data NAME[@SPLIT]:DIR --weights FOLDER --output DIR. docs/data_engine.md describes the masks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from depth_anything_ros.errors import ConfigError, DepthAnythingError, EngineError

from .data.published import PublishedDataset, open_dataset
from .data.published.formats import package
from .data.samples import BrokenFileError
from .data.sky import RECORD, encode_mask, mask_path

SIDE_MULTIPLE = 32
"""The coarsest features of SegFormer are 1/32 of its input."""
CLASSES_AT_ONCE = 16
"""Enlarged logits that are held at a time: 16 planes of the photograph's size instead of 150."""
HOW_TO_GET_WEIGHTS = "download e.g. nvidia/segformer-b5-finetuned-ade-640-640 into a folder and give it by --weights"
Rgb = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


class SkySegmenter:
    """A SegFormer (Xie et al. 2021, arXiv:2105.15203) in Hugging Face's format, asked for one class: the sky.

    The image is resized so that its short side has the size in preprocessor_config.json, keeping its shape up to multiples of
    32, and normalised with the mean and standard deviation there. Logits, 1/4 of that size, are enlarged bilinearly to the
    photograph's size; a pixel is sky where the sky's is the largest.

    Attributes:
        settings: what the masks depend on besides the images.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Open the model of a local folder; nothing is downloaded.

        Raises:
            ConfigError: the folder is missing, incomplete, holds no SegFormer, or one without a class "sky".
            DatasetError: the package transformers is not installed.
            EngineError: the device is not available; nothing else is taken in its place.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("torch has no CUDA device here; use --device cpu")
        if not folder.is_dir():
            raise ConfigError(f"no folder '{folder}' with a SegFormer; {HOW_TO_GET_WEIGHTS}")
        self._short_side, mean, std = _read_convention(folder / "preprocessor_config.json")
        self._model, self._sky = _load(folder)
        self._model.to(device)
        self._device = device
        self._mean, self._std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
        self.settings = {
            "weights": {path.name: _sha256(path) for path in weights},
            "class": {"id": self._sky, "name": self._model.config.id2label[self._sky]},
            "short_side": self._short_side,
            "mean": mean,
            "std": std,
        }

    def network_size_hw(self, rgb: Rgb) -> tuple[int, int]:
        """Return height and width at which an image is given to the network; images of the same one form a batch."""
        scale = self._short_side / min(rgb.shape[:2])
        height, width = (max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in rgb.shape[:2])
        return height, width

    @torch.inference_mode()
    def __call__(self, images: list[Rgb]) -> list[npt.NDArray[np.bool_]]:
        """Find the sky: images of one network size, (H, W, 3) uint8 each -> masks (H, W) bool, True = sky."""
        size_hw = self.network_size_hw(images[0])
        batch = torch.cat([self._resized(rgb, size_hw) for rgb in images])
        logits = self._model(pixel_values=(batch / 255 - self._mean) / self._std).logits
        return [self._is_sky(logits[i : i + 1], rgb.shape[:2]) for i, rgb in enumerate(images)]

    def _resized(self, rgb: Rgb, size_hw: tuple[int, int]) -> Tensor:
        pixels = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1)[None].float()
        return functional.interpolate(pixels, size_hw, mode="bilinear", antialias=True)

    def _is_sky(self, logits: Tensor, size_hw: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        def enlarged(planes: Tensor) -> Tensor:
            return functional.interpolate(planes, size_hw, mode="bilinear")[0]

        sky = enlarged(logits[:, self._sky : self._sky + 1])[0]
        is_sky = torch.ones_like(sky, dtype=torch.bool)
        others = torch.cat([logits[:, : self._sky], logits[:, self._sky + 1 :]], 1)
        for planes in others.split(CLASSES_AT_ONCE, 1):
            is_sky &= sky > enlarged(planes).amax(0)
        return is_sky.cpu().numpy()


def _read_convention(path: Path) -> tuple[int, list[float], list[float]]:
    """Return short side, mean and standard deviation of a preprocessor_config.json; in older files `size` is one number."""
    try:
        config = json.loads(path.read_text())
        size = config["size"]
        short_side = min(size.values()) if isinstance(size, dict) else size
        mean, std = ([float(value) for value in config[key]] for key in ("image_mean", "image_std"))
        if int(short_side) < SIDE_MULTIPLE or len(mean) != 3 or len(std) != 3:
            raise ValueError(f"size {size}, mean {mean}, std {std}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' does not say how images are resized and normalised ({error!r}); {HOW_TO_GET_WEIGHTS}") from error
    return int(short_side), mean, std


def _load(folder: Path) -> tuple[Any, int]:
    """Return the model, ready to be asked, and the number of its class "sky"."""
    transformers = package("transformers", "SegFormer weights")
    configs, networks = transformers.AutoConfig, transformers.SegformerForSemanticSegmentation
    try:
        config = configs.from_pretrained(folder, local_files_only=True)
        if config.model_type != "segformer":
            raise ValueError(f"it holds a {config.model_type}")
        model, report = networks.from_pretrained(folder, config=config, local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers, safetensors and pickle have no common root
        raise ConfigError(f"'{folder}' holds no SegFormer ({error}); {HOW_TO_GET_WEIGHTS}") from error
    if report["missing_keys"]:  # they would be random
        raise ConfigError(f"'{folder}' lacks {len(report['missing_keys'])} tensors of its network; {HOW_TO_GET_WEIGHTS}")
    numbers = [number for number, name in config.id2label.items() if name.strip().lower() == "sky"]
    if len(numbers) != 1:
        raise ConfigError(f"'{folder}' has no class 'sky'; {HOW_TO_GET_WEIGHTS}")
    return model.float().eval(), numbers[0]


def make_masks(dataset: PublishedDataset, segmenter: SkySegmenter, output: Path, batch: int, threads: int) -> dict[str, Any]:
    """Write the masks that are not there yet; return the record.

    Raises:
        ConfigError: the folder holds masks of another network or of another data set.
    """
    record: dict[str, Any] = {"settings": segmenter.settings, "data": dataset.manifest()}
    _check_record(output / RECORD, record)
    output.mkdir(parents=True, exist_ok=True)
    _write(output / RECORD, _text(record | {"complete": False}))
    todo = [index for index, entry in enumerate(dataset.entries) if not mask_path(output, entry.name).is_file()]
    failures: list[dict[str, str]] = []
    with tqdm(total=len(dataset), initial=len(dataset) - len(todo), unit="image", disable=None) as bar:
        images = _images(dataset, todo, batch, threads, failures)
        for _, group in groupby(images, lambda item: segmenter.network_size_hw(item[1])):
            for names, together in _batches(group, batch):
                for name, sky in zip(names, segmenter(together)):
                    _write(mask_path(output, name), encode_mask(sky))
                bar.update(len(names))
    record |= {"complete": True, "masks": len(dataset) - len(failures), "failures": failures}
    _write(output / RECORD, _text(record))
    return record


def _images(dataset: PublishedDataset, indices: list[int], batch: int, threads: int, failures: list[dict[str, str]]) -> Iterator[tuple[str, Rgb]]:
    """Yield names and images; threads read ahead, so that the network need not wait."""

    def read(index: int) -> Rgb | BrokenFileError:
        try:
            return dataset.rgb(index)
        except BrokenFileError as error:
            return error

    for index, rgb in _ahead(read, indices, threads, 2 * batch):
        name = dataset.entries[index].name
        if isinstance(rgb, BrokenFileError):
            failures.append({"name": name, "reason": rgb.reason})
        else:
            yield name, rgb


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order, with up to `ahead` results in hand."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _batches(images: Iterable[tuple[str, Rgb]], size: int) -> Iterator[tuple[list[str], list[Rgb]]]:
    iterator = iter(images)
    while together := [image for _, image in zip(range(size), iterator)]:
        yield [name for name, _ in together], [rgb for _, rgb in together]


def _check_record(path: Path, record: dict[str, Any]) -> None:
    if not path.is_file():
        return
    try:
        there = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"'{path}' is damaged ({error}); choose another --output") from error
    other = [key for key, value in record.items() if there.get(key) != json.loads(json.dumps(value))]
    if other:
        raise ConfigError(f"'{path.parent}' holds masks of other {' and '.join(other)}; masks are not mixed: choose another --output")


def _text(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0: every image has a mask, 1: some images could not be read, 2: nothing can go on, 130: Ctrl-C."""
    args = _parse(argv)
    try:
        dataset = open_dataset(*args.data)
        record = make_masks(dataset, SkySegmenter(args.weights, args.device), args.output, args.batch, args.threads)
    except (DepthAnythingError, OSError) as error:
        print(f"make_sky_masks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_sky_masks: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    print(json.dumps({"masks": record["masks"], "failures": len(record["failures"])}))
    return 1 if record["failures"] else 0


def _data(text: str) -> tuple[str, str, str | None]:
    """Return name, folder and split of `NAME[@SPLIT]:DIR`."""
    head, _, root = text.partition(":")
    name, _, split = head.partition("@")
    if not name or not root:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME:DIR or NAME@SPLIT:DIR")
    return name, root, split or None


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.make_sky_masks", description=__doc__)
    parser.add_argument("--data", metavar="NAME[@SPLIT]:DIR", type=_data, required=True, help="a published data set, such as hrwsi@train:data/hrwsi")
    parser.add_argument("--weights", type=Path, required=True, help="local folder of a SegFormer in Hugging Face's format")
    parser.add_argument("--output", type=Path, required=True, help="folder for masks and record; one data set and split each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network runs (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images of the same size at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="threads that read images (default: %(default)s)")
    args = parser.parse_args(argv)
    if min(args.batch, args.threads) < 1:
        parser.error("--batch and --threads must be at least 1")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
