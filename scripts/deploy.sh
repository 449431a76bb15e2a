#!/usr/bin/env bash
# From this checkout to a service that runs on a board, over plain ssh: installs or upgrades, brings the model and the configuration,
# checks, starts, and shows the first result. A second run mends what the first one left, and does only what has changed.
#   USER@HOST       the board, as ssh knows it; an alias of ~/.ssh/config too
#   --bundle DIR    the model: the folder that scripts/build_model.sh wrote
#   --config FILE   the configuration, such as front-door.yaml; front-door.env beside it goes along
#   --name NAME     what the service is called on the board; without it, as FILE is: front-door
# EDGE_RUNNER_SSH holds options for ssh, such as "-p 2222 -i key".
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
HOUSES="${XDG_CACHE_HOME:-$HOME/.cache}/edge-runner/wheelhouse"
LOST=255 # what ssh ends with where it is ssh that failed
DAMAGED=3 # what install_device.sh ends with where the board's version is damaged, and only a wheelhouse can mend it
STAGE=

usage() {
    say "usage: scripts/deploy.sh USER@HOST [--bundle DIR] [--config FILE] [--name NAME]"
    say "edge-runner: error: $*"
    exit 2
}

read_options() {
    host='' bundle='' config='' name=''
    while [ $# -gt 0 ]; do
        case $1 in
        --bundle | --config | --name)
            [ -n "${2:-}" ] || usage "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" && exit ;;
        -*) usage "unknown option '$1'" ;;
        *)
            [ -z "$host" ] || usage "one board at a time; got '$host' and '$1'"
            host=$1
            ;;
        esac
        shift
    done
    [ -n "$host" ] || usage "which board? USER@HOST, such as pi@raspberrypi.local"
}

# look_at_files: what is wrong with them is said before anything is copied.
look_at_files() {
    if [ -n "$bundle" ]; then
        [ -d "$bundle" ] || die "--bundle: $bundle is no folder; give the folder that scripts/build_model.sh wrote, not its archive"
        [ -f "$bundle/manifest.json" ] || die "--bundle: $bundle has no manifest.json, so it is no bundle; scripts/build_model.sh makes one"
        bundle=$(cd "$bundle" && pwd -P)
    fi
    [ -n "$config" ] || {
        [ -z "$name" ] || die "--name names the service of a configuration; give that as well: --config FILE"
        return 0
    }
    case $config in *.yaml) ;; *) die "--config: got '$config'; the file's name has to end in .yaml" ;; esac
    [ -r "$config" ] && [ -f "$config" ] || die "--config: $config is not there, or cannot be read"
    : "${name:=$(basename -- "$config" .yaml)}"
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
        die "'$name' cannot be a service's name: letters, digits, '.', '_' and '-' can; give another one with --name"
    [ "$name" != models ] || die "'models' cannot be a service's name: the board keeps its models under it; give another one with --name"
}

# connect: the place of one connection that all that follows shares, so that a password is asked for once.
connect() {
    local more=() place=${TMPDIR:-/tmp}
    [ ${#place} -le 40 ] || place=/tmp # a socket's path has to be short
    connection=$(mktemp -d "$place/edge-runner.XXXXXX")
    trap end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    read -r -a more <<<"${EDGE_RUNNER_SSH:-}"
    ssh=(ssh -o ControlMaster=auto -o "ControlPath=$connection/ssh" -o ControlPersist=900 -o ConnectTimeout=20
        -o ServerAliveInterval=15 -o ServerAliveCountMax=4 ${more[@]+"${more[@]}"})
}

# end: nothing of ours is left, neither here nor, where it can be reached, there.
end() {
    local code=$?
    trap '' INT TERM
    if [ -S "$connection/ssh" ]; then
        # Once more, where a tar of ours was still at work there.
        [ -z "$STAGE" ] || "${ssh[@]}" "$host" "$(remote rm -rf "$STAGE") || { sleep 2; $(remote rm -rf "$STAGE"); }" </dev/null >/dev/null 2>&1 || true
        "${ssh[@]}" -O exit "$host" >/dev/null 2>&1 || true
    fi
    rm -rf "$connection"
    [ $code -lt 129 ] || [ $code = $LOST ] || say "edge-runner: error: interrupted; the board is as it was, or as it is to be: run it again"
    exit $code
}

# remote COMMAND…: as one line for the shell there.
remote() { printf '%q ' "$@"; }

# ask_board: what it is, and a folder on it for what we bring, which goes at the end. One that a lost connection left goes after a day.
ask_board() {
    local said
    say "asking $host …"
    said=$("${ssh[@]}" "$host" sh -s <<'BOARD'
fact() { echo "edge-runner fact: $1=$2"; }
fact machine "$(uname -m)"
fact arch "$(dpkg --print-architecture 2>/dev/null)"
fact python "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
fact debian "$(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")"
[ -d /run/systemd/system ] && fact systemd yes
if [ "$(id -u)" = 0 ]; then fact root is
elif sudo -n true 2>/dev/null; then fact root may
elif command -v sudo >/dev/null; then fact root asks
fi
[ ! -f /opt/edge-runner/current/share/edge-runner/install_device.sh ] || fact installed "$(readlink /opt/edge-runner/current)"
umask 077
stages="${HOME:-/root}/.cache/edge-runner"
mkdir -p "$stages" && find "$stages" -maxdepth 1 -name 'deploy.*' -mmin +1440 -exec rm -rf {} +
stage=$(mktemp -d "$stages/deploy.XXXXXX") && fact stage "$stage"
fact free_mb "$(df -Pm "$stage" | awk 'NR == 2 { print $4 }')"
BOARD
    ) || die "ssh $host does not work; its own words stand above, and 'ssh $host' says more"
    facts=$said
    STAGE=$(fact stage)
    look_at_board
}

fact() { sed -n "s/^edge-runner fact: $1=//p" <<<"$facts" | tail -n 1; }

look_at_board() {
    local debian
    debian=$(fact debian) arch=$(fact arch) python=$(fact python)
    [ -n "$arch" ] && [ "$(fact systemd)" = yes ] ||
        die "$host is ${debian:-unknown}${arch:+, $arch}; it takes Raspberry Pi OS, Debian or Ubuntu, with systemd"
    [ -n "$STAGE" ] || die "$host: no folder can be made in the home of its user; is its disk full, or read-only?"
    [ "$(fact machine)" != armv6l ] ||
        die "$host has an ARMv6 processor: a Pi Zero, Zero W or 1, for which there is no runtime; a Zero 2 W, or a 3 or newer, has one"
    case $arch in
    arm64) platform=aarch64 ;;
    armhf) platform=armv7l ;;
    amd64) platform=x86_64 ;;
    *) die "$host is $arch; there are runtimes for arm64, armhf and amd64" ;;
    esac
    [ -n "$python" ] || die "$host has no /usr/bin/python3: sudo apt install python3"
    case $python in
    3.?) die "$host has Python $python; 3.10 is the oldest that works: Raspberry Pi OS Bookworm has 3.11, Ubuntu 22.04 has 3.10" ;;
    esac
    [ -n "$(fact root)" ] || die "$host: its user is not root, and has no sudo; log in as one who has"
    [ "$(fact root)" != asks ] || [ -t 0 ] ||
        die "$host: sudo asks for a password there, and this is no terminal to type it in; run it in one"
    say "$host: $debian, $arch, Python $python, $(fact free_mb) MB free"
}

