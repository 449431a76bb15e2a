#!/usr/bin/env bash
# Gather all that a board needs to be installed without a network, in one folder: the project's wheel, its dependencies' wheels for that
# board, their hashes, the installer and the units. Copy the folder, and run its install_device.sh there.
#   --platform aarch64   aarch64, armv7l or x86_64
#   --python 3.11        the board's: Raspberry Pi OS Bookworm has 3.11, Trixie 3.13, Ubuntu 22.04 3.10, 24.04 3.12
#   --output DIR         default: wheelhouse/PLATFORM-pyPYTHON in the checkout
#   --fresh              ask for newer dependencies, too; else those that the folder has stay
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# Trixie's /tmp is memory, of which a small board has not enough for pip.
[ -n "${TMPDIR:-}" ] || [ "$(stat -f -c %T /tmp 2>/dev/null)" != tmpfs ] || export TMPDIR=/var/tmp
PARTS=(edge_runner setup.cfg pyproject.toml README.md LICENSE)

usage() {
    say "usage: scripts/make_wheelhouse.sh [--platform aarch64|armv7l|x86_64] [--python 3.11] [--output DIR] [--fresh]"
    say "edge-runner: error: $*"
    exit 2
}

platform=aarch64
python=3.11
output=
fresh=false
while [ $# -gt 0 ]; do
    case $1 in
    --platform | --python | --output) [ -n "${2:-}" ] || usage "$1 wants a value" ;;&
    --platform) platform=$2 && shift ;;
    --python) python=$2 && shift ;;
    --output) output=$2 && shift ;;
    --fresh) fresh=true ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" && exit ;;
    *) usage "$1 is no option" ;;
    esac
    shift
done

# check_target: boards that there are no wheels for are told before anything is downloaded.
check_target() {
    case $platform in
    aarch64 | x86_64) ;;
    armv7l)
        [ "$python" = 3.11 ] || die "there is no runtime for a 32-bit board with Python $python, only for 3.11 (Raspberry Pi OS Bookworm);" \
            "install a 64-bit system, or Bookworm"
        ;;
    arm64 | armhf | amd64) usage "--platform $platform is Debian's word; write aarch64, armv7l or x86_64" ;;
    *) usage "--platform $platform is none of aarch64, armv7l, x86_64" ;;
    esac
    [[ $python =~ ^3\.[0-9]+$ ]] || usage "--python $python is no version such as 3.11"
    [ "${python#3.}" -ge 10 ] || die "Python $python is too old; edge-runner needs 3.10 or newer"
}

# make_tools: a small environment that builds the project's wheel, and reads what wheels ask for.
make_tools() {
    TOOLS="$ROOT/.venv-wheels"
    [ ! -e "$TOOLS/.installed" ] || ! "$TOOLS/bin/python" -I -c 'import packaging; from setuptools.command import bdist_wheel' 2>/dev/null || return 0
    local found
    found=$(find_python 3.11 3.10 3.12 3.13 3.14 3) || exit 1
    rm -rf "$TOOLS"
    "$found" -I -m venv "$TOOLS" || die "$found cannot make a virtual environment in $TOOLS"
    "$TOOLS/bin/python" -I -m pip install --quiet --disable-pip-version-check 'packaging>=23' 'setuptools>=77' ||
        die "pip could not install packaging and setuptools; the lines above say why"
    touch "$TOOLS/.installed"
}

# hash_of FILE…: of names and contents, and of all that is in folders.
hash_of() {
    (cd "$ROOT" && find "$@" -type f ! -name '*.py[cod]' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c 1-16
}

# fill DIR: everything, into a new folder.
fill() {
    local old=()
    mkdir -p "$1/wheels"
    if ! $fresh && [ "$(recorded dependencies)" = "$dependencies" ] && is_whole; then
        cp "$output"/wheels/*.whl "$1/wheels/"
        rm -f "$1"/wheels/edge_runner-*.whl
        old=(--offline)
    fi
    make_project_wheel "$1/wheels"
    "$TOOLS/bin/python" "$ROOT/scripts/wheelhouse.py" --platform "$platform" --python "$python" "${old[@]}" "$1" || exit 1
    cp "$ROOT/scripts/install_device.sh" "$ROOT/LICENSE" "$1/"
    mkdir "$1/systemd"
    cp "$ROOT"/systemd/*.service "$ROOT"/systemd/*.conf "$1/systemd/"
    printf '%s\n' "version=$version" "platform=$platform" "python=$python" "dependencies=$dependencies" "inputs=$inputs" >"$1/WHEELHOUSE"
    (cd "$1" && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum) >"$1.sums"
    mv "$1.sums" "$1/SHA256SUMS"
}

# make_project_wheel DIR: from a copy, which has nothing left of earlier builds; equal sources give an equal wheel.
make_project_wheel() {
    local copy="$new.source"
    rm -rf "$copy"
    mkdir "$copy"
    (cd "$ROOT" && tar -c --exclude=__pycache__ "${PARTS[@]}") | tar -x -C "$copy"
    SOURCE_DATE_EPOCH=1700000000 "$TOOLS/bin/python" -I -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
        --wheel-dir "$1" "$copy" ||
        die "the project's wheel could not be made; the lines above say why"
    rm -rf "$copy"
}

# is_whole: whether what is there already is undamaged.
is_whole() { (cd "$output" && sha256sum --check --strict --quiet SHA256SUMS) >/dev/null 2>&1; }

recorded() { sed -n "s/^$1=//p" "$output/WHEELHOUSE" 2>/dev/null || true; }

check_target
output=${output:-$ROOT/wheelhouse/$platform-py$python}
[ ! -d "$output" ] || [ -e "$output/WHEELHOUSE" ] || [ -z "$(ls -A "$output")" ] || die "$output is no wheelhouse, and not empty; name another --output"
mkdir -p "$(dirname "$output")"
exec 9<"$(dirname "$output")"
flock 9
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/edge_runner/__init__.py")
dependencies=$(hash_of setup.cfg scripts/wheelhouse.py)
inputs=$(hash_of "${PARTS[@]}" systemd scripts/install_device.sh scripts/wheelhouse.py scripts/make_wheelhouse.sh)
if ! $fresh && [ "$(recorded inputs)" = "$inputs" ] && is_whole; then
    say "$output is up to date: edge-runner $version for $platform, Python $python"
    exit 0
fi
new="$output.new"
trap 'rm -rf "$new" "$new".*' EXIT
rm -rf "$new"
make_tools
fill "$new"
rm -rf "$output"
mv -T "$new" "$output"
say "$output: edge-runner $version for $platform, Python $python, $(find "$output/wheels" -name '*.whl' | wc -l) wheels," \
    "$(du -sh "$output" | cut -f 1). Copy it to the board, and run there: sudo ./install_device.sh"
