"""A bag with depth: nothing lost, nothing changed, every depth under the stamp of its image."""

import sqlite3

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from depth_anything_ros.bag import run
from depth_anything_ros.bag.__main__ import main
from depth_anything_ros.bag.messages import CAMERA_INFO, IMAGE, POINT_CLOUD, STORE
from depth_anything_ros.engines.synthetic_engine import depth_of_frame_number

from . import bags
from .bags import check_depths, convert, of_topic


@pytest.mark.parametrize(("storage", "raw"), [("mcap", True), ("mcap", False), ("sqlite3", True), ("sqlite3", False)])
def test_everything_that_was_there_and_depth_beside_it(tmp_path, storage, raw, capsys):
    source = bags.write_bag(tmp_path / "in", storage, raw=raw)
    assert convert(source, tmp_path / "out", "--cloud") == 0
    before, after = bags.read_bag(source), bags.read_bag(tmp_path / "out")
    made = {"/camera/depth/image", "/camera/depth/camera_info", "/camera/depth/points"}
    assert [message for message in after if message[0] not in made] == before
    assert [message[2] for message in after] == sorted(message[2] for message in after)
    assert {topic: of for topic, of in bags.topics_of(tmp_path / "out").items() if topic not in made} == bags.topics_of(source)
    assert bags.topics_of(source)["/chatter"][4] == [bags.QOS]
    check_depths(tmp_path / "out", "/camera/depth/image", 6)
    with bags.Reader(tmp_path / "out") as reader:
        assert reader.storage.metadata.custom == {"robot": "seven"}
    assert "6 depth images of 6 images, 6 clouds" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".yaml", ".mcap" if storage == "mcap" else ".db3"}


@pytest.mark.parametrize("compress", ["storage", "message", "file"])
def test_compressed_bag_is_read(tmp_path, compress):
    source = bags.write_bag(tmp_path / "in", compress=compress)
    assert convert(source, tmp_path / "out") == 0
    assert [message for message in bags.read_bag(tmp_path / "out") if "/depth/" not in message[0]] == bags.read_bag(source)


def test_single_file_is_read_and_the_storage_can_be_chosen(tmp_path):
    source = bags.write_bag(tmp_path / "in")
    assert convert(source / "in.mcap", tmp_path / "out", "--storage", "sqlite3") == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["metadata.yaml", "out_0.db3"]
    assert [message for message in bags.read_bag(tmp_path / "out") if "/depth/" not in message[0]] == bags.read_bag(source)


def test_several_publishers_of_a_topic_keep_their_messages_and_qos(tmp_path):
    with bags.BagWriter(tmp_path / "in") as bag:
        bag.add("/chatter", bags.STRING, bags.START_NS, bags.text(0))
        other = bag.writer.add_connection("/chatter", bags.STRING, typestore=STORE, offered_qos_profiles=[bags.QOS._replace(depth=9)])
        bag.writer.write(other, bags.START_NS + 1, bags.text(1))
        bag.add("/image", IMAGE, bags.START_NS + 2, bags.image(0))
    assert convert(tmp_path / "in", tmp_path / "out") == 0
    assert of_topic(tmp_path / "out", "/chatter") == [(bags.START_NS, bags.text(0)), (bags.START_NS + 1, bags.text(1))]
    assert [qos.depth for qos in bags.topics_of(tmp_path / "out")["/chatter"][4]] == [7, 9]


def test_old_database_without_definitions_is_copied(tmp_path):
    """As Humble writes it; nothing in it says what the unknown type is."""
    database = sqlite3.connect(tmp_path / "in.db3")
    database.executescript(
        "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL); INSERT INTO schema VALUES (3, 'humble');"
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);"
    )
    database.executemany("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '')", [(1, "/image", IMAGE), (2, "/things", bags.THING)])
    rows = [(1, bags.START_NS, bags.image(0)), (2, bags.START_NS + 1, b"\0\1\0\0abc")]
    database.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()
    assert convert(tmp_path / "in.db3", tmp_path / "out") == 0
    assert of_topic(tmp_path / "out", "/things") == [(bags.START_NS + 1, b"\0\1\0\0abc")]
    topics = bags.topics_of(tmp_path / "out")
    assert topics["/image"][1].data == STORE.generate_msgdef(IMAGE, ros_version=2)[0]
    assert topics["/image"][2] == STORE.hash_rihs01(IMAGE)
    assert (topics["/things"][0], topics["/things"][1].data, topics["/things"][2]) == (bags.THING, "", "INVALID")
    check_depths(tmp_path / "out", "/depth/image", 1)


