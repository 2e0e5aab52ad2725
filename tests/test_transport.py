import pytest

from depth_anything_ros import transport
from depth_anything_ros.transport import profile_environment, profile_path


def test_profile_is_found_in_the_checkout():
    assert "16777216" in profile_path().read_text()


@pytest.mark.parametrize(("rclpy_major", "variable"), [(9, "FASTDDS_DEFAULT_PROFILES_FILE"), (7, "FASTRTPS_DEFAULT_PROFILES_FILE")])
def test_profile_is_set_in_the_variable_that_the_distribution_reads(monkeypatch, rclpy_major, variable):
    monkeypatch.setattr(transport, "_rclpy_major", lambda: rclpy_major)
    assert profile_environment({"PATH": "/bin"}) == {variable: str(profile_path())}


@pytest.mark.parametrize("variable", transport.PROFILE_VARIABLES)
@pytest.mark.parametrize("value", ["/home/me/mine.xml", ""])
def test_what_the_user_has_set_stays(variable, value):
    assert profile_environment({variable: value}) == {}