# bring_wheelhouse: made for this board, kept here, and copied unless it is what the board has; with $anew, all the same.
bring_wheelhouse() {
    local house="$HOUSES/$platform-py$python" size_mb version
    mkdir -p "$HOUSES"
    "$ROOT/scripts/make_wheelhouse.sh" --platform "$platform" --python "$python" --output "$house" || exit $?
    version=$(sed -n 's/^version=//p' "$house/WHEELHOUSE")-$(sha256sum "$house/SHA256SUMS" | cut -c 1-8)
    if ! $anew && [ "$(fact installed)" = "versions/$version" ]; then
        say "$host has edge-runner $version already"
        return
    fi
    size_mb=$(($(du -sk "$house" | cut -f 1) / 1024 + 1))
    [ "$(fact free_mb)" -gt $((2 * size_mb)) ] ||
        die "$host has $(fact free_mb) MB free; it takes $((2 * size_mb)) to bring edge-runner there, and more to install it"
    say "copying edge-runner $version, $size_mb MB …"
    copy "$house" wheelhouse .
}

# copy FOLDER TO FILE…: files of the folder here into a folder on the board.
copy() {
    local folder=$1 to="$STAGE/$2"
    shift 2
    COPYFILE_DISABLE=1 tar -C "$folder" -cf - "$@" | "${ssh[@]}" "$host" "$(remote mkdir -p "$to") && $(remote tar -C "$to" -xf -)" ||
        die "copying to $host failed; the lines above say why. Run it again"
}

bring_files() {
    copy "$ROOT/scripts" . deploy_on_board.py
    [ -z "$bundle" ] || copy "$(dirname "$bundle")" bundle "./$(basename "$bundle")"
    [ -z "$config" ] || copy_as "$config" config.yaml
    [ -z "$config" ] || [ ! -f "${config%.yaml}.env" ] || copy_as "${config%.yaml}.env" config.env
}

copy_as() { "${ssh[@]}" "$host" "cat >$(remote "$STAGE/$2")" <"$1" || die "copying $1 to $host failed; run it again"; }

# act: the board's part, as root. Only there, and only where sudo asks for a password, a terminal is needed. $code is how it ended.
act() {
    local command=(/usr/bin/python3 "$STAGE/deploy_on_board.py" "$STAGE")
    [ -z "$name" ] || command+=("--name=$name" "--file=$(basename -- "$config")")
    [ -z "$bundle" ] || command+=(--bundle)
    code=0
    case $(fact root) in
    is) "${ssh[@]}" "$host" "$(remote "${command[@]}")" </dev/null || code=$? ;;
    may) "${ssh[@]}" "$host" "$(remote sudo -n "${command[@]}")" </dev/null || code=$? ;;
    asks) "${ssh[@]}" -tt "$host" "$(remote sudo "${command[@]}")" || code=$? ;;
    esac
    [ $code != $LOST ] || die "the connection to $host was lost; run it again"
}

# show_the_way: where to look next.
show_the_way() {
    [ -n "$name" ] || return 0
    say ""
    say "look next:"
    say "  ssh $host systemctl status edge-runner@$name"
    say "  ssh $host journalctl -fu edge-runner@$name"
    ! grep -Eq '^[^#]*\<jsonl\>' -- "$config" || say "  ssh $host 'edge-runner results -f /var/log/edge-runner/$name/*.jsonl'"
    say "  ssh $host edge-runner doctor --config /etc/edge-runner/$name.yaml"
}

read_options "$@"
look_at_files
connect
ask_board
anew=false
bring_wheelhouse
bring_files
act
if [ $code = $DAMAGED ]; then
    anew=true
    bring_wheelhouse
    act
fi
[ $code = 0 ] || exit $code
show_the_way
