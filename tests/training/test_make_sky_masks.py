"""Sky masks from a SegFormer: a tiny network whose weights are set so that blue is sky; resume, records, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="runs a network")
transformers = pytest.importorskip("transformers", "5.23", reason="builds a SegFormer with transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

from training import make_sky_masks  # noqa: E402
from training.data.published import open_dataset  # noqa: E402
from training.data.sky import RECORD, WithSky, mask_path, read_mask  # noqa: E402
from training.make_sky_masks import SkySegmenter, main  # noqa: E402

from .published_trees import write_pfm  # noqa: E402

BLUE, RED = (40, 80, 250), (250, 80, 40)
CLASSES = {0: "wall", 1: "sky", **{number: f"thing {number}" for number in range(2, 40)}}  # more than are enlarged at a time


def write_segformer(folder: Path, classes: dict[int, str] | None = None, size: object = 64) -> Path:
    """Write a network that takes for class 1 what is more blue than red, and for class 0 what is more red than blue."""
    config = transformers.SegformerConfig(
        hidden_sizes=[2, 2, 2, 2],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=2,
        id2label=classes or CLASSES,
        label2id={name: number for number, name in (classes or CLASSES).items()},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, tensor in tensors.items():  # all blocks are the identity: what they add to their input is zero
        if "norm" in name and name.endswith(("weight", "running_var")):
            tensor.fill_(1)
    tensors["segformer.encoder.patch_embeddings.0.proj.weight"][:, :, 3, 3] = torch.tensor([[-1.0, 0, 1], [1, 0, -1]])  # blue, red
    tensors["decode_head.linear_c.0.proj.weight"][:] = torch.eye(2)
    tensors["decode_head.linear_fuse.weight"][:, 6:, 0, 0] = torch.eye(2)  # the finest features come last
    tensors["decode_head.classifier.weight"][:2, :, 0, 0] = torch.tensor([[0.0, 1], [1, 0]])
    tensors["decode_head.classifier.bias"][2:] = -1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    convention = {"size": size, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(convention))
    return folder


def picture(size_hw: tuple[int, int], sky_rows: int) -> np.ndarray:
    rgb = np.full((*size_hw, 3), RED, np.uint8)
    rgb[:sky_rows] = BLUE
    return rgb


def write_blendedmvs(root: Path, sizes_hw: list[tuple[int, int]]) -> Path:
    """Write one image and label for each size; the upper half is blue and unknown, the lower red and known."""
    for number, size_hw in enumerate(sizes_hw):
        path = root / "5a" / "blended_images" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(size_hw, size_hw[0] // 2)[..., ::-1])
        depth = np.full(size_hw, 3.0)
        depth[: size_hw[0] // 2] = 0
        write_pfm(root / "5a" / "rendered_depth_maps" / f"{number:08d}.pfm", depth)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segformer(tmp_path_factory.mktemp("segformer"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_blendedmvs(tmp_path / "data", [(64, 96), (64, 96), (96, 64), (128, 192), (64, 96)])


def make(data: Path, weights: Path, output: Path, *options: str) -> int:
    return main(["--data", f"blendedmvs:{data}", "--weights", str(weights), "--output", str(output), *options])


def record_of(output: Path) -> dict:
    return json.loads((output / RECORD).read_text())


@pytest.mark.parametrize("size_hw", [(64, 96), (150, 200), (64, 65), (300, 100)])
def test_blue_is_sky_at_the_photographs_size(size_hw: tuple[int, int], weights: Path) -> None:
    rows = size_hw[0] // 2
    sky = SkySegmenter(weights)([picture(size_hw, rows)])[0]
    assert (sky.shape, sky.dtype) == (size_hw, np.dtype(bool))
    border = 4 * max(1, size_hw[0] // 64)  # the network's cells are 4 pixels
    assert sky[: rows - border].all()
    assert not sky[rows + border :].any()


def test_a_batch_gives_what_single_images_give(weights: Path) -> None:
    segmenter = SkySegmenter(weights)
    images = [picture((64, 96), 20), picture((128, 192), 90), picture((65, 95), 0)]
    assert {segmenter.network_size_hw(image) for image in images} == {(64, 96)}
    for together, image in zip(segmenter(images), images):
        assert np.array_equal(together, segmenter([image])[0])


def test_the_class_is_where_the_logit_is_largest(weights: Path) -> None:
    """The classes are compared in parts; the result is that of all at once."""
    segmenter = SkySegmenter(weights)
    logits = torch.randn(1, len(CLASSES), 6, 9, generator=torch.Generator().manual_seed(0))
    logits[:, 1] += 1.5
    expected = torch.nn.functional.interpolate(logits, (25, 33), mode="bilinear").argmax(1)[0] == 1
    assert 0.1 < expected.float().mean() < 0.9
    assert np.array_equal(segmenter._is_sky(logits, (25, 33)), expected.numpy())


@pytest.mark.parametrize("size", [128, {"height": 128, "width": 128}])
def test_the_short_side_is_the_models_own(size: object, tmp_path: Path) -> None:
    segmenter = SkySegmenter(write_segformer(tmp_path, size=size))
    assert segmenter.network_size_hw(np.zeros((480, 640, 3), np.uint8)) == (128, 160)
    assert segmenter.network_size_hw(np.zeros((1000, 100, 3), np.uint8)) == (1280, 128)


def test_every_image_gets_a_mask_and_its_label_a_sky(data: Path, weights: Path, tmp_path: Path) -> None:
    assert make(data, weights, tmp_path / "masks", "--batch", "2") == 0
    dataset = open_dataset("blendedmvs", data)
    source = WithSky(dataset, tmp_path / "masks")
    for plain, filled in zip(dataset, source, strict=True):
        rows = plain.values.shape[0] // 2
        assert not plain.valid_mask[:rows].any()
        assert np.isposinf(filled.values[: rows - 8]).all()
        assert np.array_equal(filled.values[rows:], plain.values[rows:])
        assert np.array_equal(filled.valid_mask[:rows], filled.sky_mask[:rows])
    record = record_of(tmp_path / "masks")
    assert record["data"] == dataset.manifest()
    assert record["settings"]["class"] == {"id": 1, "name": "sky"}
    assert record["settings"]["weights"] == {"model.safetensors": make_sky_masks._sha256(weights / "model.safetensors")}
    assert (record["complete"], record["masks"], record["failures"]) == (True, 5, [])
    assert source.manifest() == dataset.manifest() | {"sky_masks": record["settings"]}


def test_a_stopped_run_goes_on_and_keeps_what_is_there(data: Path, weights: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    written, original = [], make_sky_masks.encode_mask

    def stopping(sky: np.ndarray) -> bytes:
        written.append(sky)
        if len(written) == 3:
            raise KeyboardInterrupt
        return original(sky)

    monkeypatch.setattr(make_sky_masks, "encode_mask", stopping)
    assert make(data, weights, tmp_path / "masks", "--batch", "1") == 130
    assert "goes on where it was" in capsys.readouterr().err
    assert record_of(tmp_path / "masks")["complete"] is False
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.png")}
    assert len(done) == 2
    assert make(data, weights, tmp_path / "masks") == 0
    assert len(written) == 3 + 3
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert sorted(path.name for path in (tmp_path / "masks").rglob("*")) == [*(f"{i:08d}.png" for i in range(5)), "5a", RECORD]


def test_images_that_cannot_be_read_are_counted(data: Path, weights: Path, tmp_path: Path) -> None:
    images = data / "5a" / "blended_images"
    (images / "00000001.jpg").write_bytes((images / "00000001.jpg").read_bytes()[:-40])
    (images / "00000003.jpg").unlink()
    assert make(data, weights, tmp_path / "masks") == 1
    assert record_of(tmp_path / "masks")["failures"] == [
        {"name": "5a/00000001", "reason": "unreadable image"},
        {"name": "5a/00000003", "reason": "label without its image"},
    ]
    assert record_of(tmp_path / "masks")["masks"] == 3
    assert read_mask(mask_path(tmp_path / "masks", "5a/00000004")).any()


def test_masks_of_other_weights_or_of_another_data_set_are_not_mixed_in(data: Path, weights: Path, tmp_path: Path, capsys) -> None:
    assert make(data, weights, tmp_path / "masks") == 0
    assert make(data, write_segformer(tmp_path / "other", size=96), tmp_path / "masks") == 2
    assert "holds masks of other settings; masks are not mixed: choose another --output" in capsys.readouterr().err
    write_blendedmvs(tmp_path / "more", [(64, 96)])
    assert make(tmp_path / "more", weights, tmp_path / "masks") == 2
    assert "holds masks of other data; masks are not mixed" in capsys.readouterr().err
    (tmp_path / "masks" / RECORD).write_text("")
    assert make(data, weights, tmp_path / "masks") == 2
    assert "is damaged" in capsys.readouterr().err


def test_folders_that_hold_no_sky_segmentation_are_refused(data: Path, weights: Path, tmp_path: Path, capsys) -> None:
    no_sky = write_segformer(tmp_path / "no_sky", {0: "wall", 1: "ceiling"})
    no_convention = write_segformer(tmp_path / "no_convention")
    (no_convention / "preprocessor_config.json").unlink()
    odd_convention = write_segformer(tmp_path / "odd_convention", size=0)
    truncated = write_segformer(tmp_path / "truncated")
    (truncated / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes()[:-100])
    partial = write_segformer(tmp_path / "partial")
    tensors = load_file(partial / "model.safetensors")
    save_file({name: tensors[name] for name in tensors if "classifier" not in name}, partial / "model.safetensors", {"format": "pt"})
    other = write_segformer(tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    for folder, message in [
        (tmp_path / "missing", "no folder '"),
        (no_sky, "has no class 'sky'"),
        (no_convention, "preprocessor_config.json' does not say how images are resized"),
        (odd_convention, "preprocessor_config.json' does not say how images are resized"),
        (truncated, "holds no SegFormer"),
        (partial, "lacks 2 tensors of its network"),
        (other, "holds no SegFormer (it holds a dinov2)"),
    ]:
        assert make(data, folder, tmp_path / "masks") == 2
        error = capsys.readouterr().err
        assert message in error
        assert "; download e.g. nvidia/segformer-b5-finetuned-ade-640-640 into a folder and give it by --weights" in error
    assert not (tmp_path / "masks").exists()


def test_other_wrong_calls_are_refused(data: Path, weights: Path, tmp_path: Path, capsys) -> None:
    assert main(["--data", f"blendedmvs@no:{data}", "--weights", str(weights), "--output", str(tmp_path / "masks")]) == 2
    assert "blendedmvs has no split 'no'" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert make(data, weights, tmp_path / "masks", "--device", "cuda") == 2
        assert "torch has no CUDA device here; use --device cpu" in capsys.readouterr().err
    for options in (["--data", "blendedmvs"], ["--data", ":b"], ["--batch", "0"]):
        with pytest.raises(SystemExit):
            make(data, weights, tmp_path / "masks", *options)


@pytest.mark.slow
def test_torchvision_is_not_needed(data: Path, weights: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torchvision'] = None; from training.make_sky_masks import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["--data", f"blendedmvs:{data}", "--weights", str(weights), "--output", str(tmp_path / "masks")]
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 5
