#!/usr/bin/env bash
# Camera, depth node and recorder over real ROS 2 topics, for some seconds; results in demo_out/. See --help.
set -euo pipefail
here="$PWD"
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_venv
cd "$here"
exec python -m depth_anything_ros.demo "$@"
