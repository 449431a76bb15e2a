#!/usr/bin/env bash
# Set everything up and run every test: the board's part without TensorFlow, the builder's with it.
#   --board   only the board's part
# Other arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
board_only=false
if [ "${1:-}" = --board ]; then
    board_only=true
    shift
fi
cd "$ROOT"
board_env .venv-test "[test]"
rtsp_server
mqtt_broker
containers
# The tests of a file share what it sets up, such as a container.
.venv-test/bin/python -m pytest -m "not builder" -n auto --dist loadfile --no-loadscope-reorder "$@"
if ! $board_only; then
    builder_env "[build,test]"
    .venv-build/bin/python -m pytest -m builder -n auto "$@"
fi
