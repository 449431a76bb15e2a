#!/usr/bin/env bash
# Install the project's own wheel on an ARM board, and run it there: Debian and the real wheels for it, under QEMU. Needs Debian, and
# root once. How fast it is means nothing.
#   --armhf    a 32-bit board, with Debian's NumPy, OpenCV and YAML, instead of a 64-bit one
#   --trixie   a 64-bit board with Debian 13: Python 3.13 and LiteRT
#   --short    without the tests that are marked for it
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/arm.sh"
FRAMES=8
EXAMPLE="$ROOT/examples/digits"
unset PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV # a start takes seconds in emulation: let it keep what it compiled

board=arm64
short=false
for option in "$@"; do
    case $option in
    --armhf | --trixie) board=${option#--} ;;
    --short) short=true ;;
    *) say "usage: scripts/test_arm.sh [--armhf | --trixie] [--short]" && exit 2 ;;
    esac
done

# on_board COMMAND…: away from the checkout, so that there is nothing of it but the wheel.
on_board() { (cd "$WORK" && "$WORK/board/bin/$1" "${@:2}"); }

# step WHAT COMMAND…: show what the board said of it in a few words.
step() {
    quietly "$board: $1" "${@:2}"
    say "$board: $1: $(grep -E "^(goldens|edge-runner|[0-9]+ frames)" "$WORK/log" | tail -n 1 | sed -E 's/^goldens:? +//')"
}

# demo BUNDLE PYTHON DIR: the digits demo on a few frames.
demo() {
    local mode=none
    [ "$1" = digits ] || mode=${1#digits-}
    (cd "$WORK" && "$2" "$EXAMPLE/demo.py" --quantize $mode --count $FRAMES --work "$3" --quiet)
}

# demos BUNDLE: the demo on the board, with the same frames as here, and whether it gives the same answers.
demos() {
    demo "$1" "$host" "$WORK/here"
    mkdir -p "$WORK/there"
    cp -r "$WORK"/here/frames "$WORK"/here/frames-are "$WORK/there"
    demo "$1" "$WORK/board/bin/python" "$WORK/there"
    "$host" "$ROOT/scripts/same_answers.py" "$WORK"/{here,there}/results.jsonl
}

need_emulator
board_env .venv-test "[test]"
host="$ROOT/.venv-test/bin/python"
quietly "the wheel" "$host" -m build --no-isolation --outdir "$WORK/dist" "$ROOT"
make_board $board "$WORK/board" "$WORK"/dist/*.whl
step --version on_board edge-runner --version
grep -qx "$("$host" -m edge_runner --version)" "$WORK/log" || die "$board: --version is not this checkout's, $("$host" -m edge_runner --version)"
for bundle in digits digits-int8; do
    step "inspect $bundle" on_board edge-runner inspect "$EXAMPLE/models/$bundle"
    step "check $bundle" on_board edge-runner check --config "$EXAMPLE/digits.yaml" \
        --set model.path="$EXAMPLE/models/$bundle" --set camera.type=pattern
    step "demo $bundle" demos $bundle
done
if ! $short; then
    board_pip install pytest hypothesis
    on_board python -m pytest "$ROOT/tests" -c "$ROOT/setup.cfg" --rootdir "$ROOT" -p no:cacheprovider -q --no-header -m arm ||
        die "$board: the tests marked for it fail; they are named above"
fi
say "$board: all is well"
