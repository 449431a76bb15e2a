# shellcheck shell=bash
# An ARM board without a board: a folder with Debian's packages for it, whose Python runs under QEMU, and a virtual environment with
# the project's wheel, which that Python's own pip has filled. Sourced, after lib.sh, not run.

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/edge-runner/arm"

# What boards there are. Part, architecture and features are what their /proc/cpuinfo says: runtimes choose their kernels by it.
# They are a Raspberry Pi 2, 4, 5 and 5.
BOARDS="
armhf   bookworm armhf arm     cortex-a7  0xc07 7 half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae
arm64   bookworm arm64 aarch64 cortex-a72 0xd08 8 fp asimd evtstrm crc32 cpuid
pi5     bookworm arm64 aarch64 cortex-a76 0xd0b 8 fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
trixie  trixie   arm64 aarch64 cortex-a76 0xd0b 8 fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
"

# cannot WHY: this machine cannot emulate a board. In CI that is an error.
cannot() {
    [ -z "${CI:-}" ] || die "$*"
    say "skipped: $*"
    exit 0
}

# quietly WHAT COMMAND…: its output goes to a log. Where it fails, the last error there is said, or how it ended and the last line.
# Within COMMAND, where it is a function of ours, nothing ends at a failure by itself: join its steps by &&.
quietly() {
    local what=$1 code=0 errors='^(edge-runner: error|ERROR|E): ' said
    shift
    "$@" >"$WORK/log" 2>&1 || code=$?
    [ $code != 0 ] || return 0
    said=$(grep -E "$errors" "$WORK/log" | tail -n 1 | sed -E "s/$errors//") || true
    die "$what: ${said:-exit code $code; its last line is: $(tail -n 1 "$WORK/log")}"
}

# need_emulator: QEMU and mmdebstrap, installed where they are missing, which takes root; and $WORK, a folder for the time of this run.
need_emulator() {
    [ "$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null)" = debian ] || cannot "emulating an ARM board needs Debian"
    mkdir -p "$CACHE"
    find "$CACHE" -maxdepth 1 -name 'tmp.*' -mtime +1 -exec rm -rf {} + # of runs that were killed
    WORK=$(mktemp -d -p "$CACHE")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'say "edge-runner: error: $BASH_COMMAND fails"' ERR # what is not said otherwise
    if ! { command -v qemu-arm-static && command -v qemu-aarch64-static && command -v mmdebstrap; } >/dev/null; then
        [ "$(id -u)" = 0 ] || cannot "emulating an ARM board needs QEMU: sudo apt-get install qemu-user-static mmdebstrap"
        export DEBIAN_FRONTEND=noninteractive
        quietly "apt-get update" apt-get update
        quietly "QEMU" apt-get install -y --no-install-recommends qemu-user-static mmdebstrap
    fi
}

# make_wheel PYTHON: this checkout's, as $WHEEL. One at a time, because they are made within the checkout.
make_wheel() {
    quietly "the wheel" flock "$CACHE/lock" "$1" -m build --no-isolation --outdir "$WORK/dist" "$ROOT"
    WHEEL=$(echo "$WORK"/dist/*.whl)
}

# make_root: the board's Debian in $BOARD_ROOT, which is kept; descriptor 9 locks it, so that one run makes it. Its Python starts QEMU
# by itself, under the name that it was called by: so virtual environments, child processes and commands work as on the board.
make_root() {
    local new="$WORK/root" python packages=libc6,libstdc++6,base-files,python3,python3-venv,python3-pip mirror mode=root
    flock 9 && [ ! -d "$BOARD_ROOT" ] || return 0 # another run was faster
    mirror=$(debian_mirror) || true
    [ -n "$mirror" ] || cannot "emulating an ARM board needs Debian's packages; apt's sources name no place that has them"
    [ "$(id -u)" = 0 ] || mode=chrootless
    say "$BOARD: unpacking Debian $SUITE for $ARCH into $BOARD_ROOT: once …"
    [ "$ARCH" != armhf ] || packages+=,python3-numpy,python3-opencv,python3-yaml
    quietly "$BOARD: Debian $SUITE for $ARCH" mmdebstrap --mode=$mode --variant=extract --arch="$ARCH" \
        --aptopt='APT::Install-Recommends "0"' --include=$packages "$SUITE" "$new" "$mirror"
    link_what_is_left "$new"
    mkdir -p "$new/proc"
    cpuinfo >"$new/proc/cpuinfo"
    python="$new/usr/bin/$(readlink "$new/usr/bin/python3")"
    mv "$python" "$new/usr/bin/python.elf"
    printf '#!/bin/sh\nexec %s-0 "$0" %q "$@"\n' "$(printf '%q ' "${EMULATE[@]}")" "$BOARD_ROOT/usr/bin/python.elf" >"$python"
    chmod 755 "$new" "$python"
    mv -T "$new" "$BOARD_ROOT"
}

# The first URI of Debian's own sources here, in either of apt's two forms.
debian_mirror() {
    {
        sed -nE 's/^URIs: *(http[^ ]+).*/\1/p' /etc/apt/sources.list.d/debian.sources
        sed -nE 's/^deb +(\[[^]]*\] *)?(http[^ ]+) .*/\2/p' /etc/apt/sources.list
    } 2>/dev/null | head -n 1
}

