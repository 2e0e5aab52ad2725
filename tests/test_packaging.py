"""What pip and colcon make of the package: versions, dependencies and installed files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import depth_anything_ros

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "depth_anything_ros"
SHARED = (
    "package.xml",
    "launch/depth.launch.py",
    "config/depth.yaml",
    "config/depth.rviz",
    "config/fastdds_shm16.xml",
    "launch/nav2_depth.launch.py",
)
LEFT_OUT = (".*", "build", "install", "log", "training", "tests", "docs", "benchmarks", "*.egg-info", "__pycache__")


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def setup_keyword(name: str) -> object:
    """Return a literal keyword of setup.py's call of setup()."""
    calls = [n for n in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    return next(ast.literal_eval(keyword.value) for keyword in calls[0].keywords if keyword.arg == name)


def test_versions_are_equal_everywhere() -> None:
    assert package_xml().findtext("version") == setup_keyword("version") == depth_anything_ros.__version__


def test_description_licence_and_maintainer_are_the_same_in_both_files() -> None:
    maintainer = package_xml().find("maintainer")
    assert maintainer is not None
    assert package_xml().findtext("description") == setup_keyword("description")
    assert package_xml().findtext("license") == setup_keyword("license") == "Apache-2.0"
    assert maintainer.get("email") == setup_keyword("author_email")


def test_maintainers_address_is_one_that_colcon_accepts() -> None:
    """With another one, colcon takes the package for a plain Python package and leaves launch files and index marker out."""
    for maintainer in package_xml().iterfind("maintainer"):
        assert re.fullmatch(r"[-a-zA-Z0-9_%+]+(\.[-a-zA-Z0-9_%+]+)*@[-a-zA-Z0-9%]+(\.[-a-zA-Z0-9%]+)*\.[a-zA-Z]{2,}", maintainer.get("email", ""))


def test_package_needs_no_torch() -> None:
    needed = [element.text or "" for element in package_xml() if element.tag.endswith("depend")]
    assert needed
    assert [name for name in needed if "torch" in name] == []
    assert [name for name in setup_keyword("install_requires") if "torch" in name] == []


def source_tree(target: Path) -> Path:
    """Copy the files that git tracks or would track; without git, all but what a build leaves behind."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        return target
    for name in listed.stdout.splitlines():
        if name.startswith(("training/", "tests/")) or not (ROOT / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def run(command: list[str], cwd: Path) -> str:
    """Run a build command without what a pip-installed ROS puts into the environment; return its output."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONPATH")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def assert_package_is_complete(prefix: Path, modules: Path) -> None:
    """Check an installation.

    Args:
        prefix: the folder with share/ and lib/.
        modules: the folder with the Python package.
    """
    share = prefix / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / PACKAGE).is_file()
    for name in SHARED:
        assert (share / PACKAGE / name).read_bytes() == (ROOT / name).read_bytes(), name
    script = prefix / "lib" / PACKAGE / "depth_node"
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!")
    for source in (ROOT / PACKAGE).rglob("*.py"):
        assert (modules / PACKAGE / source.relative_to(ROOT / PACKAGE)).is_file(), f"{source.relative_to(ROOT)} is not installed"
    for model in (ROOT / PACKAGE / "models").glob("*.onnx"):
        assert (modules / PACKAGE / "models" / model.name).stat().st_size == model.stat().st_size
    assert (modules / PACKAGE / "py.typed").is_file()
    assert not (modules / "training").exists()
    assert not (modules / "tests").exists()


@pytest.fixture(scope="module")
def colcon() -> str:
    found = shutil.which("colcon", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("colcon is not installed (pip install colcon-common-extensions 'setuptools<80')")
    return found


@pytest.mark.slow
def test_colcon_builds_an_ament_package(colcon: str, tmp_path: Path) -> None:
    source_tree(tmp_path / "src" / PACKAGE)
    assert run([colcon, "list"], tmp_path).split() == [PACKAGE, f"src/{PACKAGE}", "(ros.ament_python)"]
    run([colcon, "build"], tmp_path)
    prefix = tmp_path / "install" / PACKAGE
    assert (prefix / "share" / PACKAGE / "package.bash").is_file()
    (modules,) = prefix.glob("lib/python3*/site-packages")
    assert_package_is_complete(prefix, modules)


@pytest.mark.slow
def test_pip_installs_the_same_files(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools", reason="pip builds with the setuptools that is installed")
    if tuple(map(int, setuptools.__version__.split(".")[:2])) < (70, 1):
        pytest.importorskip("wheel", reason=f"setuptools {setuptools.__version__} builds no wheels without the package 'wheel'")
    tree = source_tree(tmp_path / "tree")
    target = tmp_path / "target"
    quiet = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--no-warn-script-location"]
    run([sys.executable, "-m", "pip", "install", *quiet, "--prefix", str(target), str(tree)], tmp_path)
    (module,) = target.rglob(f"*-packages/{PACKAGE}/__init__.py")
    (script,) = target.rglob(f"lib/{PACKAGE}/depth_node")
    assert_package_is_complete(script.parents[2], module.parents[1])
