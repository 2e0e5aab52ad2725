#!/usr/bin/env bash
# Measures the node between two processes (latency by stage, rates, memory, loss) and prints JSON. See --help.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_venv test
exec python -m benchmarks.node "$@"
