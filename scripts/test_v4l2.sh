#!/usr/bin/env bash
# Read cameras through Linux's own drivers, in a virtual machine: vivid's test pictures, and a USB webcam that a program plays
# (tests/system/webcam.py), with udev. Needs Debian on x86_64, and QEMU and mmdebstrap, or root to install them. How fast it is means nothing.
#   --only WORD   the checks with this word in their names
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/arm.sh"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/edge-runner/v4l2"
PACKAGES=libc6,libstdc++6,base-files,base-passwd,busybox-static,util-linux,kmod,udev,python3,python3-pip,linux-image-amd64
MODULES="vivid uvcvideo vhci-hcd"
MEMORY_MB=2048
TIME_LIMIT_S=1800
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

only=
case "${1:-}" in
"") ;;
--only) only=${2:?"--only WORD"} ;;
*) say "usage: scripts/test_v4l2.sh [--only WORD]" && exit 2 ;;
esac

# need_machine: QEMU and mmdebstrap, installed where they are missing, which takes root; and $WORK, a folder for the time of this run.
need_machine() {
    [ "$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null)" = debian ] || cannot "the virtual machine needs Debian"
    [ "$(uname -m)" = x86_64 ] || cannot "the virtual machine needs x86_64"
    mkdir -p "$CACHE"
    find "$CACHE" -maxdepth 1 -name 'tmp.*' -mtime +1 -exec rm -rf {} + # of runs that were killed
    WORK=$(mktemp -d -p "$CACHE")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'say "edge-runner: error: $BASH_COMMAND fails"' ERR # what is not said otherwise
    if ! { command -v qemu-system-x86_64 && command -v mmdebstrap; } >/dev/null; then
        [ "$(id -u)" = 0 ] || cannot "the virtual machine needs QEMU: sudo apt-get install qemu-system-x86 mmdebstrap"
        export DEBIAN_FRONTEND=noninteractive
        quietly "apt-get update" apt-get update
        quietly "QEMU" apt-get install -y --no-install-recommends qemu-system-x86 mmdebstrap
    fi
}

# within TREE NAME PROGRAM ARGUMENT…: run a program of an unpacked Debian, called by NAME, with that Debian's libraries.
within() {
    local tree=$1 name=$2 program=$3
    shift 3
    PYTHONHOME="$tree/usr" "$tree/lib64/ld-linux-x86-64.so.2" --argv0 "$name" \
        --library-path "$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu" "$tree/$program" "$@"
}

# archive DIR FILE: the folder as an archive that Linux unpacks at its start; several may stand behind each other.
archive() { (cd "$1" && find . | "$BUSYBOX" cpio -o -H newc -R 0:0 --quiet) >"$2"; }

