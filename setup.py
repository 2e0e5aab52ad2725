"""Package for pip and colcon: the runtime alone. `training/` is run from the checkout with the extra `training`."""

from glob import glob

from setuptools import setup

PACKAGE = "depth_anything_ros"

ROS_FROM_PYPI = [
    "ros-rclpy[fastrtps]",
    "ros-sensor-msgs",
    "ros-std-msgs",
    "ros-diagnostic-msgs",
    "ros-lifecycle-msgs",
    "ros-rcl-interfaces",
    "ros-std-srvs",
]
TRAINING = ["torch>=2.4", "onnx", "onnxscript", "safetensors", "pyyaml", "pydantic>=2", "tensorboard", "moderngl", "trimesh", "pillow"]
# not nvidia-modelopt[onnx]: that brings cupy and an onnxruntime of its own
QUANTISE = ["nvidia-modelopt>=0.42", "onnx", "onnxscript", "onnx-graphsurgeon", "onnxconverter-common", "onnxslim", "polygraphy", "lief"]
TEST = [
    *QUANTISE,
    *["pytest", "hypothesis", "psutil", "rosbags>=0.11", "nvidia-cuda-nvrtc"],
    *["onnx", "h5py", "OpenEXR>=3.3", "scipy", "ray", "transformers>=5.23"],  # for tests of training/
    *["ruff==0.17.*", "mypy==2.4.*", "colcon-common-extensions", "setuptools<80", "wheel"],
]

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Depth Anything as a ROS 2 perception node: camera images in, metric depth images and point clouds out.",
    license="Apache-2.0",
    author="depth_anything_ros maintainers",
    author_email="maintainers@example.org",
    python_requires=">=3.10",
    packages=[PACKAGE, f"{PACKAGE}.bag", f"{PACKAGE}.cuda", f"{PACKAGE}.demo", f"{PACKAGE}.engines"],
    package_data={PACKAGE: ["models/*.onnx", "py.typed", "cuda/*.h", "cuda/*.cu"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*")),
        (f"lib/{PACKAGE}", ["scripts/depth_node"]),  # `ros2 run`: pip knows no lib/<package> for entry points
    ],
    install_requires=["numpy", "opencv-python-headless", "onnxruntime", "tqdm"],
    extras_require={
        "ros": ROS_FROM_PYPI,  # x86_64 only; elsewhere ROS 2 comes from its own packages
        "test": TEST,
        "training": TRAINING,
        "datasets": ["h5py", "OpenEXR>=3.3", "scipy"],  # Hypersim, MegaDepth, NYUv2; IRS; splits of NYUv2
        "ray": ["ray"],  # pseudo-labels on a cluster
        "bags": ["rosbags>=0.11", "pyyaml"],  # bags offline
        "cuda": ["pycuda", "nvidia-cuda-nvrtc"],  # the engine `tensorrt`; TensorRT itself comes from NVIDIA
        "quantise": QUANTISE,  # export --precision fp16 and int8
        "sky": ["transformers>=5.23"],  # sky masks by SegFormer
    },
    zip_safe=True,
)
