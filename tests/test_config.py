import dataclasses
from pathlib import Path

import pytest

from depth_anything_ros.config import PARAMETERS, RuntimeConfig, markdown_table
from depth_anything_ros.config_cameras import advice_for, camera_configs, own_parameter
from depth_anything_ros.errors import ConfigError


def test_every_parameter_has_text_and_every_number_a_range():
    for parameter in PARAMETERS.values():
        assert len(parameter.text) > 10, parameter.name
        if parameter.type in (int, float):
            assert parameter.low < parameter.high, parameter.name
            assert parameter.low <= parameter.default <= parameter.high, parameter.name


def test_defaults_are_acceptable():
    defaults = {name: p.default for name, p in PARAMETERS.items()}
    assert RuntimeConfig().updated(defaults) == RuntimeConfig()


def test_update_changes_only_what_it_names():
    config = RuntimeConfig().updated({"cloud.stride": 3, "scale.factor": 2})
    assert (config.cloud.stride, config.scale.factor) == (3, 2.0)
    assert dataclasses.replace(config, cloud=RuntimeConfig().cloud, scale=RuntimeConfig().scale) == RuntimeConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cloud.stride": 0}, "cloud.stride: 0 is outside 1 .. 64"),
        ({"cloud.stride": 1.5}, "cloud.stride: 1.5 is not a whole number"),
        ({"cloud.stride": True}, "cloud.stride: True is not a whole number"),
        ({"autostart": 1}, "autostart: 1 is not true or false"),
        ({"scale.factor": float("nan")}, "scale.factor: nan is not finite"),
        ({"depth.encoding": "mono8"}, "depth.encoding: 'mono8' is not one of 32FC1, 16UC1"),
        ({"scale.reference.quat_xyzw": ["a"]}, r"scale.reference.quat_xyzw: \['a'\] is not a list of numbers"),
        ({"scale.reference.translation_m": 1.0}, "scale.reference.translation_m: 1.0 is not a list of numbers"),
        ({"scale.reference.translation_m": [0, 0, float("inf")]}, "scale.reference.translation_m: inf is not finite"),
        ({"scale.reference.translation_m": [0, 0, 1]}, "have 3 and 0 numbers: give 3 and 4, or none for TF"),
        ({"onnxruntime.providers": [1.0]}, r"onnxruntime.providers: \[1.0\] is not a list of texts"),
        ({"no.such": 1}, "no.such: no such parameter"),
        ({"color.near_m": 20.0}, r"color.far_m \(10\) must be above color.near_m \(20\)"),
        ({"cloud.min_m": 3.0, "cloud.max_m": 2.0}, r"cloud.max_m \(2\) must be 0 or above cloud.min_m \(3\)"),
        ({"cloud.far_policy": "clamp"}, "cloud.far_policy clamp needs cloud.max_m"),
        ({"cloud.min_height_m": 0.1}, "cloud.min_height_m and cloud.max_height_m need camera.height_m"),
        (
            {"cloud.min_height_m": 2.0, "cloud.max_height_m": 1.0, "camera.height_m": 0.5},
            r"cloud.max_height_m \(1\) must be above cloud.min_height_m \(2\)",
        ),
        ({"scan.min_height_m": 1.0}, r"scan.max_height_m \(1\) must be above scan.min_height_m \(1\)"),
        ({"scan.min_m": 9.0}, r"scan.max_m \(8\) must be above scan.min_m \(9\)"),
    ],
)
def test_bad_values_say_what_is_wrong(values, message):
    with pytest.raises(ConfigError, match=message):
        RuntimeConfig().updated(values)


def test_values_are_checked_together():
    assert RuntimeConfig().updated({"color.near_m": 20.0, "color.far_m": 30.0}).color.near_m == 20.0


def test_readme_table_is_the_generated_one():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert markdown_table() in readme, "README.md: put the output of `python3 -m depth_anything_ros.config` into the parameters section"


