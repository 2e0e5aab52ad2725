import json

import pytest

from depth_anything_ros import contract as contract_module
from depth_anything_ros.contract import DEFAULT_MODEL, METADATA_KEY, ModelContract, read_model_file, with_contract
from depth_anything_ros.errors import ContractError

from .models import tiny_contract, tiny_onnx, write_tiny_model


def test_contract_survives_the_file(tmp_path):
    contract = tiny_contract(output_kind="depth_canonical_focal", canonical_focal_px=300.0, max_depth_m=80.0, training={"steps": 5})
    path = tmp_path / "m.onnx"
    path.write_bytes(with_contract(tiny_onnx(), contract))
    model = read_model_file(path)
    assert model.contract == contract
    assert len(model.sha256) == 64


def test_onnx_library_reads_what_was_appended(tmp_path):
    import onnx

    path = write_tiny_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert json.loads({p.key: p.value for p in model.metadata_props}[METADATA_KEY])["name"] == "tiny"


def test_a_new_contract_takes_the_place_of_the_old_one(tmp_path):
    import onnx

    path = tmp_path / "m.onnx"
    path.write_bytes(with_contract(with_contract(tiny_onnx(), tiny_contract(name="old")), tiny_contract(name="new")))
    assert read_model_file(path).contract.name == "new"
    onnx.checker.check_model(onnx.load(path))  # refuses two entries of one key
    assert path.read_bytes() == with_contract(tiny_onnx(), tiny_contract(name="new"))


def test_what_is_no_model_gets_no_contract():
    with pytest.raises(ContractError, match="truncated or not ONNX"):
        with_contract(tiny_onnx()[:-3], tiny_contract())


def test_shipped_model_says_what_it_is():
    model = read_model_file(DEFAULT_MODEL)
    assert model.contract.is_metric
    assert model.contract.licence == "Apache-2.0"
    assert model.contract.training
    assert DEFAULT_MODEL.stat().st_size <= 4_000_000


def test_missing_file_says_which_parameter(tmp_path):
    with pytest.raises(ContractError, match="cannot read model file .*nothing.onnx.*No such file.*set the parameter 'model'"):
        read_model_file(tmp_path / "nothing.onnx")


def test_file_without_contract_says_how_to_add_one(tmp_path):
    (tmp_path / "m.onnx").write_bytes(tiny_onnx())
    with pytest.raises(ContractError, match=r"no contract.*python3 -m depth_anything_ros.contract"):
        read_model_file(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"not an onnx file at all", bytes(64), b"\xff" * 64, b"\x08\x07"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ContractError, match="not ONNX"):
        read_model_file(tmp_path / "m.onnx")


def test_every_truncation_is_refused(tmp_path):
    content = write_tiny_model(tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ContractError):
            read_model_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_kind": "depth"}, "output_kind 'depth' is not one of"),
        ({"output_kind": "depth_canonical_focal"}, "needs canonical_focal_px above 0"),
        ({"resize": "crop"}, "resize 'crop' is not one of"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"channel_order": "gbr"}, "channel_order 'gbr'"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (0.0, float("nan"), 0.0)}, "three finite values"),
        ({"input_sizes_hw": ()}, "at least one"),
        ({"size_multiple": 0}, "size_multiple 0 is below 1"),
        ({"max_depth_m": -1.0}, "max_depth_m -1.0 is not above 0"),
        ({"contract_version": 2}, "contract_version 2 is not 1"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ContractError, match=message):
        tiny_contract(**changes)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "x", "colour": 1}', '{"name": "x", "input_sizes_hw": 3}', '{"name": "x", "input_sizes_hw": [[Infinity, 3]]}']
)
def test_bad_json_is_refused(text):
    with pytest.raises(ContractError):
        ModelContract.from_json(text)


def test_command_line_adds_a_contract(tmp_path, capsys):
    (tmp_path / "m.onnx").write_bytes(tiny_onnx())
    (tmp_path / "c.json").write_text(tiny_contract(name="added").to_json())
    assert contract_module.main([str(tmp_path / "m.onnx"), str(tmp_path / "c.json"), str(tmp_path / "out.onnx")]) == 0
    assert read_model_file(tmp_path / "out.onnx").contract.name == "added"
    assert "added" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "m.onnx", "out.onnx"]
