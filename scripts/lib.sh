# shellcheck shell=bash
# What the scripts share: finding a Python, and making a virtual environment once. Sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "edge-runner: error: $*"
    exit 1
}

# find_python VERSION…: the first of these Pythons that works and can make virtual environments.
# EDGE_RUNNER_PYTHON names one to be used instead.
find_python() {
    local candidate
    for candidate in ${EDGE_RUNNER_PYTHON:-$(printf 'python%s ' "$@")}; do
        if "$candidate" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            "$candidate" -I -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "no Python 3.10 or newer that can make virtual environments was found (${EDGE_RUNNER_PYTHON:-tried $*});" \
        "on Debian: sudo apt install python3 python3-venv"
}

# make_env DIR EXTRAS VERSION…: this checkout with its EXTRAS ("" or "[test]") in the virtual environment DIR.
# Nothing is done where that is so already; what is missing is added to what is there.
make_env() {
    local env=$1 extras=$2 python installed="$1/.installed$2" wanted
    shift 2
    wanted="$(cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml" "$ROOT/edge_runner/__init__.py" | cksum)"
    if [ "$(cat "$env/.python" 2>/dev/null)" = "${EDGE_RUNNER_PYTHON:-}" ] && "$env/bin/python" -c '' 2>/dev/null; then
        [ "$(cat "$installed" 2>/dev/null)" != "$wanted" ] || return 0
        say "adding to ${env#"$ROOT"/}: edge-runner$extras …"
    else
        python=$(find_python "$@") || exit 1
        say "setting up ${env#"$ROOT"/} with $("$python" --version): once, a minute or two …"
        rm -rf "$env"
        "$python" -m venv "$env" || die "$python cannot make a virtual environment in $env"
        printf '%s' "${EDGE_RUNNER_PYTHON:-}" >"$env/.python"
    fi
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT$extras" ||
        die "pip could not install edge-runner$extras; the lines above say why"
    printf '%s' "$wanted" >"$installed"
}

# The board's runtime has wheels for 3.11 and 3.10; newer ones use LiteRT.
board_env() { make_env "$ROOT/$1" "$2" 3.11 3.10 3.12 3.13 3.14 3; }

# TensorFlow 2.16.2 is there up to 3.12; newer Pythons get a newer one.
builder_env() { make_env "$ROOT/.venv-build" "$1" 3.11 3.10 3.12 3.13 3; }

# packages_of PROGRAM:PACKAGE…: Debian's packages of those programs that are not there.
packages_of() {
    local each
    for each in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${each%:*}" >/dev/null || echo "${each#*:}"
    done
}

# install_for TESTS PACKAGE…: what these tests need. Where it cannot be had, they are skipped.
install_for() {
    local tests=$1
    shift
    [ $# != 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "the tests with $tests are skipped; they need, as root, on Debian: apt-get install $*"
        return 0
    fi
    say "installing what the tests with $tests need …"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >/dev/null 2>&1 ||
        say "the tests with $tests are skipped: apt-get could not install $*"
}

# rtsp_server: for the system's own Python.
rtsp_server() {
    local wanted="import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None)
assert all(map(Gst.ElementFactory.find, ('appsrc', 'x264enc', 'rtph264pay', 'jpegenc', 'rtpjpegpay')))"
    ! /usr/bin/python3 -c "$wanted" >/dev/null 2>&1 || return 0
    install_for "an RTSP camera" python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,ugly}
}

# mqtt_broker: and a network to cut.
mqtt_broker() {
    local missing
    mapfile -t missing < <(packages_of mosquitto:mosquitto mosquitto_sub:mosquitto-clients ip:iproute2)
    install_for "an MQTT broker" "${missing[@]}"
    if [ "${missing[0]:-}" = mosquitto ]; then # as a service, Debian starts it at once; the tests start their own
        { service mosquitto stop && update-rc.d mosquitto disable; } >/dev/null 2>&1 || true
    fi
}

# containers: a real systemd is booted in one.
containers() {
    local missing
    mapfile -t missing < <(packages_of systemd-nspawn:systemd-container mmdebstrap:mmdebstrap)
    install_for "a real systemd" "${missing[@]}"
}
