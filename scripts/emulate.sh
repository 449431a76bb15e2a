# shellcheck shell=bash disable=SC2034
# What boards and machines that are emulated have in common: their tools, their Debian, and the project's wheel for them. Sourced, after
# lib.sh, not run. $CACHE is the folder of what is kept.

# cannot WHY: it cannot be emulated here. In CI that is an error.
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

# need_tools WHAT PACKAGE PROGRAM…: Debian, the programs of the package, and mmdebstrap, installed where they are missing, which takes
# root; and $WORK, a folder for the time of this run.
need_tools() {
    local what=$1 package=$2 program missing=
    shift 2
    [ "$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null)" = debian ] || cannot "$what needs Debian"
    mkdir -p "$CACHE"
    find "$CACHE" -maxdepth 1 -name 'tmp.*' -mtime +1 -exec rm -rf {} + # of runs that were killed
    WORK=$(mktemp -d -p "$CACHE")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'say "edge-runner: error: $BASH_COMMAND fails"' ERR # what is not said otherwise
    for program in mmdebstrap "$@"; do
        command -v "$program" >/dev/null || missing=$program
    done
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || cannot "$what needs QEMU: sudo apt-get install $package mmdebstrap"
        export DEBIAN_FRONTEND=noninteractive
        quietly "apt-get update" apt-get update
        quietly "QEMU" apt-get install -y --no-install-recommends "$package" mmdebstrap
    fi
}

# make_wheel PYTHON: this checkout's, as $WHEEL. One at a time, because they are made within the checkout.
make_wheel() {
    quietly "the wheel" flock "$CACHE/lock" "$1" -m build --no-isolation --outdir "$WORK/dist" "$ROOT"
    WHEEL=$(echo "$WORK"/dist/*.whl)
}

# need_mirror WHAT: where apt gets Debian's packages from, as $MIRROR; and as $MODE how mmdebstrap unpacks them.
need_mirror() {
    MIRROR=$(debian_mirror) || true
    [ -n "$MIRROR" ] || cannot "$1 needs Debian's packages; apt's sources name no place that has them"
    MODE=root
    [ "$(id -u)" = 0 ] || MODE=chrootless
}

# The first URI of Debian's own sources here, in either of apt's two forms.
debian_mirror() {
    {
        sed -nE 's/^URIs: *(http[^ ]+).*/\1/p' /etc/apt/sources.list.d/debian.sources
        sed -nE 's/^deb +(\[[^]]*\] *)?(http[^ ]+) .*/\2/p' /etc/apt/sources.list
    } 2>/dev/null | head -n 1
}
