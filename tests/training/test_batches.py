"""Batches: a function of their number and the seed, shared out among processes, labels right by stage, broken images replaced."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from training.config import TrainingConfig, load_config  # noqa: E402
from training.data.batches import MAX_BROKEN, BatchMaker, batches, unit_range, validation_batches  # noqa: E402
from training.data.samples import DatasetError  # noqa: E402

from .made_up import FOCAL_PX, SIZE_HW, MadeUp, scene  # noqa: E402

PLAIN = ["perturb.jitter_probability=0", "perturb.blur_probability=0", "perturb.cutmix_probability=0"]


def _config(stage: str = "student", *overrides: str) -> TrainingConfig:
    return load_config(
        stage, None, ["data.sizes_hw=[[64, 96], [32, 64]]", "data.labelled_per_batch=2", "data.pseudo_per_batch=4", "data.min_zoom=0.6", *overrides]
    )


def _same(one, other) -> bool:
    return one.names == other.names and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one.tensors().values(), other.tensors().values())
    )


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    maker = BatchMaker(_config(), MadeUp(), MadeUp(20, "disparity_affine_invariant"))
    ahead = [maker.batch(number) for number in range(4)]
    fresh = BatchMaker(_config(), MadeUp(), MadeUp(20, "disparity_affine_invariant"))
    assert all(_same(fresh.batch(number), ahead[number]) for number in (3, 1, 2))
    assert not _same(BatchMaker(_config("student", "run.seed=1"), MadeUp(), MadeUp(20)).batch(0), ahead[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_other_processes_make_the_same_batches_in_order(workers: int) -> None:
    maker = BatchMaker(_config(), MadeUp(), MadeUp(20, "disparity_affine_invariant"))
    assert all(_same(one, maker.batch(number)) for number, one in zip(range(2, 7), batches(maker, 2, 7, workers), strict=True))


def test_processes_share_an_epoch_without_overlap() -> None:
    makers = [BatchMaker(_config("teacher"), MadeUp(12), None, rank, 2) for rank in range(2)]
    names = [name for number in range(3) for maker in makers for name in maker.batch(number).names]
    assert sorted(names) == sorted(f"made_up/{number}" for number in range(12))
    assert all(makers[0].batch(number).image.shape == makers[1].batch(number).image.shape for number in range(6)), "one size for all"


def test_shapes_and_the_order_labelled_first() -> None:
    batch = BatchMaker(_config("student", "data.sizes_hw=[[64, 96]]"), MadeUp(), MadeUp(20, "disparity_affine_invariant")).batch(0)
    assert batch.image.shape == (6, 3, 64, 96)
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert (batch.label.shape, batch.pseudo.disparity.shape) == ((2, 64, 96), (4, 64, 96))
    assert len(batch.names) == 6
    assert not batch.pseudo.own_region.all() or (batch.pseudo.partner == torch.arange(4)).all()


def test_labels_are_disparity_in_unit_range_with_the_sky_at_zero() -> None:
    batch = BatchMaker(_config("teacher", "data.sizes_hw=[[64, 96]]", "data.min_zoom=1"), MadeUp(), None).batch(0)
    for label, name in zip(batch.label.numpy(), batch.names):
        depth = scene(int(name.split("/")[1]))[1]
        expected = unit_range(1 / depth)
        assert np.array_equal(label, expected) or np.array_equal(label, expected[:, ::-1])
        assert (label.min(), label.max()) == (0, 1)


@pytest.mark.parametrize(("kind", "factor"), [("depth_m", 1.0), ("depth_canonical_focal", 300 / 288 * 64 / FOCAL_PX)])
def test_metric_labels_are_metres_of_the_camera_or_of_the_canonical_one(kind: str, factor: float) -> None:
    config = _config("metric", "data.sizes_hw=[[64, 96]]", f"metric.kind={kind}", "data.min_zoom=1")
    batch = BatchMaker(config, MadeUp(), None).batch(0)
    for label, name in zip(batch.label.numpy(), batch.names):
        depth = scene(int(name.split("/")[1]))[1] * np.float32(factor)
        assert float(batch.far_m[0]) == pytest.approx(80 * factor)
        assert np.allclose(label, depth) or np.allclose(label, depth[:, ::-1])


@pytest.mark.parametrize("focal_px", [20.0, 40.0, 80.0])
def test_beyond_range_is_decided_in_true_metres(focal_px: float) -> None:
    config = _config("metric", "data.sizes_hw=[[64, 96]]", "data.min_zoom=1", "metric.max_depth_m=10")
    batch = BatchMaker(config, MadeUp(12, focal_px=focal_px), None).batch(0)
    for label, name in zip(batch.label.numpy(), batch.names):
        far = scene(int(name.split("/")[1]))[1] >= 10
        assert np.array_equal(np.isinf(label), far) or np.array_equal(np.isinf(label), far[:, ::-1])
        assert label[np.isfinite(label)].max() < float(batch.far_m[0])


def test_a_zoom_brings_the_canonical_camera_nearer_and_keeps_metres() -> None:
    canonical, plain = (
        BatchMaker(_config("metric", f"metric.kind={kind}", "data.sizes_hw=[[64, 96]]", "data.min_zoom=0.3"), MadeUp(), None)
        for kind in ("depth_canonical_focal", "depth_m")
    )
    ratios = [float((canonical.batch(n).label / plain.batch(n).label)[i].nanmedian()) for n in range(6) for i in range(2)]
    whole = 300 / 288 * 64 / FOCAL_PX
    assert max(ratios) == pytest.approx(whole)
    assert whole * 0.3 <= min(ratios) < 0.8 * whole


def test_the_encoder_stage_learns_class_numbers() -> None:
    batch = BatchMaker(_config("encoder"), MadeUp(), None).batch(0)
    assert batch.label.dtype == torch.int64
    assert set(batch.label.unique().tolist()) <= {0, 1, 2}


def test_the_student_sees_perturbed_images_and_the_labels_stay_those_of_the_clean_ones() -> None:
    plain = BatchMaker(_config("student", *PLAIN), MadeUp(), MadeUp(20, "disparity_affine_invariant")).batch(1)
    strong = BatchMaker(_config("student", "perturb.jitter_probability=1"), MadeUp(), MadeUp(20, "disparity_affine_invariant")).batch(1)
    assert torch.equal(plain.image[:2], strong.image[:2]), "labelled images are not perturbed"
    assert all(not torch.allclose(a, b) for a, b in zip(plain.image[2:], strong.image[2:]))
    assert torch.equal(plain.pseudo.disparity, strong.pseudo.disparity)


def test_the_frozen_encoder_sees_the_students_image_unless_told_otherwise() -> None:
    pseudo = MadeUp(20, "disparity_affine_invariant")
    assert BatchMaker(_config("student"), MadeUp(), pseudo).batch(0).pseudo.frozen_image is None
    clean = BatchMaker(_config("student", "perturb.frozen_input=clean_mixed"), MadeUp(), pseudo).batch(0).pseudo.frozen_image
    assert clean.shape == (4, 3, *BatchMaker(_config("student"), MadeUp(), pseudo).batch(0).image.shape[2:])


def test_with_stability_every_fourth_image_comes_again_with_other_noise_and_the_same_label() -> None:
    batch = BatchMaker(_config("metric", "data.labelled_per_batch=6", "loss.stability=0.5"), MadeUp(), None).batch(0)
    assert batch.names[6:] == batch.names[:2]
    assert torch.equal(batch.label[6:].nan_to_num(), batch.label[:2].nan_to_num())
    change = (batch.image[6:] - batch.image[:2]).abs().mean()
    assert 0.01 < float(change) < 0.4 * float((batch.image[0] - batch.image[1]).abs().mean())
    others = BatchMaker(_config("metric", "data.labelled_per_batch=6"), MadeUp(), None).batch(0)
    assert torch.equal(others.image, batch.image[:6]), "the others are what they are without it"
    assert len(BatchMaker(_config("teacher", "loss.stability=0.5"), MadeUp(), None).batch(0).names) == 2


def test_broken_samples_are_replaced_and_named() -> None:
    batch_list = [BatchMaker(_config("teacher"), MadeUp(12, broken=(3, 7)), None).batch(number) for number in range(6)]
    skipped = [item for batch in batch_list for item in batch.skipped]
    assert {reason for reason, _ in skipped} == {"made to fail"}
    assert {"scene 3: made to fail", "scene 7: made to fail"} == {message for _, message in skipped}
    assert all(len(batch.names) == 2 and not {"made_up/3", "made_up/7"} & set(batch.names) for batch in batch_list)
    pickle.loads(pickle.dumps(batch_list))


def test_when_nothing_can_be_used_the_run_ends_and_says_why() -> None:
    maker = BatchMaker(_config("metric"), MadeUp(12, focal_px=None), None)
    with pytest.raises(DatasetError, match=f"{MAX_BROKEN} samples in a row cannot be used; the last: .*image of unknown focal length"):
        maker.batch(0)
    with pytest.raises(DatasetError, match=f"^{MAX_BROKEN} samples in a row"):
        next(batches(maker, 0, 2, workers=1))  # as the user would see it from the loop alone, not as a worker's traceback
    with pytest.raises(DatasetError, match="label that is not in metres"):
        BatchMaker(_config("metric"), MadeUp(12, "disparity_affine_invariant"), None).batch(0)


def test_validation_is_whole_images_without_chance() -> None:
    config = _config("teacher", "data.validation_images=5")
    given = list(validation_batches(config, MadeUp(12, broken=(0,))))
    assert [name for batch in given for name in batch.names] == ["2", "5", "8", "11"]
    assert given[0].skipped == (("made to fail", "scene 0: made to fail"),)
    np.testing.assert_array_equal(given[0].label[0].numpy(), 1 / scene(2)[1])
    assert not list(validation_batches(config, MadeUp(12, "disparity_affine_invariant"))), "no shift, no error of depth"
    assert given[0].label.shape[1:] == SIZE_HW


def test_unit_range_keeps_the_unknown_and_survives_the_constant() -> None:
    out = unit_range(np.array([[2.0, np.nan], [4.0, 3.0]]))
    np.testing.assert_array_equal(out, np.array([[0, np.nan], [1, 0.5]], np.float32))
    assert not unit_range(np.full((2, 2), 7.0)).any()
    assert np.isnan(unit_range(np.full((2, 2), np.nan))).all()
