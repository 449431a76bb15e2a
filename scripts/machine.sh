# shellcheck shell=bash disable=SC2034
# A virtual machine: Debian's kernel, and a system that has what the project's wheel needs. Each run brings the wheel itself, its own
# files, and what the machine starts with. Needs Debian on x86_64. Sourced, after lib.sh, not run.

. "$ROOT/scripts/emulate.sh"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/edge-runner/machine"
VIRTUALLY="the virtual machine"
PACKAGES=libc6,libstdc++6,base-files,base-passwd,busybox-static,util-linux,kmod,udev,python3,python3-pip,linux-image-amd64
MODULES="vivid uvcvideo vhci-hcd virtio-pci virtio-blk ext4 crc32c_generic"
MEMORY_MB=2048
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

# need_machine: what it takes; the wheel; kernel and system, made where they are not kept yet.
need_machine() {
    local key
    [ "$(uname -m)" = x86_64 ] || cannot "$VIRTUALLY needs x86_64"
    need_tools "$VIRTUALLY" qemu-system-x86 qemu-system-x86_64
    board_env .venv-test "[test]"
    HOST="$ROOT/.venv-test/bin/python"
    make_wheel "$HOST"
    key=$({ declare -f make_machine keep_modules archive && echo "$PACKAGES $MODULES" && cat "$ROOT/setup.cfg"; } | cksum)
    MACHINE="$CACHE/${key%% *}"
    [ -d "$MACHINE" ] || make_machine 9>"$CACHE/lock"
    BUSYBOX="$MACHINE/busybox"
    ACCELERATOR=tcg
    if [ -w /dev/kvm ] && kvm_works; then ACCELERATOR=kvm; fi
}

# kvm_works: a /dev/kvm need not mean it. A machine that waits is ended after a while, one that cannot be ends by itself.
kvm_works() {
    local code=0
    (
        timeout 5 qemu-system-x86_64 -machine q35,accel=kvm -cpu max -nodefaults -display none -S </dev/null
        exit $?
    ) >/dev/null 2>&1 || code=$?
    [ $code = 124 ]
}

# read_cuts USAGE ARGUMENT…: how often and when the power is cut, as $options.
read_cuts() {
    local usage="usage: $1"
    shift
    options=("$@")
    while [ $# -gt 0 ]; do
        case $1 in --cuts | --seed) [[ ${2:-} =~ ^[0-9]+$ ]] && shift 2 && continue ;; esac
        say "$usage"
        exit 2
    done
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
    local tree="$WORK/tree" version
    flock 9 && [ ! -d "$MACHINE" ] || return 0 # another run was faster
    need_mirror "$VIRTUALLY"
    say "making the virtual machine in $MACHINE: once …"
    quietly "Debian" mmdebstrap --mode=$MODE --variant=extract --arch=amd64 --aptopt='APT::Install-Recommends "0"' \
        --include=$PACKAGES bookworm "$tree" "$MIRROR"
    quietly "the packages" within "$tree" python3 usr/bin/python3.11 -m pip install --target "$tree/opt/site" --only-binary=:all: \
        --disable-pip-version-check "${WHEEL}[mqtt]"
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

# begin_load: a folder $LOAD with the project, for what else a run brings.
begin_load() {
    LOAD="$WORK/load"
    mkdir -p "$LOAD/opt/project" "$LOAD/checks" "$LOAD/bin"
    ln -s busybox "$LOAD/bin/sh"
    quietly "the wheel" "$HOST" -m zipfile -e "$WHEEL" "$LOAD/opt/project"
    cat >"$LOAD/init" <<EOF
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox ifconfig lo up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONPATH=/opt/project:/opt/site
EOF
    chmod 755 "$LOAD/init"
}

# end_load: what is in $LOAD, and the system, as one $WORK/initrd. The machine starts with $LOAD/init, which goes on from standard input.
end_load() {
    cat >>"$LOAD/init"
    archive "$LOAD" "$WORK/load.cpio"
    cat "$MACHINE/system.cpio" "$WORK/load.cpio" >"$WORK/initrd"
}
