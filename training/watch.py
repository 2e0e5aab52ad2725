"""What a person sees of a run: a JSON log, TensorBoard, and pictures of input | label | prediction | error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from depth_anything_ros.errors import ConfigError

from .data.batches import MEAN, STD, Batch
from .metrics import align_disparity

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
PANEL_ROWS = 4
Rgb = npt.NDArray[np.uint8]


class Watch:
    """Writes into the run's folder: `log.jsonl`, `tensorboard/`, `panel.png` (the newest)."""

    def __init__(self, out: Path, step: int, tensorboard: bool) -> None:
        """Continue the log at `step`; lines of steps that a killed run did after its last checkpoint are dropped.

        Raises:
            ConfigError: TensorBoard is wanted and not installed.
        """
        self._out = out
        temporary = out / f".{LOG}.tmp"
        temporary.write_text("".join(_lines_until(out / LOG, step)))
        temporary.replace(out / LOG)
        self._board = _summary_writer(out / "tensorboard", step) if tensorboard else None

    def log(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Write one line: the step, the group (`train` or `validation`), and its values."""
        with (self._out / LOG).open("a") as file:
            file.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        for name, value in values.items() if self._board else ():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{group}/{name}", value, step)

    def show(self, step: int, picture: Rgb) -> None:
        """Keep a panel, (H, W, 3) uint8 RGB."""
        cv2.imwrite(str(self._out / "panel.png"), picture[..., ::-1])
        if self._board:
            self._board.add_image("validation/panel", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._board:
            self._board.close()


def _lines_until(path: Path, step: int) -> Iterator[str]:
    """Yield the lines of a log up to a step; half a line at the end, of a run that was killed or a full disk, is dropped."""
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except ValueError:
            continue


def _summary_writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("run.tensorboard needs TensorBoard: pip install tensorboard, or set run.tensorboard=false") from error
    return SummaryWriter(str(folder), purge_step=step + 1)


def depth_panel(batch: Batch, disparity: npt.NDArray[np.float64], label_disparity: npt.NDArray[np.float64]) -> Rgb:
    """Draw input | label | prediction | error of the first images; the prediction is aligned to the label by scale and shift.

    Args:
        batch: for its images.
        disparity: (N, h, w) predicted.
        label_disparity: (N, h, w), NaN = unknown (black).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = []
    for image, predicted, label in zip(batch.image[:PANEL_ROWS], disparity, label_disparity):
        known = np.isfinite(label) & (label > 0)
        if known.sum() < 16:
            continue
        low, high = np.percentile(label[known], (1, 99))
        span = max(high - low, 1e-9)
        aligned = 1 / align_disparity(predicted, 1 / np.where(known, label, 1.0), known, 1e6)
        error = np.where(known, np.abs(aligned - label) / span, np.nan)
        rows.append(np.hstack([_rgb(image), _coloured((label - low) / span), _coloured((aligned - low) / span), _coloured(2 * error)]))
    return np.vstack(rows) if rows else np.zeros((1, 1, 3), np.uint8)


def _rgb(image: Tensor) -> Rgb:
    values = image.float().cpu().numpy().transpose(1, 2, 0) * np.array(STD) + np.array(MEAN)
    return (values.clip(0, 1) * 255).astype(np.uint8)


def _coloured(value: npt.NDArray[np.float64]) -> Rgb:
    """(h, w) in 0..1 -> colours; not finite is black."""
    colours = cv2.applyColorMap((np.nan_to_num(value).clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(np.isfinite(value)[..., None], colours, 0).astype(np.uint8)
