"""Figures of a run: the truth scores perfectly, the sky is not compared, and the panel shows what it says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from training.config import load_config  # noqa: E402
from training.data.batches import Batch, canonical_focal_px  # noqa: E402
from training.validation import validate_depth  # noqa: E402
from training.watch import depth_panel  # noqa: E402

from .made_up import COMPACT, FOCAL_PX, MadeUp, scene  # noqa: E402

CPU = torch.device("cpu")


class Knows(torch.nn.Module):
    """A network that knows the answer, times a factor."""

    def __init__(self, numbers: list[int], metric: bool, factor: float = 1.0) -> None:
        super().__init__()
        self._numbers, self.max_depth_m, self._factor = iter(numbers), 80.0 if metric else None, factor

    def serve(self, image: torch.Tensor) -> torch.Tensor:
        depth = np.stack([np.minimum(scene(next(self._numbers))[1], 80) for _ in image]) * self._factor
        return torch.from_numpy(depth if self.max_depth_m else 3 / depth + 1)


def test_a_relative_network_that_is_right_scores_perfectly_whatever_its_scale_and_shift() -> None:
    config = load_config("teacher", None, [COMPACT, "data.sizes_hw=[[64, 96]]", "data.labelled_per_batch=4"])
    figures, panel = validate_depth(Knows(list(range(12)), metric=False), config, MadeUp(12), CPU)
    assert figures == {"abs_rel": pytest.approx(0, abs=2e-3), "delta1": pytest.approx(1, abs=1e-3)}
    assert panel.shape == (4 * 64, 4 * 96, 3)


def test_errors_of_a_relative_network_are_those_of_its_depth() -> None:
    """Disparity that is 5 % too large for half of the pixels is depth that is wrong by about 2.5 % on average, once aligned."""
    config = load_config("teacher", None, [COMPACT, "data.sizes_hw=[[64, 96]]", "data.validation_images=1"])

    class Noisy(Knows):
        def serve(self, image: torch.Tensor) -> torch.Tensor:
            disparity = 1 / np.minimum(scene(0)[1], 80)[None]
            disparity[..., ::2] *= 1.05
            return torch.from_numpy(disparity)

    figures, _ = validate_depth(Noisy([], metric=False), config, MadeUp(1), CPU)
    assert figures["abs_rel"] == pytest.approx(0.025, abs=0.01)


def test_a_metric_network_of_double_scale_is_right_when_aligned_and_wrong_in_metres() -> None:
    config = load_config("metric", None, [COMPACT, "data.sizes_hw=[[64, 96]]", "data.labelled_per_batch=5"])
    factor = 2 * canonical_focal_px(config) / FOCAL_PX
    figures, _ = validate_depth(Knows(list(range(12)), metric=True, factor=factor), config, MadeUp(12), CPU)
    assert figures["abs_rel"] < 0.02
    assert figures["metric_abs_rel"] == pytest.approx(1, abs=0.02)
    assert figures["metric_delta1"] < 0.02


def test_the_panel_is_dark_where_nothing_is_known_and_bright_where_it_is_wrong() -> None:
    label = np.linspace(0.1, 1, 64 * 96).reshape(1, 64, 96)
    label[:, :, :10] = np.nan
    wrong = label.copy()
    wrong[:, 30:34, 40:60] += 2
    panel = depth_panel(Batch(torch.zeros(1, 3, 64, 96), torch.zeros(1, 64, 96), torch.zeros(1), None, ("x",)), np.nan_to_num(wrong), label)
    tiles = [panel[:, i * 96 : (i + 1) * 96] for i in range(4)]
    assert not tiles[1][:, :10].any()
    assert tiles[1][:, 10:].any(-1).all()
    assert tiles[3][31, 50, 0] > 100, "a large error is red"
    assert tiles[3][5, 50, 0] < 80
