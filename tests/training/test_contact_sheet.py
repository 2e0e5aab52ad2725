"""Contact sheets: what is shown of videos and of rendered images, in which order, and how pictures are arranged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
from depth_anything_ros.structs import DepthMap
from training import contact_sheet
from training.contact_sheet import arrange, coloured, disparity_of, main

from .made_up import FOCAL_PX, SIZE_HW, MadeUp, scene


def write_video(path: Path, frames: int) -> Path:
    """Write grey frames, each a little brighter."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE_HW[::-1])
    for number in range(frames):
        writer.write(np.full((*SIZE_HW, 3), 20 * number, np.uint8))
    writer.release()
    return path


def test_disparity_is_the_inverse_of_metres_and_beyond_range_is_0() -> None:
    assert disparity_of(DepthMap(np.float32([[2, np.inf]]), "depth_m")).tolist() == [[0.5, 0]]
    assert disparity_of(DepthMap(np.float32([[2, 3]]), "disparity_affine_invariant")).tolist() == [[2, 3]]


def test_near_is_red_far_is_blue_unknown_is_black() -> None:
    near, far, unknown = coloured(np.array([[1.0, 0.1, np.nan]]))[0].astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert unknown.tolist() == [0, 0, 0]


def test_rows_are_arranged_column_by_column() -> None:
    rows = [np.full((10, 30, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = arrange(rows, 2)
    assert sheet.shape == (2 * 12, 2 * 32, 3)
    assert [sheet[row, column, 0] for row, column in ((5, 5), (17, 5), (5, 37), (17, 37))] == [10, 20, 30, 255]


def test_best_rendered_images_come_first_and_worst_last() -> None:
    def right_on_even(rgb: np.ndarray, focal_px: float | None) -> DepthMap:
        assert focal_px == FOCAL_PX
        number = next(index for index in range(6) if np.array_equal(scene(index)[0], rgb))
        depth = scene(number)[1]
        return DepthMap(depth if number % 2 == 0 else depth[::-1].copy(), "depth_m")

    rows = contact_sheet._render_rows([right_on_even], MadeUp(6), 3)
    shown = [next(index for index in range(6) if np.array_equal(scene(index)[0], row[0])) for row in rows]
    assert {number % 2 for number in shown[:3]} == {0}
    assert {number % 2 for number in shown[3:]} == {1}
    assert all(len(row) == 3 for row in rows)


def test_the_command_writes_a_sheet_of_the_frames_of_videos(tmp_path: Path, capsys) -> None:
    pytest.importorskip("onnxruntime")
    from depth_anything_ros.contract import DEFAULT_MODEL

    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.avi", 10)
    sheet = tmp_path / "sheet.png"
    assert main([str(DEFAULT_MODEL), "--videos", str(tmp_path / "videos"), "--frames", "2", "--height", "32", "--output", str(sheet)]) == 0
    picture = cv2.imread(str(sheet))
    assert picture.shape == (2 * 34, 2 * 48 + 2, 3)
    assert [round(picture[row, 20].mean() / 20) for row in (16, 50)] == [2, 7]
    assert "2 images" in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "none.onnx"), "--videos", str(tmp_path), "--output", str(tmp_path / "o.png")]) == 2
    assert "none.onnx" in capsys.readouterr().err
