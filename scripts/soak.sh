#!/usr/bin/env bash
# Half an hour of faults: a daemon with four cameras (a real RTSP server, a real MJPEG server, a program, a test picture), and one
# thing after another that happens to them, by a fixed seed. Everything has to recover, and nothing may add up.
#   --minutes 30   how long
#   --seed 1       which faults, in which order, for how long
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
board_env .venv-test "[test]"
rtsp_server
exec .venv-test/bin/python tests/lab/soak.py "$@"
