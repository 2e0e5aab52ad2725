#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them; arguments go to pytest (e.g. -m 'not slow').
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_venv test training
ruff check .
ruff format --check . || { echo "run: ruff format ." >&2; exit 1; }
mypy
exec python -m pytest -p no:launch_testing -p no:launch_ros "$@"