def test_outputs_follow_their_image_in_the_file(tmp_path):
    assert convert(bags.write_bag(tmp_path / "in", frames=2), tmp_path / "out", "--cloud") == 0
    names = [message[0] for message in bags.read_bag(tmp_path / "out")]
    camera = ["camera_info", "image_raw", "depth/camera_info", "depth/image", "depth/points"]
    assert names == ["/chatter", "/things", *(f"/camera/{name}" for name in camera)] * 2


def test_camera_info_and_cloud_are_the_depth_images(tmp_path):
    source = bags.write_bag(tmp_path / "in", frames=1)
    assert convert(source, tmp_path / "out", "--cloud", "--set", "depth.downsample=2", "--set", "cloud.fields=xyz") == 0
    ((_, info),) = of_topic(tmp_path / "out", "/camera/depth/camera_info")
    info = STORE.deserialize_cdr(info, CAMERA_INFO)
    assert (info.header, info.height, info.width, info.k[0], info.k[2]) == (bags.header(0), 24, 32, 30.0, 16.0)
    ((_, cloud),) = of_topic(tmp_path / "out", "/camera/depth/points")
    cloud = STORE.deserialize_cdr(cloud, POINT_CLOUD)
    points = cloud.data.view(np.float32).reshape(24, 32, 3)
    z = depth_of_frame_number(0)
    np.testing.assert_allclose(points[0, 0], [-16 / 30 * z, -12 / 30 * z, z], rtol=1e-5)


def test_bag_without_camera_info_gets_depth_but_no_cloud_and_says_so(tmp_path, capsys):
    assert convert(bags.write_bag(tmp_path / "in", info=False), tmp_path / "out", "--cloud") == 0
    assert not of_topic(tmp_path / "out", "/camera/depth/points")
    check_depths(tmp_path / "out", "/camera/depth/image", 6)
    assert capsys.readouterr().err.count("camera not calibrated: no camera_info has arrived; depth has no cloud and no calibration") == 1


def test_first_image_has_the_camera_info_that_comes_after_it(tmp_path):
    with bags.BagWriter(tmp_path / "in") as bag:
        for number in range(3):
            bag.add("/image", IMAGE, bags.START_NS + number * bags.PERIOD_NS, bags.image(number))
        bag.add("/camera_info", CAMERA_INFO, bags.START_NS + 10**9, bags.camera_info(0))
    assert convert(tmp_path / "in", tmp_path / "out", "--cloud") == 0
    assert len(of_topic(tmp_path / "out", "/depth/points")) == 3


def several_cameras(path):
    with bags.BagWriter(path) as bag:
        for number in range(3):
            stamp_ns = bags.START_NS + number * bags.PERIOD_NS
            bag.add("/left/image_raw", IMAGE, stamp_ns, bags.image(number))
            bag.add("/left/image_raw/compressed", "sensor_msgs/msg/CompressedImage", stamp_ns, bags.compressed(number))
            bag.add("/right/image_raw/compressed", "sensor_msgs/msg/CompressedImage", stamp_ns, bags.compressed(number))
            bag.add("/tof/depth/image", IMAGE, stamp_ns, bags.image(number, "16UC1"))
    return path


def test_every_camera_gets_depth_once_and_what_is_no_picture_is_left_out(tmp_path, capsys):
    source = several_cameras(tmp_path / "in")
    assert convert(source, tmp_path / "out") == 0
    for camera in ("left", "right"):
        check_depths(tmp_path / "out", f"/{camera}/depth/image", 3)
    assert not any(topic.startswith("/tof/depth/depth") for topic in bags.topics_of(tmp_path / "out"))
    said = capsys.readouterr().err
    assert "/left/image_raw/compressed: left out, /left/image_raw has the same pictures" in said
    assert "/tof/depth/image: left out, image encoding '16UC1' is not one of" in said


def test_cameras_have_nothing_in_common_from_frame_to_frame(tmp_path, monkeypatch):
    seen = []
    real = run.Pipeline.__call__
    monkeypatch.setattr(run.Pipeline, "__call__", lambda self, frame, *rest: seen.append(id(self)) or real(self, frame, *rest))
    assert convert(several_cameras(tmp_path / "in"), tmp_path / "out") == 0
    assert sorted(seen.count(pipeline) for pipeline in set(seen)) == [3, 3]


