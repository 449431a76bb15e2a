#!/usr/bin/env bash
# How far prepared inputs and outputs differ between processors and runtimes: two tables, in Markdown. The ARM boards are emulated, as
# scripts/test_arm.sh does. EDGE_RUNNER_MODELS names a folder with models and pictures of others; without it, only digits are compared.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/scripts/arm.sh"
unset PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV
rows=()

# measure NAME PYTHON RUNTIME: a row of the tables.
measure() {
    say "$1, $3: measuring …"
    (cd "$WORK" && "$2" "$ROOT/bench/processors.py" measure "$WORK/goldens" --runtime "$3") >"$WORK/${#rows[@]}.json" || die "$1 cannot be measured"
    rows+=("$1, $3=$WORK/${#rows[@]}.json")
}

need_emulator
board_env .venv-test "[test]"
host="$ROOT/.venv-test/bin/python"
"$host" "$ROOT/bench/processors.py" make "$WORK/goldens" ${EDGE_RUNNER_MODELS:+--models "$EDGE_RUNNER_MODELS"}
make_wheel "$host"
measure "$(uname -m)" "$host" ai-edge-litert
for board in arm64 pi5 trixie armhf; do
    extra=
    [ $board != pi5 ] || extra="[litert]"
    make_board $board "$WORK/$board" "$extra"
    [ $board = trixie ] || measure "$ARCH $PROCESSOR, Debian $SUITE" "$WORK/$board/bin/python" tflite-runtime
    case $board in pi5 | trixie) measure "$ARCH $PROCESSOR, Debian $SUITE" "$WORK/$board/bin/python" ai-edge-litert ;; esac
    rm -rf "${WORK:?}/$board"
done
"$host" "$ROOT/bench/processors.py" table "${rows[@]}"