# make_machine: kernel and system, kept in $MACHINE; descriptor 9 locks it, so that one run makes it.
make_machine() {
    local tree="$WORK/tree" mirror mode=root version
    flock 9 && [ ! -d "$MACHINE" ] || return 0 # another run was faster
    mirror=$(debian_mirror) || true
    [ -n "$mirror" ] || cannot "the virtual machine needs Debian's packages; apt's sources name no place that has them"
    [ "$(id -u)" = 0 ] || mode=chrootless
    say "v4l2: making the virtual machine in $MACHINE: once …"
    quietly "Debian" mmdebstrap --mode=$mode --variant=extract --arch=amd64 --aptopt='APT::Install-Recommends "0"' \
        --include=$PACKAGES bookworm "$tree" "$mirror"
    quietly "the packages" within "$tree" python3 usr/bin/python3.11 -m pip install --target "$tree/opt/site" --only-binary=:all: \
        --disable-pip-version-check "$WHEEL"
    rm -rf "$tree/opt/site/edge_runner"* # each run brings its own
    within "$tree" python3 usr/bin/python3.11 -m compileall -q "$tree/usr/lib/python3.11" >/dev/null || true
    version=$(basename "$tree"/lib/modules/*)
    keep_modules "$tree/lib/modules/$version"
    mkdir -p "$WORK/machine" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/run"
    cp "$tree/boot/vmlinuz-$version" "$WORK/machine/kernel"
    cp "$tree/bin/busybox" "$WORK/machine/busybox"
    cp "$tree/usr/share/base-passwd/passwd.master" "$tree/etc/passwd"
    cp "$tree/usr/share/base-passwd/group.master" "$tree/etc/group"
    rm -rf "${tree:?}/boot" "$tree"/usr/share/{doc,locale,man} "$tree"/usr/lib/python3/dist-packages
    BUSYBOX="$WORK/machine/busybox"
    archive "$tree" "$WORK/machine/system.cpio"
    mv -T "$WORK/machine" "$MACHINE"
}

# keep_modules DIR: of the kernel's modules, those that are wanted and what they need.
keep_modules() {
    local module
    quietly "depmod" within "$WORK/tree" depmod bin/kmod -b "$WORK/tree" "$(basename "$1")"
    for module in $MODULES; do
        grep -E "/${module//[-_]/[-_]}\.ko:" "$1/modules.dep" | tr -d : | tr ' ' '\n'
    done | sort -u >"$WORK/modules"
    (cd "$1" && find kernel -name '*.ko' | grep -vxFf "$WORK/modules" | xargs rm -f)
}

# the project, the checks, and what the machine starts with
make_load() {
    local load="$WORK/load"
    mkdir -p "$load/opt/project" "$load/checks" "$load/bin"
    ln -s busybox "$load/bin/sh"
    quietly "the wheel" "$host" -m zipfile -e "$WHEEL" "$load/opt/project"
    cp "$ROOT"/tests/system/{v4l2_checks,webcam}.py "$load/checks/"
    cp -r "$ROOT/examples/digits/models" "$load/checks/models"
    cat >"$load/init" <<EOF
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox ifconfig lo up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONPATH=/opt/project:/opt/site
/lib/systemd/systemd-udevd --daemon
/usr/bin/python3.11 /checks/v4l2_checks.py $only
echo "exit code \$?"
/bin/busybox poweroff -f
EOF
    chmod 755 "$load/init"
    archive "$load" "$WORK/load.cpio"
    cat "$MACHINE/system.cpio" "$WORK/load.cpio" >"$WORK/initrd"
}

# run_machine ACCELERATOR: what the checks say on its console goes to the terminal, all of it to a log.
run_machine() {
    timeout $TIME_LIMIT_S qemu-system-x86_64 -machine "q35,accel=$1" -cpu max -smp 2 -m $MEMORY_MB -nodefaults -no-reboot \
        -display none -serial stdio -kernel "$MACHINE/kernel" -initrd "$WORK/initrd" \
        -append "console=ttyS0 panic=-1 loglevel=4" </dev/null 2>"$WORK/qemu.log" |
        tr -d '\r' | tee "$CONSOLE" | grep --line-buffered -E '^v4l2: ' >&2 || true
}

need_machine
board_env .venv-test "[test]"
host="$ROOT/.venv-test/bin/python"
make_wheel "$host"
key=$({ declare -f make_machine keep_modules archive && echo "$PACKAGES $MODULES" && cat "$ROOT/setup.cfg"; } | cksum | cut -d ' ' -f 1)
MACHINE="$CACHE/$key"
[ -d "$MACHINE" ] || make_machine 9>"$CACHE/lock"
BUSYBOX="$MACHINE/busybox"
make_load
started=$SECONDS
CONSOLE="$CACHE/console.log"
: >"$CONSOLE"
if [ -w /dev/kvm ]; then run_machine kvm; fi
[ -s "$CONSOLE" ] || run_machine tcg # where there is a /dev/kvm, it need not work
code=$(sed -n 's/^exit code //p' "$CONSOLE" | tail -n 1)
[ -n "$code" ] || die "the virtual machine did not come to its end; its console is in $CONSOLE:" \
    "$(tail -n 1 "$CONSOLE") $(tail -n 1 "$WORK/qemu.log")"
[ "$code" = 0 ] || die "v4l2: not all is well; the console is in $CONSOLE"
say "v4l2: all is well, after $((SECONDS - started)) s"
