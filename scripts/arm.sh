# shellcheck shell=bash
# An ARM board without a board: a folder with Debian's packages for it, whose Python runs under QEMU, and a virtual environment with
# the project's wheel, which that Python's own pip has filled. Sourced, after lib.sh, not run.

. "$ROOT/scripts/emulate.sh"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/edge-runner/arm"
EMULATION="emulating an ARM board"

# What boards there are. Part, architecture and features are what their /proc/cpuinfo says: runtimes choose their kernels by it.
# They are a Raspberry Pi 2, 4, 5 and 5.
BOARDS="
armhf   bookworm armhf arm     cortex-a7  0xc07 7 half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae
arm64   bookworm arm64 aarch64 cortex-a72 0xd08 8 fp asimd evtstrm crc32 cpuid
pi5     bookworm arm64 aarch64 cortex-a76 0xd0b 8 fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
trixie  trixie   arm64 aarch64 cortex-a76 0xd0b 8 fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
"

need_emulator() { need_tools "$EMULATION" qemu-user-static qemu-arm-static qemu-aarch64-static; }

# make_root: the board's Debian in $BOARD_ROOT, which is kept; descriptor 9 locks it, so that one run makes it. Its Python starts QEMU
# by itself, under the name that it was called by: so virtual environments, child processes and commands work as on the board.
make_root() {
    local new="$WORK/root" python packages=libc6,libstdc++6,base-files,python3,python3-venv,python3-pip
    flock 9 && [ ! -d "$BOARD_ROOT" ] || return 0 # another run was faster
    need_mirror "$EMULATION"
    say "$BOARD: unpacking Debian $SUITE for $ARCH into $BOARD_ROOT: once …"
    [ "$ARCH" != armhf ] || packages+=,python3-numpy,python3-opencv,python3-yaml
    quietly "$BOARD: Debian $SUITE for $ARCH" mmdebstrap --mode=$MODE --variant=extract --arch="$ARCH" \
        --aptopt='APT::Install-Recommends "0"' --include=$packages "$SUITE" "$new" "$MIRROR"
    link_what_is_left "$new"
    mkdir -p "$new/proc"
    cpuinfo >"$new/proc/cpuinfo"
    python="$new/usr/bin/$(readlink "$new/usr/bin/python3")"
    mv "$python" "$new/usr/bin/python.elf"
    printf '#!/bin/sh\nexec %s-0 "$0" %q "$@"\n' "$(printf '%q ' "${EMULATE[@]}")" "$BOARD_ROOT/usr/bin/python.elf" >"$python"
    chmod 755 "$new" "$python"
    mv -T "$new" "$BOARD_ROOT"
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
