"""What the stages minimise: which losses are in the total, and what they do not see."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pydantic", reason="training needs pydantic")

from training.config import TrainingConfig, load_config  # noqa: E402
from training.data.batches import Batch, PseudoBatch  # noqa: E402
from training.losses import affine_invariant_loss  # noqa: E402
from training.networks import Prediction, build_network  # noqa: E402
from training.objectives import MetricObjective, RelativeObjective, SemanticEncoder, SemanticObjective, class_shares  # noqa: E402

COMPACT = ["network.architecture={channels: [4, 8, 8, 8, 16], blocks: [1, 1, 1], context_layers: 1, decoder: 8}"]


def _config(stage: str, *overrides: str) -> TrainingConfig:
    return load_config(stage, None, [*COMPACT, *overrides])


def _batch(image: torch.Tensor, label: torch.Tensor, pseudo: PseudoBatch | None, far_m: float = 80.0) -> Batch:
    return Batch(image, label, torch.full((len(label),), far_m), pseudo, ())


def _pseudo(count: int, size_hw: tuple[int, int]) -> PseudoBatch:
    region = torch.ones(count, *size_hw, dtype=torch.bool)
    return PseudoBatch(torch.rand(count, *size_hw), torch.arange(count), region, torch.randn(count, 3, *size_hw))


def test_the_teacher_minimises_the_affine_invariant_loss_alone() -> None:
    values, label = torch.rand(2, 32, 32), torch.rand(2, 32, 32)
    losses = RelativeObjective(_config("teacher"))(lambda _: Prediction(values, torch.zeros(2, 1, 4)), _batch(torch.zeros(2, 3, 32, 32), label, None))
    assert set(losses) == {"labelled", "total"}
    torch.testing.assert_close(losses["total"], affine_invariant_loss(values, label, torch.ones_like(label, dtype=torch.bool)))


def test_the_student_averages_three_losses_and_each_sees_its_own_images() -> None:
    torch.manual_seed(0)
    config = _config("student")
    frozen = build_network(config).eval()
    batch = _batch(torch.randn(5, 3, 32, 64), torch.rand(2, 32, 64), _pseudo(3, (32, 64)))
    perfect = torch.cat([2 * batch.label + 1, batch.pseudo.disparity])
    tokens = torch.cat([torch.randn(2, 2, 16), frozen.tokens(batch.pseudo.frozen_image)])
    losses = RelativeObjective(config, frozen)(lambda _: Prediction(perfect, tokens), batch)
    assert all(float(value) < 1e-5 for value in losses.values()), "scale and shift of either label do not matter"
    other = RelativeObjective(config, frozen)(lambda _: Prediction(perfect.flip(0), tokens.flip(0)), batch)
    assert all(float(other[name]) > 0.05 for name in ("labelled", "unlabelled", "features"))
    torch.testing.assert_close(other["total"], (other["labelled"] + other["unlabelled"] + other["features"]) / 3)


def test_without_a_frozen_encoder_two_losses_are_averaged() -> None:
    batch = _batch(torch.zeros(4, 3, 32, 32), torch.rand(2, 32, 32), _pseudo(2, (32, 32)))
    losses = RelativeObjective(_config("student"))(lambda _: Prediction(torch.rand(4, 32, 32), torch.zeros(4, 1, 4)), batch)
    torch.testing.assert_close(losses["total"], (losses["labelled"] + losses["unlabelled"]) / 2)


def test_unknown_pixels_of_a_label_do_not_count() -> None:
    values, label = torch.rand(1, 32, 32), torch.rand(1, 32, 32)
    label[:, :10] = torch.nan
    objective = RelativeObjective(_config("teacher", "loss.gradient=2"))
    results = []
    for junk in (0.0, 100.0):
        changed = values.clone()
        changed[:, :10] = junk
        batch = _batch(torch.zeros(1, 3, 32, 32), label, None)
        results.append(float(objective(lambda _, v=changed: Prediction(v, torch.zeros(1, 1, 4)), batch)["total"]))
    assert results[0] == results[1] > 0


def test_gradient_matching_is_an_option() -> None:
    values, label = torch.rand(1, 32, 32), torch.rand(1, 32, 32)
    batch = _batch(torch.zeros(1, 3, 32, 32), label, None)
    plain, more = (
        float(RelativeObjective(_config("teacher", f"loss.gradient={weight}"))(lambda _: Prediction(values, torch.zeros(1, 1, 4)), batch)["total"])
        for weight in (0, 2)
    )
    assert more > plain + 0.1


def test_metric_losses_are_zero_for_the_truth_and_the_sky_only_asks_for_far_enough() -> None:
    config = _config("metric", "loss.metric_affine=1", "loss.metric_gradient=0.5", "loss.beyond=0.3", "metric.max_depth_m=80")
    label = 1 + 20 * torch.rand(1, 32, 32)
    label[:, :8] = torch.inf
    log_depth = torch.log(torch.where(torch.isinf(label), 1e9, label))
    batch = _batch(torch.zeros(1, 3, 32, 32), label, None)
    losses = MetricObjective(config)(lambda _: Prediction(log_depth, torch.zeros(1, 1, 4)), batch)
    assert float(losses["total"]) < 1e-3
    just_far_enough = torch.where(torch.isinf(label), torch.log(torch.tensor(80.0)), log_depth)
    assert float(MetricObjective(config)(lambda _: Prediction(just_far_enough, torch.zeros(1, 1, 4)), batch)["beyond"]) == 0
    assert (
        float(
            MetricObjective(config)(lambda _: Prediction(just_far_enough, torch.zeros(1, 1, 4)), replace(batch, far_m=torch.tensor([160.0])))[
                "beyond"
            ]
        )
        > 0.6
    )
    near_sky = torch.where(torch.isinf(label), 0.0, log_depth)
    assert float(MetricObjective(config)(lambda _: Prediction(near_sky, torch.zeros(1, 1, 4)), batch)["beyond"]) > 4
    twice = MetricObjective(_config("metric"))(lambda _: Prediction(log_depth + 0.6931472, torch.zeros(1, 1, 4)), batch)
    torch.testing.assert_close(twice["silog"], torch.tensor(0.5**0.5 * 0.6931472), rtol=1e-3, atol=1e-4)


def test_class_shares_are_the_parts_of_a_square() -> None:
    ids = torch.zeros(1, 4, 8, dtype=torch.int64)
    ids[0, :2, :4] = 1  # upper half of the left square
    ids[0, 0, 7] = 2  # one of 16 pixels of the right one
    torch.testing.assert_close(class_shares(ids, 4, 3), torch.tensor([[[0.5, 0.5, 0], [15 / 16, 0, 1 / 16]]]))


def test_semantic_pretraining_reaches_the_encoder_alone() -> None:
    torch.manual_seed(0)
    network = build_network(_config("encoder"))
    model, objective = SemanticEncoder(network, 5), SemanticObjective(network.token_px, 5)
    batch = _batch(torch.randn(2, 3, 64, 64), torch.randint(0, 5, (2, 64, 64)), None)
    objective(model, batch)["total"].backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for name in with_gradient if not name.startswith("head.")} == {
        f"network.{name}" for name, _ in network.named_parameters() if network.is_encoder(name)
    }
    uniform = replace(batch, label=torch.zeros_like(batch.label))
    assert 0 <= float(objective(model, uniform)["accuracy"]) <= 1


def test_depth_that_changes_when_an_image_is_retaken_costs_and_only_where_it_is_asked_for() -> None:
    label = (1 + 20 * torch.rand(4, 32, 32))[[0, 1, 2, 3, 0]]  # four images, the first of them retaken
    log_depth = torch.log(label)
    log_depth[-1] += 0.2
    batch = _batch(torch.zeros(5, 3, 32, 32), label, None)
    sizes = "data.labelled_per_batch=4"
    plain = MetricObjective(_config("metric", sizes))(lambda _: Prediction(log_depth, torch.zeros(1, 1, 4)), batch)
    losses = MetricObjective(_config("metric", sizes, "loss.stability=0.5"))(lambda _: Prediction(log_depth, torch.zeros(1, 1, 4)), batch)
    assert float(losses["stability"]) == pytest.approx(0.2, abs=1e-5)
    assert float(losses["total"] - plain["total"]) == pytest.approx(0.1, abs=1e-5)
    assert "stability" not in plain


def test_pseudo_labels_shape_the_metric_networks_disparity_and_leave_its_metres_alone() -> None:
    label, pseudo = 1 + 20 * torch.rand(2, 32, 32), _pseudo(3, (32, 32))
    right = torch.cat([torch.log(label), -torch.log(0.1 + 5 * pseudo.disparity)])
    wrong = torch.cat([torch.log(label), torch.log(0.1 + 5 * pseudo.disparity)])
    objective, batch = MetricObjective(_config("metric", "loss.metric_affine=1")), _batch(torch.zeros(5, 3, 32, 32), label, pseudo)
    losses = objective(lambda _: Prediction(right, torch.zeros(1, 1, 4)), batch)
    assert all(float(value) < 1e-3 for value in losses.values()), "any scale and shift of a pseudo-label is right"
    other = objective(lambda _: Prediction(wrong, torch.zeros(1, 1, 4)), batch)
    assert float(other["unlabelled"]) > 0.5
    assert float(other["silog"]) == float(losses["silog"])
