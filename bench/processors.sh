#!/usr/bin/env bash
# How far prepared inputs and outputs differ between processors and runtimes: two tables, in Markdown. ARM boards are emulated
# (scripts/arm.sh). EDGE_RUNNER_MODELS names a folder with models and pictures of others; without it, only the digits are compared.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/scripts/arm.sh"
need_emulator
board_env .venv-test "[test]"
host="$ROOT/.venv-test/bin/python"
tool="$ROOT/bench/processors.py"
found=()

# measure NAME PYTHON RUNTIME
measure() {
    say "$1: measuring …"
    (cd "$WORK" && "$2" "$tool" measure "$WORK/goldens" --runtime "$3" >"$WORK/$1.json") || die "$1 could not be measured"
    found+=("$1=$WORK/$1.json")
}

"$host" "$tool" make "$WORK/goldens" ${EDGE_RUNNER_MODELS:+--models "$EDGE_RUNNER_MODELS"}
quietly "the wheel" "$host" -m build --no-isolation --wheel --outdir "$WORK/dist" "$ROOT"
for runtime in tflite-runtime ai-edge-litert; do
    measure "x86_64 $runtime" "$host" $runtime
done
for board in armhf arm64 pi5 trixie; do
    make_board $board "$WORK/$board" "$WORK"/dist/*.whl
    [ $board != pi5 ] || board_pip "$WORK/$board/bin/python" -m pip install "edge-runner[litert]" --find-links "$WORK/dist"
    for runtime in $("$WORK/$board/bin/python" -c "$RUNTIMES"); do
        measure "$board $runtime" "$WORK/$board/bin/python" "$runtime"
    done
done
"$host" "$tool" table "${found[@]}"
