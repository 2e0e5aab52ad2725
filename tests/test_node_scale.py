"""The scale measured by the running node: against sensors and the floor, lost and found again, and refused where it must be."""

import sys
import types

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (source it, or pip install '.[ros]')")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from sensor_msgs.msg import Image, Imu, LaserScan, PointCloud2, Range  # noqa: E402

from depth_anything_ros.errors import ConfigError  # noqa: E402
from depth_anything_ros.structs import DepthMap  # noqa: E402

from . import measured  # noqa: E402
from .measured import IMAGE_HW, LASER, NETWORK_HW, black_image, cloud, depth_image, info_of, laser_scan, range_ahead, truth_m  # noqa: E402
from .raytraced import relative  # noqa: E402
from .rig import BEST_EFFORT, pixels  # noqa: E402

pytestmark = pytest.mark.ros
S = 1_000_000_000
KINDS = {"scan": LaserScan, "cloud": PointCloud2, "range": Range, "depth_image": Image}
EXTRINSICS = {f"scale__reference__{key}": value for key, value in LASER.items()}


class Scene:
    """A node whose network gives a map of the room, and a sensor beside its camera."""

    def __init__(self, rig, network_map, topic="reference", kind=LaserScan, **parameters):
        self.rig = rig(synthetic__output_kind=network_map.kind, **parameters)
        self.rig.node._engine.infer = lambda tensor: network_map.values[None]
        self.publisher = self.rig.peer.create_publisher(kind, topic, BEST_EFFORT)
        self.stamp_ns = 10 * S

    def frame(self, message=None, step_ns=S // 10):
        """Send a sensor's message and an image, and wait until the image is through; returns the depth image, None where none came."""
        r, before = self.rig, len(self.rig.got["depth/image"])
        self.stamp_ns += step_ns
        if message is not None:
            r.wait(self.publisher.get_subscription_count, "the sensor's subscription")
            sent = message(self.stamp_ns)
            self.publisher.publish(sent)
            r.wait(lambda: (m := r.channel.inputs.sensors._messages.find(self.stamp_ns)) and m.header == sent.header, "the sensor's message")
        done = r.total("published") + r.total("withheld")
        image = black_image(self.stamp_ns)
        r.send(image, info_of(image))
        r.wait(lambda: r.total("published") + r.total("withheld") > done, "the frame")
        if r.channel.health.no_depth_reason:
            return None
        r.wait(lambda: len(r.got["depth/image"]) > before, "depth")
        return pixels(r.got["depth/image"][-1])


def median_error(depth, truth=None):
    return float(np.median(np.abs(depth / (truth_m(IMAGE_HW) if truth is None else truth) - 1)))


def relative_room(noise=0.01):
    return relative(truth_m(NETWORK_HW), 0.37, 0.05, noise, np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["scan", "cloud", "depth_image"])
def test_relative_model_becomes_metric_against_a_sensor(rig, kind):
    message = {"scan": laser_scan, "cloud": cloud, "depth_image": depth_image}[kind]
    given = {} if kind == "depth_image" else EXTRINSICS
    scene = Scene(rig, relative_room(), kind=KINDS[kind], scale__mode="reference", scale__reference__type=kind, **given)
    errors = [median_error(depth) for _ in range(10) if (depth := scene.frame(message)) is not None]
    assert len(errors) == 10
    assert errors[-1] < 0.02
    _, values = scene.rig.status(lambda s: s.level == DiagnosticStatus.OK and s.message == "running")
    assert float(values["scale.factor"]) == pytest.approx(0.37, rel=0.03)
    assert (values["scale.held"], values["scale.problem"], values["scale_mode"]) == ("false", "", "reference")


def test_metric_model_gets_a_factor_from_one_range(rig):
    seen = DepthMap(truth_m(NETWORK_HW) * 1.6, "depth_m")
    scene = Scene(rig, seen, kind=Range, scale__mode="reference", scale__reference__type="range", **EXTRINSICS)
    depth = scene.frame(range_ahead)
    assert depth is not None, scene.rig.channel.health.no_depth_reason
    assert median_error(depth) < 0.02


def test_scale_is_held_after_loss_given_up_and_found_again(rig):
    scene = Scene(rig, relative_room(), scale__mode="reference", scale__max_age_s=1.0, **EXTRINSICS)
    assert scene.frame() is None
    assert scene.rig.channel.health.no_depth_reason == "no reference has arrived"
    for _ in range(3):
        scene.frame(laser_scan)
    held = scene.frame(step_ns=S // 2)
    assert median_error(held) < 0.02
    status, values = scene.rig.status(lambda s: "is held" in s.message)
    assert status.level == DiagnosticStatus.WARN
    assert "the nearest reference is 0.500 s before the image" in status.message
    assert (values["scale.held"], values["scale.age_s"]) == ("true", "0.5")
    assert scene.frame(step_ns=S) is None
    status, values = scene.rig.status(lambda s: s.message.startswith("no metric depth"))
    assert (status.level, values["scale.factor"]) == (DiagnosticStatus.WARN, "none")
    assert median_error(scene.frame(laser_scan)) < 0.02


def test_sensor_of_the_images_time_is_used_however_long_the_network_takes(rig, monkeypatch):
    scene = Scene(rig, relative_room(), scale__mode="reference", scale__reference__max_dt_s=0.02, **EXTRINSICS)
    sensors, infer = scene.rig.channel.inputs.sensors, scene.rig.node._engine.infer

    def slow(tensor):
        for later in range(1, 4):  # the sensor goes on meanwhile, and what is older than a second is forgotten
            sensors._store(laser_scan(scene.stamp_ns + later * S))
        return infer(tensor)

    monkeypatch.setattr(scene.rig.node._engine, "infer", slow)
    depth = scene.frame(laser_scan)
    assert depth is not None, scene.rig.channel.health.no_depth_reason
    assert median_error(depth) < 0.02


def test_topic_that_cannot_be_subscribed_to_is_a_reason_and_the_node_goes_on(rig):
    cli = ["-p", "qos_overrides./reference.subscription.reliability:=nonsense"]
    scene = Scene(rig, relative_room(), cli_args=cli, **EXTRINSICS)
    assert scene.rig.set_parameters(scale__mode="reference")[0].successful
    assert scene.frame() is None
    assert "cannot subscribe to reference" in scene.rig.channel.health.no_depth_reason
    assert scene.rig.set_parameters(scale__mode="fixed", scale__factor=0.37, scale__offset=0.05)[0].successful
    assert median_error(scene.frame()) < 0.02


def test_without_extrinsics_there_is_no_depth_and_the_reason_is_clear(rig):
    scene = Scene(rig, relative_room(), scale__mode="reference")
    assert scene.frame(laser_scan) is None
    status, _ = scene.rig.status(lambda s: s.message.startswith("no metric depth"))
    assert "no transform from 'laser' to 'cam'" in status.message
    assert "set scale.reference.translation_m and scale.reference.quat_xyzw" in status.message
    assert scene.rig.got["depth/image"] == []


def test_picture_shows_the_relative_map_until_there_is_a_scale(rig):
    scene = Scene(rig, relative_room(), scale__mode="reference", subscribe=("depth/image", "depth/color"), **EXTRINSICS)
    assert scene.frame() is None
    scene.rig.wait(lambda: scene.rig.got["depth/color"], "picture")


@pytest.fixture
def tf2_ros(monkeypatch):
    """A stand-in for tf2_ros with the names that are used of it, since PyPI has none; `known` holds its transforms."""
    module, known = types.ModuleType("tf2_ros"), {}

    class TransformException(Exception):
        pass

    class Buffer:
        def lookup_transform(self, target, source, time):
            if (target, source) not in known:
                raise TransformException(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
            (tx, ty, tz), (x, y, z, w) = known[target, source]
            found = TransformStamped()
            t, q = found.transform.translation, found.transform.rotation
            t.x, t.y, t.z, q.x, q.y, q.z, q.w = (float(v) for v in (tx, ty, tz, x, y, z, w))
            return found

    class TransformListener:
        def __init__(self, buffer, node):
            module.listeners += 1

        def unregister(self):
            module.listeners -= 1

    module.TransformException, module.Buffer, module.TransformListener, module.listeners = TransformException, Buffer, TransformListener, 0
    module.known = known
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module


def test_extrinsics_from_tf(rig, tf2_ros):
    scene = Scene(rig, relative_room(), scale__mode="reference")
    assert scene.frame(laser_scan) is None
    assert "in TF" in scene.rig.channel.health.no_depth_reason
    tf2_ros.known["cam", "laser"] = LASER["translation_m"], LASER["quat_xyzw"]
    assert median_error(scene.frame(laser_scan)) < 0.02
    assert tf2_ros.listeners == 1
    scene.rig.node.trigger_deactivate()
    assert tf2_ros.listeners == 0


HEIGHT_M, PITCH_DEG = 0.6, 12.0
TILTED_QUAT = (np.cos(np.radians(PITCH_DEG) / 2), 0, 0, 0)


def floor_truth(size_hw):
    hall = measured.Room((-2.0, -12.0, 0.0), (14.0, 12.0, 5.0), [((1.5, -0.4, 0), (2.1, 0.3, 0.5))])
    return truth_m(size_hw, PITCH_DEG, (0, 0, HEIGHT_M), hall)


def floor_relative():
    return relative(floor_truth(NETWORK_HW), 0.37, 0.05, 0.01, np.random.default_rng(0))


def floor_T_camera():
    """Return translation and quaternion of the camera in the floor's frame: level and forward first, then down by the pitch."""
    half = np.radians(90 + PITCH_DEG) / 2  # about x of a frame whose z is forward: Rz(-90) Rx(-90 - pitch)
    s, c, r = np.sin(half), np.cos(half), np.sqrt(0.5)
    return (0, 0, HEIGHT_M), (-r * s, r * s, -r * c, r * c)


def test_ground_plane_by_parameters_makes_metres(rig):
    mounted = {"camera__height_m": HEIGHT_M, "camera__pitch_deg": PITCH_DEG, "camera__roll_deg": 0.0}
    scene = Scene(rig, floor_relative(), scale__mode="ground_plane", scale__ground__source="parameters", **mounted)
    for _ in range(3):
        depth = scene.frame()
    assert median_error(depth, floor_truth(IMAGE_HW)) < 0.02
    assert scene.rig.status()[1]["scale.held"] == "false"


def test_ground_plane_by_tf(rig, tf2_ros):
    scene = Scene(rig, floor_relative(), scale__mode="ground_plane", scale__ground__source="tf", scale__ground__frame="floor")
    assert scene.frame() is None
    assert "no transform from 'cam' to 'floor' in TF" in scene.rig.channel.health.no_depth_reason
    tf2_ros.known["floor", "cam"] = floor_T_camera()
    assert median_error(scene.frame(), floor_truth(IMAGE_HW)) < 0.02


def test_ground_plane_by_imu(rig, tf2_ros):
    imu = {"scale__mode": "ground_plane", "scale__ground__source": "imu", "camera__height_m": HEIGHT_M}
    scene = Scene(rig, floor_relative(), "imu", Imu, **imu)
    tf2_ros.known["cam", "imu_link"] = (0, 0, 0), LASER["quat_xyzw"]
    assert scene.frame() is None
    assert "direction of the floor is not known" in scene.rig.channel.health.no_depth_reason
    assert median_error(scene.frame(lambda stamp_ns: measured.imu(stamp_ns, PITCH_DEG)), floor_truth(IMAGE_HW)) < 0.02


def test_height_of_zero_is_refused(rig):
    with pytest.raises(ConfigError, match="ground_plane needs camera.height_m above 0"):
        rig(scale__mode="ground_plane")
    (result,) = rig().set_parameters(scale__mode="ground_plane")
    assert not result.successful
    assert "height_m above 0" in result.reason


def test_mode_and_extrinsics_may_change_while_running(rig):
    scene = Scene(rig, relative_room(), scale__mode="none")
    assert scene.frame() is None
    (result,) = scene.rig.set_parameters(scale__mode="reference", **EXTRINSICS)
    assert result.successful, result.reason
    scene.frame()  # subscribes
    assert median_error(scene.frame(laser_scan)) < 0.02
    (result,) = scene.rig.set_parameters(scale__reference__quat_xyzw=[0.0, 0.0, 0.0, 0.5])
    assert "not a quaternion of length 1" in result.reason
    (result,) = scene.rig.set_parameters(scale__reference__quat_xyzw=[])
    assert "give 3 and 4, or none for TF" in result.reason
    (result,) = scene.rig.set_parameters(scale__reference__translation_m=[0, 0, 1], scale__reference__quat_xyzw=[0, 0, 0, 1])
    assert result.successful, result.reason


def no_xyz(stamp_ns):
    return cloud(stamp_ns, "abc")


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        ("scan", lambda t: laser_scan(t, []), "only 0 usable points"),
        ("scan", lambda t: laser_scan(t, [np.nan] * 481), "only 0 usable points"),
        ("cloud", no_xyz, "cloud: no field x, y, z; it has a, b, c"),
    ],
    ids=["empty scan", "scan of NaN", "cloud without xyz"],
)
def test_bad_messages_hold_the_last_good_scale_and_are_told_once(rig, kind, bad, reason):
    good = laser_scan if kind == "scan" else cloud
    scene = Scene(rig, relative_room(), kind=KINDS[kind], scale__mode="reference", scale__reference__type=kind, **EXTRINSICS)
    said = []
    scene.rig.channel.log._logger = types.SimpleNamespace(warning=said.append, error=said.append)
    scene.frame(good)
    for _ in range(5):
        assert median_error(scene.frame(bad)) < 0.02
    assert reason in scene.rig.status(lambda s: "is held" in s.message)[0].message
    assert len([line for line in said if reason in line]) == 1
    assert scene.rig.total("failed") == 0
    assert median_error(scene.frame(good)) < 0.02
    assert not scene.rig.channel.health.scale.held