def test_every_parameter_stands_in_a_test_of_the_node_or_an_engine():
    """That a parameter changes something is shown where it acts; this only finds the ones that nobody thought of."""
    folder = Path(__file__).parent
    tests = [path for path in (*folder.glob("test_*.py"), *folder.glob("stand_ins/*_cases.py")) if path.name != "test_config.py"]
    text = "".join(path.read_text() for path in tests)
    forgotten = [name for name in PARAMETERS if name not in text and name.replace(".", "__") not in text]
    assert not forgotten


def test_one_camera_without_a_name_has_the_values_as_they_are():
    assert camera_configs({"cloud.stride": 3}) == {"": RuntimeConfig().updated({"cloud.stride": 3})}


def test_a_camera_has_its_own_values_over_the_shared_ones():
    configs = camera_configs({"cameras": ["front", "left"], "cloud.stride": 3, "depth.max_m": 8.0, "left.cloud.stride": 4, "front.depth.max_m": 5})
    assert [(name, config.cloud.stride, config.depth.max_m) for name, config in configs.items()] == [("front", 3, 5.0), ("left", 4, 8.0)]


def test_what_may_change_any_time_is_a_cameras_own_and_the_model_is_not():
    own = {name for name, parameter in PARAMETERS.items() if parameter.per_camera}
    assert own == {name for name, parameter in PARAMETERS.items() if parameter.when == "live"} | {"image_transport"}
    assert own_parameter("front.depth.max_m", ["front"]).name == "front.depth.max_m"
    for name in ("front.model", "front.cameras", "left.depth.max_m", "depth.max_m", "front", "front."):
        assert own_parameter(name, ["front"]) is None, name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cameras": ["front", "front"]}, "cameras: 'front' is there more than once"),
        ({"cameras": ["front/left"]}, "cameras: 'front/left' is no name of a camera: letters, digits and _, not a digit first"),
        ({"cameras": ["1"]}, "cameras: '1' is no name"),
        ({"cameras": [""]}, "cameras: '' is no name"),
        ({"cameras": ["front.left"]}, "cameras: 'front.left' is no name"),
        ({"cameras": ["f\N{LATIN SMALL LETTER U WITH DIAERESIS}r"]}, "is no name"),
        ({"cameras": ["camera"]}, "cameras: 'camera' begins the names of parameters: give the camera another name"),
        ({"cameras": ["qos_overrides"]}, "begins the names of parameters"),
        ({"cameras": "front"}, "cameras: 'front' is not a list of texts"),
        ({"cameras": ["front"], "front.cloud.stride": 0}, "^front.cloud.stride: 0 is outside 1 .. 64"),
        ({"cameras": ["front"], "cloud.stride": 0}, "^cloud.stride: 0 is outside 1 .. 64"),
        ({"cameras": ["front"], "front.color.near_m": 20.0}, r"^camera 'front': color.far_m \(10\) must be above color.near_m \(20\)"),
        ({"cameras": ["front"], "left.cloud.stride": 2}, "left.cloud.stride: no such parameter"),
        ({"front.cloud.stride": 2}, "front.cloud.stride: no such parameter"),
    ],
)
def test_bad_cameras_say_what_is_wrong(values, message):
    with pytest.raises(ConfigError, match=message):
        camera_configs(values)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cloud.strid", "; did you mean 'cloud.stride'?"),
        ("front.cloud.strid", "; did you mean 'front.cloud.stride'?"),
        ("fron.cloud.stride", "; did you mean 'front.cloud.stride'?"),
        ("arm.cloud.stride", "; there is no camera 'arm' in cameras"),
        ("front.model", "; 'model' is not a camera's own: it counts for the whole node"),
        ("clud.stride", "; did you mean 'cloud.stride'?"),
        ("something.else.entirely", ""),
    ],
)
def test_advice_for_names_that_do_not_exist(name, advice):
    assert advice_for(name, ["front", "left"]) == advice
