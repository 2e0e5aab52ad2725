# Sourced by the other scripts: makes .venv in the checkout and installs this package into it with the extras it is given.
# Where ROS 2 is sourced its rclpy is used; elsewhere ROS 2 comes from its wheels (x86_64).

use_venv() { # use_venv EXTRA...
    local root python extras packages
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$python is older than Python 3.10; set PYTHON" >&2; return 1; }
    extras="$*"
    if "$python" -c 'import rclpy' 2>/dev/null; then
        [ -d "$root/.venv" ] || "$python" -m venv --system-site-packages "$root/.venv"
    else
        [ -d "$root/.venv" ] || "$python" -m venv "$root/.venv"
        extras="ros $extras"
        export AMENT_PREFIX_PATH="$root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
    fi
    # shellcheck disable=SC1091
    . "$root/.venv/bin/activate"
    packages="$root[$(echo $extras | tr ' ' ',')]"
    case " $extras " in *" training "*) install_torch ;; esac
    echo "installing $packages"
    pip install --quiet --disable-pip-version-check "$packages"
    cd "$root" || return 1
}

install_torch() { # the CPU build where it can be had: the index's own build brings gigabytes of CUDA
    python -c 'import torch' 2>/dev/null || pip install --quiet --disable-pip-version-check 'torch==2.13.0+cpu' 2>/dev/null ||
        pip install --quiet --disable-pip-version-check 'torch>=2.4'
}
