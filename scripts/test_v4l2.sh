#!/usr/bin/env bash
# Read cameras through Linux's own drivers, in a virtual machine: vivid's test pictures, and a USB webcam that a program plays
# (tests/system/webcam.py), with udev. Needs Debian on x86_64, and QEMU and mmdebstrap, or root to install them. How fast it is means nothing.
#   --only WORD   the checks with this word in their names
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/machine.sh"
TIME_LIMIT_S=1800

only=
case "${1:-}" in
"") ;;
--only) only=${2:?"--only WORD"} ;;
*) say "usage: scripts/test_v4l2.sh [--only WORD]" && exit 2 ;;
esac

# run_machine: what the checks say on its console goes to the terminal, all of it to a log.
run_machine() {
    timeout $TIME_LIMIT_S qemu-system-x86_64 -machine "q35,accel=$ACCELERATOR" -cpu max -smp 2 -m $MEMORY_MB -nodefaults -no-reboot \
        -display none -serial stdio -kernel "$MACHINE/kernel" -initrd "$WORK/initrd" \
        -append "console=ttyS0 panic=-1 loglevel=4" </dev/null 2>"$WORK/qemu.log" |
        tr -d '\r' | tee "$CONSOLE" | grep --line-buffered -E '^v4l2: ' >&2 || true
}

need_machine
begin_load
cp "$ROOT"/tests/system/{v4l2_checks,webcam}.py "$LOAD/checks/"
cp -r "$ROOT/examples/digits/models" "$LOAD/checks/models"
end_load <<EOF
/lib/systemd/systemd-udevd --daemon
/usr/bin/python3.11 /checks/v4l2_checks.py $only
echo "exit code \$?"
/bin/busybox poweroff -f
EOF
started=$SECONDS
CONSOLE="$CACHE/v4l2.log"
run_machine
code=$(sed -n 's/^exit code //p' "$CONSOLE" | tail -n 1)
[ -n "$code" ] || die "the virtual machine did not come to its end; its console is in $CONSOLE:" \
    "$(tail -n 1 "$CONSOLE") $(tail -n 1 "$WORK/qemu.log")"
[ "$code" = 0 ] || die "v4l2: not all is well; the console is in $CONSOLE"
say "v4l2: all is well, after $((SECONDS - started)) s"