def test_topics_choose(tmp_path, capsys):
    source = several_cameras(tmp_path / "in")
    assert convert(source, tmp_path / "out", "--topics", "/right/image_raw/compressed", "--output-name", "predicted") == 0
    check_depths(tmp_path / "out", "/right/predicted/image", 3)
    assert not of_topic(tmp_path / "out", "/left/predicted/image")
    assert convert(source, tmp_path / "no", "--topics", "/left/image_raw", "/left/image_raw/compressed") == 2
    assert "would both write /left/depth/image: choose one with --topics" in capsys.readouterr().err
    assert convert(source, tmp_path / "no", "--topics", "/up/image") == 2
    said = capsys.readouterr().err
    assert "no image topic /up/image in the bag; it has:" in said
    assert "/tof/depth/image (sensor_msgs/msg/Image, 3 messages)" in said
    assert not (tmp_path / "no.partial").exists()


def test_unreadable_images_are_copied_counted_and_reported_once(tmp_path, capsys):
    with bags.BagWriter(tmp_path / "in") as bag:
        for number in range(6):
            stamp_ns = bags.START_NS + number * bags.PERIOD_NS
            bag.add("/image", IMAGE, stamp_ns, bags.image(number, "rgb8" if number < 3 else "8SC7"))
        bag.add("/image", IMAGE, bags.START_NS + 10**9, b"\x00\x01\x00\x00no image")
    assert convert(tmp_path / "in", tmp_path / "out") == 1
    assert of_topic(tmp_path / "out", "/image") == of_topic(tmp_path / "in", "/image")
    check_depths(tmp_path / "out", "/depth/image", 3)
    said = capsys.readouterr()
    assert said.err.count("/image: image copied without depth: image encoding '8SC7'") == 1
    assert "3 depth images of 7 images, 4 images could not be decoded" in said.out


def test_relative_model_writes_relative_depth_only(tmp_path):
    options = ["--set", "synthetic.output_kind=disparity_affine_invariant"]
    assert convert(bags.write_bag(tmp_path / "in"), tmp_path / "out", *options) == 0
    assert len(of_topic(tmp_path / "out", "/camera/depth/relative")) == 6
    assert not of_topic(tmp_path / "out", "/camera/depth/image")
    assert convert(tmp_path / "in", tmp_path / "scaled", *options, "--set", "scale.mode=fixed") == 0
    check_depths(tmp_path / "scaled", "/camera/depth/image", 6)


def test_parameters_come_from_the_nodes_file_and_set_goes_over_it(tmp_path, capsys):
    pytest.importorskip("yaml", reason="needs PyYAML")
    source = bags.write_bag(tmp_path / "in", frames=1)
    (tmp_path / "p.yaml").write_text("/**:\n  ros__parameters:\n    depth: {encoding: 16UC1, downsample: 4}\n    engine: synthetic\n")
    assert main([str(source), str(tmp_path / "out"), "--params-file", str(tmp_path / "p.yaml"), "--set", "depth.downsample=2"]) == 0
    ((_, data),) = of_topic(tmp_path / "out", "/camera/depth/image")
    message = STORE.deserialize_cdr(data, IMAGE)
    assert (message.encoding, message.height, set(message.data.view(np.uint16).tolist())) == ("16UC1", 24, {250})
    for wrong, said in (("depth.downsample=x", "depth.downsample: 'x' is not a whole number"), ("dept=1", "dept: no such parameter")):
        assert convert(source, tmp_path / "no", "--set", wrong) == 2
        assert said in capsys.readouterr().err


def test_mistakes_are_told_before_anything_is_made(tmp_path, capsys):
    source = bags.write_bag(tmp_path / "in")
    (tmp_path / "there").mkdir()
    with bags.BagWriter(tmp_path / "no_images") as bag:
        bag.add("/chatter", bags.STRING, bags.START_NS, bags.text(0))
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "noise_0.mcap").write_bytes(b"noise" * 100)
    cases = [
        (source, source, f"IN and OUT are the same, '{source}'"),
        (source, tmp_path / "there", "there' exists already"),
        (source, tmp_path / "out.mcap", "OUT is the folder of a bag: write"),
        (tmp_path / "gone", tmp_path / "out", "there is no bag"),
        (tmp_path / "no_images", tmp_path / "out", "no image topic in the bag; it has:\n  /chatter (std_msgs/msg/String, 1 messages)"),
        (tmp_path / "noise", tmp_path / "out", "cannot read bag"),
    ]
    for given, output, said in cases:
        assert convert(given, output) == 2
        assert said in capsys.readouterr().err
    assert convert(source, tmp_path / "with_depth") == 0
    assert convert(tmp_path / "with_depth", tmp_path / "again", "--topics", "/camera/image_raw") == 2
    assert "already has /camera/depth/image, /camera/depth/camera_info: give the new topics another name" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "no_images", "noise", "there", "with_depth"]
