# Sourced by the other scripts: makes .venv in the checkout and installs this package into it with the extras it is given.
# Where ROS 2 is sourced its rclpy is used; elsewhere ROS 2 comes from its wheels (x86_64).

use_venv() { # use_venv [EXTRA...]
    local root python extras sourced=""
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    python="${PYTHON:-python3}"
    command -v "$python" >/dev/null || { echo "there is no $python; install Python >= 3.10 or set PYTHON" >&2; return 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$python is older than Python 3.10; set PYTHON" >&2; return 1; }
    extras="$*"
    if [ -n "${ROS_DISTRO:-}" ] && "$python" -c 'import rclpy' 2>/dev/null; then
        sourced=yes
    elif [ "$(uname -m)" != x86_64 ]; then
        echo "the wheels of ROS 2 are for x86_64 only; on $(uname -m) install ROS 2 and source its setup.bash first" >&2
        return 1
    else
        extras="ros $extras"
        export AMENT_PREFIX_PATH="$root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
    fi
    make_venv "$root/.venv" "$python" "$sourced" || return 1
    # shellcheck disable=SC1091
    . "$root/.venv/bin/activate"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    # ROS's own cv_bridge is built for the system's numpy: keep that one.
    [ -z "$sourced" ] || export PIP_CONSTRAINT="$root/.venv/constraints.txt"
    [ -z "$sourced" ] || python -c 'import numpy; print(f"numpy=={numpy.__version__}")' >"$PIP_CONSTRAINT"
    case " $extras " in *" training "*) install_torch ;; esac
    extras="$(echo $extras | tr ' ' ',')"
    echo "installing depth_anything_ros${extras:+[$extras]} into .venv (the first time takes some minutes)"
    pip install --quiet "$root${extras:+[$extras]}"
    cd "$root" || return 1
}

make_venv() { # make_venv FOLDER PYTHON SOURCED; one that is not whole is made anew
    [ -f "$1/complete" ] && [ -x "$1/bin/pip" ] && return 0
    rm -rf "$1"
    if "$2" -m venv ${3:+--system-site-packages} "$1"; then
        touch "$1/complete"
    else
        rm -rf "$1"
        echo "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        return 1
    fi
}

install_torch() { # the CPU build where it can be had: the index's own build brings gigabytes of CUDA
    python -c 'import torch' 2>/dev/null || pip install --quiet 'torch==2.13.0+cpu' 2>/dev/null || pip install --quiet 'torch>=2.4'
}