# link_what_is_left DIR: what the packages' own scripts, which did not run, would have done.
link_what_is_left() {
    local dir library
    for dir in bin lib sbin; do
        [ -e "$1/$dir" ] || ln -s "usr/$dir" "$1/$dir"
    done
    for library in blas/libblas.so.3 lapack/liblapack.so.3; do
        [ "$ARCH" != armhf ] || ln -s $library "$1/usr/lib/arm-linux-gnueabihf/"
    done
}

cpuinfo() {
    local core
    for ((core = 0; core < $(nproc); core++)); do
        printf '%s\t: %s\n' processor $core Features "$FEATURES" "CPU implementer" 0x41 "CPU architecture" "$ARM" \
            "CPU variant" 0x0 "CPU part" "$PART" "CPU revision" 3
        echo
    done
}

# make_board BOARD DIR [EXTRAS]: a virtual environment of the board's Python in DIR, with $WHEEL in it, installed by pip as on a board.
make_board() {
    local wheel=$WHEEL${3:-} qemu key
    BOARD=$1 BOARD_ENV=$2
    read -r _ SUITE ARCH qemu PROCESSOR PART ARM FEATURES < <(grep "^$BOARD " <<<"$BOARDS") || die "there is no board '$BOARD'"
    key=$({ declare -f make_board make_root link_what_is_left cpuinfo && grep "^$BOARD " <<<"$BOARDS"; } | cksum | cut -d ' ' -f 1)
    BOARD_ROOT="$CACHE/$BOARD-$key"
    EMULATE=("qemu-$qemu-static" -cpu "$PROCESSOR" -L "$BOARD_ROOT")
    [ -d "$BOARD_ROOT" ] || make_root 9>"$CACHE/lock"
    if [ "$ARCH" = armhf ]; then # NumPy, OpenCV and YAML are Debian's, and the runtime PyPI's
        quietly "$BOARD: venv" "$BOARD_ROOT/usr/bin/python3" -m venv --without-pip --system-site-packages "$BOARD_ENV"
        # To know armhf, pip reads the file that Python was called by: it must be the program itself, which QEMU is to start.
        ln -s "$BOARD_ROOT/usr/bin/python.elf" "$BOARD_ENV/bin/python.elf"
        pip_by "${EMULATE[@]}" -0 "$BOARD_ENV/bin/python.elf" "$BOARD_ENV/bin/python.elf" -m pip install tflite-runtime
        board_pip install --no-deps "$wheel"
    else
        quietly "$BOARD: venv" "$BOARD_ROOT/usr/bin/python3" -m venv --without-pip "$BOARD_ENV"
        board_pip install "$wheel"
    fi
}

# board_pip ARGUMENT…: Debian's pip, into the board's environment.
board_pip() { pip_by "$BOARD_ROOT/usr/bin/python3" -m pip --python "$BOARD_ENV/bin/python" "$@"; }

# Wheels alone, since nobody compiles on a board.
pip_by() {
    quietly "$BOARD: pip on Debian $SUITE, $ARCH" "$@" --only-binary=:all: --no-compile --disable-pip-version-check
    say "$BOARD: $(sed -n 's/^Successfully installed/installed/p' "$WORK/log")"
}
