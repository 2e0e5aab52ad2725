"""Views of a pinhole camera in panoramas: where they look, how wide, what is left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from training.panorama_views import View, draw_view, main, pinhole_view

ROWS = 256


def panorama() -> np.ndarray:
    """(256, 512, 3) uint8: red tells the column, green the row."""
    rows, columns = np.mgrid[:ROWS, : 2 * ROWS]
    return np.stack([columns / 2, rows, np.full(rows.shape, 90.0)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("yaw", "pitch", "column", "row"),
    [(0.0, 0.0, 256, 128), (np.pi / 2, 0.0, 128, 128), (-np.pi / 2, 0.0, 384, 128), (0.0, np.pi / 4, 256, 64), (0.0, -np.pi / 4, 256, 192)],
)
def test_the_middle_of_a_view_is_where_the_camera_looks(yaw: float, pitch: float, column: int, row: int) -> None:
    middle = pinhole_view(panorama(), View(yaw, pitch, 0.0, 60.0), (65, 65))[32, 32].astype(float)
    assert middle == pytest.approx([column / 2, row, 90], abs=1.5)


def test_the_field_of_view_is_the_horizontal_one() -> None:
    line = pinhole_view(panorama(), View(0.0, 0.0, 0.0, 90.0), (32, 64))[16, :, 0].astype(float) * 2
    assert (line[-1] - line[0]) / (2 * ROWS) * 360 == pytest.approx(90, abs=2.5)
    assert (np.diff(line) >= 0).all()


def test_nothing_is_torn_where_the_panorama_closes() -> None:
    grey = np.full((ROWS, 2 * ROWS, 3), 120, np.uint8)
    assert (pinhole_view(grey, View(np.pi, 1.2, 0.1, 100.0), (48, 64)) == 120).all()


def test_roll_turns_the_horizon() -> None:
    level, rolled = (pinhole_view(panorama(), View(0.0, 0.0, roll, 60.0), (64, 64))[..., 1].astype(int) for roll in (0.0, 0.3))
    assert abs(level[32, 4] - level[32, -4]) <= 2
    assert abs(rolled[32, 4] - rolled[32, -4]) > 5


def test_the_command_writes_the_same_views_again_and_names_what_is_no_panorama(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), panorama()[..., ::-1])
    cv2.imwrite(str(tmp_path / "in" / "b.png"), panorama()[:, :300])
    for folder in ("one", "two"):
        assert main([str(tmp_path / "in"), "--output", str(tmp_path / folder), "--views", "3", "--size", "48", "64", "--seed", "4"]) == 0
    assert "left out 'b.png': 300x256 is not twice as wide as high" in capsys.readouterr().err
    first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert [path.name for path in first] == ["a.png-0000.jpg", "a.png-0001.jpg", "a.png-0002.jpg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert cv2.imread(str(first[0])).shape == (48, 64, 3)


def test_a_folder_without_panoramas_is_an_error(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "no files ending in" in capsys.readouterr().err


def test_views_vary() -> None:
    rng = np.random.default_rng(0)
    views = [draw_view(rng) for _ in range(200)]
    assert np.ptp([view.yaw for view in views]) > 5
    assert 45 <= min(view.fov_deg for view in views) < 50 < 90 < max(view.fov_deg for view in views) <= 95
