#!/usr/bin/env bash
# Half an hour of faults: a daemon with four cameras (a real RTSP server, a real MJPEG server, a program, a test picture), and one
# thing after another that happens to them, by a fixed seed. Everything has to recover, and nothing may add up. Then a daemon is
# killed 300 times, while its broker fails too: nothing that was acknowledged may be lost.
#   --minutes 30   how long the cameras fail; 0 leaves them out
#   --kills 300    how often it is killed
#   --seed 1       which faults, in which order, for how long
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
minutes=30 kills=300 seed=1
while [ $# -gt 1 ]; do
    case $1 in
        --minutes) minutes=$2 ;;
        --kills) kills=$2 ;;
        --seed) seed=$2 ;;
        *) break ;;
    esac
    shift 2
done
[ $# = 0 ] || die "$1? It knows --minutes, --kills and --seed, each with a number"
cd "$ROOT"
board_env .venv-test "[test]"
rtsp_server
mqtt_broker
[ "$minutes" = 0 ] || .venv-test/bin/python tests/lab/soak.py --minutes "$minutes" --seed "$seed"
[ "$kills" = 0 ] || .venv-test/bin/python tests/lab/kills.py --kills "$kills" --seed "$seed"
