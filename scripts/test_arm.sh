#!/usr/bin/env bash
# Install the project's own wheel on an ARM board, and run it there: Debian and the real wheels for it, under QEMU. Needs Debian,
# with QEMU and mmdebstrap, or root to install them. How fast it is means nothing.
#   --armhf    a 32-bit board, with Debian's NumPy, OpenCV and YAML, instead of a 64-bit one
#   --trixie   a 64-bit board with Debian 13: Python 3.13 and LiteRT
#   --short    without the tests that are marked for it
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/arm.sh"
FRAMES=8
EXAMPLE="$ROOT/examples/digits"
unset PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV # a start takes seconds in emulation: let it keep what it compiled

board=
short=false
for option in "$@"; do
    case $option in
    --armhf | --trixie) board=$board${option#--} ;;
    --short) short=true ;;
    *) board=none ;;
    esac
done
case ${board:=arm64} in
arm64 | armhf | trixie) ;;
*) say "usage: scripts/test_arm.sh [--armhf | --trixie] [--short]" && exit 2 ;;
esac

# on_board COMMAND…: away from the checkout, so that there is nothing of it but the wheel.
on_board() { (cd "$WORK" && "$WORK/board/bin/$1" "${@:2}"); }

# step WHAT PATTERN COMMAND…: the command does it, and says the line that proves it.
step() {
    local proof
    quietly "$board: $1" "${@:3}"
    proof=$(grep -E "$2" "$WORK/log" | tail -n 1) || die "$board: $1: it went well, but does not say '$2'"
    say "$board: $1: $proof"
}

# demo BUNDLE PYTHON DIR: the digits demo on a few frames.
demo() {
    local mode=none
    [ "$1" = digits ] || mode=${1#digits-}
    (cd "$WORK" && "$2" "$EXAMPLE/demo.py" --quantize "$mode" --count $FRAMES --work "$3" --quiet)
}

# demos BUNDLE: the demo here and on the board, with the same frames, and whether it gives the same answers.
demos() {
    local here="$WORK/$1/here" there="$WORK/$1/there"
    demo "$1" "$host" "$here" &&
        mkdir -p "$there" && cp -r "$here/frames" "$here/frames-are" "$there" &&
        demo "$1" "$WORK/board/bin/python" "$there" &&
        "$host" "$ROOT/scripts/same_answers.py" "$here/results.jsonl" "$there/results.jsonl"
}

need_emulator
board_env .venv-test "[test]"
host="$ROOT/.venv-test/bin/python"
make_wheel "$host"
make_board "$board" "$WORK/board"
step --version "^$("$host" -m edge_runner --version)$" on_board edge-runner --version
for bundle in digits digits-int8; do
    step "inspect $bundle" "^goldens: hold" on_board edge-runner inspect "$EXAMPLE/models/$bundle"
    step "check $bundle" "^goldens +prepared" on_board edge-runner check --config "$EXAMPLE/digits.yaml" \
        --set model.path="$EXAMPLE/models/$bundle" --set camera.type=pattern
    step "demo $bundle" "^$FRAMES frames, the same answers" demos "$bundle"
done
if ! $short; then
    board_pip install pytest hypothesis
    on_board python -m pytest "$ROOT/tests" -c "$ROOT/setup.cfg" --rootdir "$ROOT" -p no:cacheprovider -q --no-header -m arm ||
        die "$board: the tests marked for it fail; they are named above"
fi
say "$board: all is well"
