#!/usr/bin/env bash
# Install edge-runner as a service on this board: Raspberry Pi OS, Debian or Ubuntu, with or without a network. Run it as root, in the
# folder that make_wheelhouse.sh made, or in a clone. A second run changes nothing.
#   --wheelhouse DIR   what to install; default: the folder that this script is in, or, in a clone, one that is made now (by the network)
#   --upgrade          replace another version; it stays beside the new one, and comes back where a running instance does not come up
#   --rollback         go back to the version before
#   --uninstall        stop and remove all but configurations, models and results; with --purge these too, and the user
#   --csi              let the service have ribbon-cable cameras (systemd/csi-camera.conf)
#   --accelerator      let it have accelerators (systemd/accelerator.conf)
#   --dry-run          say what would be done, and do nothing
set -Eeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
HOME_DIR=/opt/edge-runner
VERSIONS=$HOME_DIR/versions
COMMAND=/usr/local/bin/edge-runner
UNITS=/usr/local/lib/systemd/system
UNIT=edge-runner@.service
SETTINGS=/etc/systemd/system
FORBIDDEN=$UNITS/edge-runner@models.service
CONFIGS=/etc/edge-runner
STATE=/var/lib/edge-runner
LOGS=/var/log/edge-runner
ACCOUNT=edge-runner
UNPROVEN=$HOME_DIR/.unproven # while a switch is not judged yet: to which version, and the instances that are to come up, a line each
LOCK=/run/edge-runner-install.lock # not in /run/lock, where anybody may make it first
PYTHON=/usr/bin/python3
ISOLATED=-IB # for every Python here: root must not run what lies in the current folder, and leaves no compiled files there
APT_MODULES=(numpy:python3-numpy cv2:python3-opencv yaml:python3-yaml) # of 32-bit boards, which have no wheels for them
EXIT_DAMAGED=3                                                          # only a wheelhouse can mend the version, and there is none here
SETTLE_S=3                                                              # how long an instance is watched after its start
umask 022
export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

say() { printf '%s\n' "$*" >&2; }

die() { give_up 1 "$@"; }

# give_up CODE WORD…
give_up() {
    say "edge-runner: error: ${*:2}"
    exit "$1"
}

usage() {
    say "usage: install_device.sh [--wheelhouse DIR] [--upgrade | --rollback | --uninstall [--purge]] [--csi] [--accelerator] [--dry-run]"
    say "edge-runner: error: $*"
    exit 2
}

# act WHAT COMMAND…: say it and do it; with --dry-run only say it.
act() {
    local what=$1
    shift
    changes=$((changes + 1)) doing=$what
    if $dry; then
        say "would $what"
    else
        say "$what"
        "$@"
    fi
    doing=
}

# --- what it was asked for

parse() {
    mode=install wheelhouse='' id='' purge=false dry=false dropins=() changes=0 doing=
    while [ $# -gt 0 ]; do
        case $1 in
        --wheelhouse)
            [ -n "${2:-}" ] || usage "--wheelhouse wants a folder"
            wheelhouse=$2
            shift
            ;;
        --upgrade | --rollback | --uninstall)
            [ "$mode" = install ] || usage "$1 and --$mode exclude each other"
            mode=${1#--}
            ;;
        --purge) purge=true ;;
        --csi) dropins+=(csi-camera.conf) ;;
        --accelerator) dropins+=(accelerator.conf) ;;
        --dry-run) dry=true ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" && exit ;;
        *) usage "$1 is no option" ;;
        esac
        shift
    done
    ! $purge || [ "$mode" = uninstall ] || usage "--purge goes with --uninstall"
    case $mode in rollback | uninstall) [ -z "$wheelhouse" ] || usage "--wheelhouse does not go with --$mode" ;; esac
}

# --- what has to be so; all that is not is said at once

problem() { problems+=("$*"); }

check_board() {
    problems=()
    [ "$(id -u)" = 0 ] || problem "root is needed: run it with sudo"
    [ -d /run/systemd/system ] || problem "this system does not run systemd"
    local tool
    for tool in flock sha256sum useradd setpriv; do
        command -v $tool >/dev/null || problem "the program $tool is missing"
    done
    case $mode in install | upgrade) check_command && check_python && check_wheelhouse ;; esac
    [ ${#problems[@]} = 0 ] || refuse
}

refuse() {
    local each
    for each in "${problems[@]}"; do
        say "$each"
    done
    die "nothing was changed; ${#problems[@]} of what an installation needs is not so"
}

# check_command: one of the same name that somebody else put there is not replaced.
check_command() {
    [ ! -e $COMMAND ] || [[ $(readlink $COMMAND) = $HOME_DIR/* ]] ||
        problem "$COMMAND is there already, and not from here (pip, perhaps: pip uninstall edge-runner); remove it"
}

check_python() {
    python_version=$($PYTHON $ISOLATED -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || true
    if [ -z "$python_version" ]; then
        problem "there is no $PYTHON: apt-get install python3"
    elif [ "${python_version#3.}" -lt 10 ]; then
        problem "$PYTHON is $python_version; 3.10 or newer is needed: Raspberry Pi OS or Debian Bookworm, Ubuntu 22.04, or newer"
    elif ! $PYTHON $ISOLATED -c 'import venv, ctypes, zipfile' 2>/dev/null; then
        problem "$PYTHON cannot make virtual environments: apt-get install python3-venv"
    fi
    # Of the userland: a 32-bit one may have a 64-bit kernel.
    case $(dpkg --print-architecture 2>/dev/null || echo "no Debian") in
    arm64) platform=aarch64 ;;
    armhf)
        platform=armv7l
        [ "$(uname -m)" != armv6l ] || problem "this processor is an ARMv6, of a Raspberry Pi 1, Zero or Zero W; there is a runtime only from ARMv7 on"
        ;;
    amd64) platform=x86_64 ;;
    *) platform='' && problem "dpkg --print-architecture is none of arm64, armhf, amd64; only for these Debians there is an edge-runner" ;;
    esac
}

check_wheelhouse() {
    [ -n "$platform" ] || return 0
    [ -n "$wheelhouse" ] || [ ! -d "$HERE/wheels" ] || wheelhouse=$HERE
    if [ -z "$wheelhouse" ] && [ "$HERE" = "$VERSIONS/$(version_of current)/share/edge-runner" ]; then
        id=$(version_of current)
    elif [ -z "$wheelhouse" ]; then
        [ -x "$HERE/make_wheelhouse.sh" ] || problem "there is no wheelhouse beside this script; name one with --wheelhouse"
    elif [ ! -f "$wheelhouse/WHEELHOUSE" ]; then
        problem "$wheelhouse is no wheelhouse; scripts/make_wheelhouse.sh makes one"
    else
        read_wheelhouse
    fi
}

of_wheelhouse() { sed -n "s/^$1=//p" "$wheelhouse/WHEELHOUSE"; }

# read_wheelhouse: whether it is whole, for this board, and fits on its disk.
read_wheelhouse() {
    wheelhouse=$(cd "$wheelhouse" && pwd)
    local damaged for_platform for_python
    for_platform=$(of_wheelhouse platform) for_python=$(of_wheelhouse python)
    if ! damaged=$(cd "$wheelhouse" && sha256sum --check --strict --quiet SHA256SUMS 2>&1); then
        problem "$wheelhouse is damaged, copy it again: $(sed -n 's/: FAILED.*//p' <<<"$damaged" | paste -sd ' ')"
        return 0
    fi
    id=$(of_wheelhouse version)-$(sha256sum "$wheelhouse/SHA256SUMS" | cut -c 1-8)
    if [ "$for_platform" != "$platform" ] || [ "$for_python" != "$python_version" ]; then
        problem "$wheelhouse is for $for_platform with Python $for_python; this board is $platform with Python $python_version:" \
            "make_wheelhouse.sh --platform $platform --python $python_version"
    elif ! is_whole; then
        check_disk
    fi
}

# check_disk: half as much again as the wheels unpack to: what is compiled of it, and some air.
check_disk() {
    local folder=$VERSIONS free needed
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df --output=avail -B1M "$folder" | tail -n 1)
    needed=$($PYTHON $ISOLATED - "$wheelhouse"/wheels/*.whl <<'PYTHON'
import sys, zipfile
whole = [name for name in sys.argv[1:] if zipfile.is_zipfile(name)]
print(sum(each.file_size for name in whole for each in zipfile.ZipFile(name).infolist()) * 3 // 2 // 2**20 + 20)
PYTHON
    )
    [ "$free" -ge "$needed" ] || problem "$folder has ${free// /} MB left, and $needed MB are needed"
}

# make_wheelhouse: in a clone, as whoever called sudo.
make_wheelhouse() {
    local command=("$HERE/make_wheelhouse.sh" --platform "$platform" --python "$python_version")
    [ -z "${SUDO_USER:-}" ] || [ "$SUDO_USER" = root ] || command=(runuser -u "$SUDO_USER" -- "${command[@]}")
    if $dry; then
        say "would make a wheelhouse: ${command[*]}; what is in it is known only then"
        exit 0
    fi
    "${command[@]}" || exit 1
    wheelhouse="$(dirname "$HERE")/wheelhouse/$platform-py$python_version"
    problems=()
    read_wheelhouse
    [ ${#problems[@]} = 0 ] || refuse
}

# --- the account, and its folders

ensure_account() {
    getent group $ACCOUNT >/dev/null || act "add the group $ACCOUNT" groupadd --system $ACCOUNT
    getent passwd $ACCOUNT >/dev/null || act "add the system user $ACCOUNT" \
        useradd --system --gid $ACCOUNT --home-dir $STATE --no-create-home --shell /usr/sbin/nologin $ACCOUNT
    ensure_member $ACCOUNT video
    ensure_member $ACCOUNT render
    [ -z "${SUDO_USER:-}" ] || [ "$SUDO_USER" = root ] || ensure_member "$SUDO_USER" $ACCOUNT
}

# ensure_member USER GROUP: where there is such a group.
ensure_member() {
    [ "$2" = $ACCOUNT ] || getent group "$2" >/dev/null || return 0
    id -nG "$1" 2>/dev/null | grep -qw -- "$2" || act "let $1 into the group $2" usermod --append --groups "$2" "$1"
}

# ensure_folder PATH OWNER MODE
ensure_folder() {
    [ "$(stat -L -c '%U:%G %a' "$1" 2>/dev/null)" = "$2 $3" ] || act "make the folder $1 ($2, $3)" make_folder "$@"
}

make_folder() { mkdir -p "$1" && chown "$2" "$1" && chmod "$3" "$1"; }

ensure_folders() {
    ensure_folder $HOME_DIR root:root 755
    ensure_folder $VERSIONS root:root 755
    ensure_folder $CONFIGS root:root 755
    ensure_folder $STATE root:root 755
    # Members of the group install models without root.
    ensure_folder $STATE/models $ACCOUNT:$ACCOUNT 2775
}

# --- a version

ensure_version() {
    $dry || clear_killed
    ! is_whole || return 0
    [ -n "$wheelhouse" ] || give_up $EXIT_DAMAGED "$id is damaged: $damage; run the install_device.sh of its wheelhouse again"
    [ "$platform" != armv7l ] || ensure_apt_modules
    if [ -d "$VERSIONS/$id" ]; then
        act "install $id anew, since it is damaged: $damage" build_version
    else
        act "install $id into $VERSIONS" build_version
    fi
}

# clear_killed: what a run that was killed left. A version that was moved aside for its mend, and is missed, comes back.
clear_killed() {
    local current
    current=$VERSIONS/$(version_of current)
    [ -d "$current" ] || [ ! -d "$VERSIONS/.old" ] || mv -T "$VERSIONS/.old" "$current"
    rm -rf "$VERSIONS"/.new "$VERSIONS"/.old
}

# is_whole: whether $id is installed, as it was installed, and runs; $damage says what is not so. It takes seconds, and is asked once.
is_whole() {
    [ -d "$VERSIONS/$id" ] || return 1
    [ -n "${damage+asked}" ] || damage=$(find_damage "$VERSIONS/$id")
    [ -z "$damage" ]
}

# find_damage DIR: the first of its files that is not what its package brought, or what it says when it is tried.
find_damage() {
    local said
    said=$(compare_files "$1")
    [ -n "$said" ] || said=$( (try_version "$1") 2>&1) || said=${said#edge-runner: error: }
    echo "$said"
}

# compare_files DIR: the first file whose hash is not the one in its package's RECORD.
compare_files() {
    $PYTHON $ISOLATED - "$1" <<'PYTHON'
import base64, csv, hashlib, pathlib, sys
for record in pathlib.Path(sys.argv[1]).glob("lib/python*/site-packages/*.dist-info/RECORD"):
    for name, wanted, _ in csv.reader(record.open(encoding="utf-8", errors="replace")):
        path = record.parent.parent / name
        # Programs, which lie outside, and compiled files name another folder since they were installed.
        if wanted.startswith("sha256=") and not name.startswith("../") and not name.endswith(".pyc"):
            try:
                found = hashlib.sha256(path.read_bytes()).digest()
            except OSError as error:
                sys.exit(print(f"{name}: {error.strerror.lower()}"))
            if base64.urlsafe_b64encode(found).decode().rstrip("=") != wanted[7:]:
                sys.exit(print(f"{name} has changed"))
PYTHON
}

ensure_apt_modules() {
    local each missing=()
    for each in "${APT_MODULES[@]}"; do
        $PYTHON $ISOLATED -c "import ${each%:*}" 2>/dev/null || missing+=("${each#*:}")
    done
    [ ${#missing[@]} = 0 ] || act "apt-get install ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends "$@"; } >/dev/null 2>&1 ||
        die "apt-get cannot install $*, which a 32-bit board has from Debian; without a network, install them beforehand"
}

# build_version: in a hidden folder, which gets its name when it is whole, tried and on the disk.
build_version() {
    local new=$VERSIONS/.new options=()
    [ "$platform" != armv7l ] || options=(--system-site-packages)
    $PYTHON $ISOLATED -m venv --without-pip "${options[@]}" "$new" || die "$PYTHON cannot make a virtual environment in $new"
    options=()
    [ "$platform" != armv7l ] || options=(--no-deps) # what is Debian's does not count for pip
    install_wheels "$new" "${options[@]}"
    # Compiled now: the service may not write here. Under the name that the folder will have.
    "$new/bin/python" -I -m compileall -q -j 0 -s "$new" -p "$VERSIONS/$id" "$new/lib" >/dev/null 2>&1 || true
    grep -rlIF --exclude-dir=__pycache__ "$new" "$new/bin" "$new/pyvenv.cfg" | xargs -r sed -i "s|$new|$VERSIONS/$id|g"
    rm -f "$new"/bin/[aA]ctivate*
    mkdir -p "$new/share/edge-runner"
    cp -r "$wheelhouse/systemd" "$wheelhouse/WHEELHOUSE" "$wheelhouse/install_device.sh" "$new/share/edge-runner/"
    try_version "$new"
    sync -f "$new"
    [ ! -d "$VERSIONS/$id" ] || mv -T "$VERSIONS/$id" "$VERSIONS/.old"
    mv -T "$new" "$VERSIONS/$id"
    rm -rf "$VERSIONS/.old"
    sync -f "$VERSIONS"
}

# install_wheels DIR OPTION…: with the pip of the wheelhouse, and nothing but what it lists. /tmp may be memory.
install_wheels() {
    local log=$1/pip.log
    env -i PATH="$PATH" HOME=/root TMPDIR=/var/tmp PIP_CONFIG_FILE=/dev/null LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 \
        "$1/bin/python" $ISOLATED "$(echo "$wheelhouse"/wheels/pip-*.whl)/pip" install --no-index --find-links "$wheelhouse/wheels" --require-hashes \
        --only-binary=:all: --no-compile --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-warn-script-location \
        "${@:2}" --requirement "$wheelhouse/requirements.txt" >"$log" 2>&1 ||
        die "pip could not install $id: $(grep -E '^(ERROR|OSError)' "$log" | tail -n 1 | sed 's/^ERROR: //' | grep . || tail -n 1 "$log")"
    rm "$log"
}

# try_version DIR: it starts, and its runtime and decoders load.
try_version() {
    local said
    said=$("$1/bin/python" $ISOLATED -m edge_runner --version 2>&1) || die "$id does not start: $(last_words $? "$said")"
    said=$("$1/bin/python" $ISOLATED -c 'import cv2, yaml
from edge_runner.model.interpreter import find_runtime
find_runtime("auto")' 2>&1) || die "$id does not run on this board: $(last_words $? "$said")"
}

# last_words CODE SAID: the last line, or where there is none, how it ended.
last_words() {
    if [ -n "$2" ]; then
        tail -n 1 <<<"$2"
    elif [ "$1" -gt 128 ]; then
        echo "it is ended by SIG$(kill -l "$1"), as what is built for another processor, or is damaged"
    else
        echo "exit code $1"
    fi
}

# --- the switch

# link TARGET PATH: at once, so that there always is one.
link() {
    ln -sfn "$1" "$2.new"
    mv -T "$2.new" "$2"
}

version_of() { basename "$(readlink "$HOME_DIR/$1" 2>/dev/null)" 2>/dev/null || true; }

# instances [STATES]: the names of all that run, or would but for a failure that is tried again.
instances() {
    systemctl list-units --plain --no-legend "--state=${1:-active,activating,reloading,deactivating}" 'edge-runner@*.service' |
        sed -nE 's/^edge-runner@(.*)\.service .*/\1/p'
}

# healthy: of these, those that are up, and ours. Only they speak against a version: what fails already may do so for any cause.
healthy() {
    local name
    for name in $(instances active,reloading); do
        ! foreign "$name" || continue
        echo "$name"
    done
}

# program_of NAME: the program that the instance's process is; nothing where there is no process.
program_of() {
    local pid program=
    pid=$(systemctl show --value --property MainPID "edge-runner@$1")
    [ "$pid" = 0 ] || read -r -d '' program 2>/dev/null <"/proc/$pid/cmdline" || true
    echo "$program"
}

# foreign NAME: whether what runs is nobody's version: an administrator's drop-in has another program, or it is only just being started.
foreign() {
    case $(program_of "$1") in '' | "$VERSIONS"/*) return 1 ;; esac
}

# runs NAME VERSION: whether the instance's process is of that version.
runs() { [[ $(program_of "$1") = "$VERSIONS/$2/"* ]]; }

# up NAME VERSION: whether the instance is, and of that version.
up() { systemctl is-active --quiet "edge-runner@$1" && runs "$1" "$2"; }

# check_instances VERSION: what is up has to be right for it, too; but what the version that runs does not take either decides nothing.
check_instances() {
    local name said refused=()
    for name in $(healthy); do
        if ! said=$(check_instance "$name" "$1") && check_instance "$name" "$(version_of current)" >/dev/null; then
            say "$said"
            refused+=("$CONFIGS/$name.yaml")
        fi
    done
    [ ${#refused[@]} = 0 ] || die "$1 does not take ${refused[*]}, as said above; $(version_of current) runs on"
}

# check_instance NAME VERSION: what the version says of the configuration, and whether it would stay down with it.
check_instance() {
    local code=0
    timeout 300 setpriv --reuid=$ACCOUNT --regid=$ACCOUNT --init-groups env -i PATH="$PATH" HOME=$STATE \
        LOGS_DIRECTORY="$LOGS/$1" STATE_DIRECTORY="$STATE/$1" \
        "$VERSIONS/$2/bin/edge-runner" check --config "$CONFIGS/$1.yaml" 2>&1 || code=$?
    case $code in 2 | 78) return 1 ;; esac
}

# switch_to VERSION: links, command and units; instances still run what they ran.
switch_to() {
    local old
    old=$(version_of current)
    sync -f "$VERSIONS/$1"
    if [ "$old" != "$1" ]; then
        [ -z "$old" ] || link "versions/$old" $HOME_DIR/previous # first: whoever goes on after a power cut knows the way back
        link "versions/$1" $HOME_DIR/current
    fi
    ensure_command
    place_units "$VERSIONS/$1/share/edge-runner/systemd"
    sync -f $HOME_DIR
}

ensure_command() {
    [ "$(readlink $COMMAND)" = $HOME_DIR/current/bin/edge-runner ] || { mkdir -p "$(dirname $COMMAND)" && link $HOME_DIR/current/bin/edge-runner $COMMAND; }
}

# place_units DIR: where they are not so yet. Drop-ins are those that were asked for, now or before.
place_units() {
    local each
    placed=false # whether anything was: what runs takes no notice of it until it is restarted
    while read -r each; do
        cmp -s "$1/$(basename "$each")" "$each" || { place "$1/$(basename "$each")" "$each" && placed=true; }
    done < <(wanted_units)
    # The store of models lies where the state of an instance of that name would.
    [ "$(readlink $FORBIDDEN)" = /dev/null ] || { link /dev/null $FORBIDDEN && placed=true; }
    ! $placed || systemctl daemon-reload
}

wanted_units() {
    local each
    echo $UNITS/$UNIT
    for each in "${dropins[@]}"; do echo "$UNITS/$UNIT.d/$each"; done
    for each in csi-camera.conf accelerator.conf; do [ ! -e "$UNITS/$UNIT.d/$each" ] || echo "$UNITS/$UNIT.d/$each"; done
}

place() { mkdir -p "$(dirname "$2")" && cp "$1" "$2.new" && chmod 644 "$2.new" && mv -T "$2.new" "$2"; }

# units_differ VERSION: whether place_units would change something.
units_differ() {
    local each
    [ "$(readlink $FORBIDDEN)" = /dev/null ] || return 0
    while read -r each; do
        cmp -s "$VERSIONS/$1/share/edge-runner/systemd/$(basename "$each")" "$each" || return 0
    done < <(wanted_units)
    return 1
}

# restart VERSION HEALTHY…: every instance that runs another one; whether those that were healthy came up, and stayed.
restart() {
    local name
    for name in $(instances); do
        ! foreign "$name" || continue
        ! runs "$name" "$1" || $placed || continue
        say "restart edge-runner@$name"
        if among "$name" "${@:2}"; then
            systemctl restart "edge-runner@$name" 2>/dev/null || { tell_failure "$name" && return 1; }
        else
            say "edge-runner@$name did not run before, so it does not decide; systemctl status edge-runner@$name says how it goes on"
            systemctl restart --no-block "edge-runner@$name" || true # waiting for it could take for ever
        fi
    done
    [ $# = 1 ] || sleep $SETTLE_S
    for name in "${@:2}"; do
        up "$name" "$1" || { tell_failure "$name" && return 1; }
    done
}

# among WORD WORD…: whether the first is one of the others.
among() { [[ " ${*:2} " = *" $1 "* ]]; }

tell_failure() {
    say "edge-runner@$1 does not come up:"
    journalctl --no-pager --quiet --output=cat --lines=3 --unit "edge-runner@$1" 2>/dev/null | sed 's/^/    /' >&2 || true
}

# unproven VERSION: whether a switch to it was cut off.
unproven() { [ "$(head -n 1 $UNPROVEN 2>/dev/null)" = "$1" ]; }

# change_to VERSION: switch and restart; back to what was, where that does not work. Only a cut of the power ends it half-way; then the
# next run goes on from $UNPROVEN.
change_to() {
    local old before healthy
    trap '' INT TERM HUP
    old=$(version_of current) before=$(version_of previous)
    if unproven "$1"; then
        [ "$old" != "$1" ] || old=$before
        healthy=$(tail -n +2 $UNPROVEN)
    else
        healthy=$(healthy)
        printf '%s\n' "$1" "$healthy" >$UNPROVEN
    fi
    switch_to "$1"
    # shellcheck disable=SC2086  # a list
    if restart "$1" $healthy; then
        rm -f $UNPROVEN
    elif [ -z "$old" ] || [ "$old" = "$1" ]; then
        rm -f $UNPROVEN
        die "$1 is installed, but not all instances run"
    else
        go_back "$1" "$old" "$before" "$healthy"
        rm -f $UNPROVEN
        die "$1 does not come up on this board; $old runs on"
    fi
}

# go_back FAILED OLD BEFORE HEALTHY: all is as it was, and a version that was not there before goes.
go_back() {
    local name
    say "go back to $2"
    switch_to "$2"
    # shellcheck disable=SC2086  # lists
    for name in $(printf '%s\n' $(instances) $4 | sort -u); do
        if foreign "$name" || { up "$name" "$2" && ! $placed; }; then
            continue
        elif among "$name" $4; then
            systemctl restart "edge-runner@$name" || tell_failure "$name"
        else
            systemctl restart --no-block "edge-runner@$name" || true
        fi
    done
    [ "$3" != "$1" ] || return 0
    if [ -n "$3" ] && [ "$3" != "$2" ]; then
        link "versions/$3" $HOME_DIR/previous
    else
        rm -f $HOME_DIR/previous
    fi
    say "remove $1"
    rm -rf "${VERSIONS:?}/$1"
}

# outdated VERSION: whether a process is of another one. One that is tried again comes up with what is current.
outdated() {
    local name program
    for name in $(instances); do
        program=$(program_of "$name")
        case $program in
        "$VERSIONS/$1/"*) ;;
        "$VERSIONS"/*) return 0 ;;
        esac
    done
    return 1
}

# remove_others VERSION BEFORE: of the versions, all but these.
remove_others() {
    local each
    for each in "$VERSIONS"/*; do
        case ${each##*/} in "$1" | "$2" | '*') ;; *) act "remove ${each##*/}" rm -rf "$each" ;; esac
    done
}

# --- the four things to do

install_or_upgrade() {
    local current
    [ -n "$id" ] || make_wheelhouse
    current=$(version_of current)
    [ "$mode" = upgrade ] || [ -z "$current" ] || [ "$current" = "$id" ] ||
        die "$current is installed; to replace it by $id, run this again with --upgrade"
    ensure_account
    ensure_folders
    ensure_version
    if [ "$current" != "$id" ]; then
        $dry || check_instances "$id"
        act "make $id the current version" change_to "$id"
    elif unproven "$id" || [ "$(readlink $COMMAND)" != $HOME_DIR/current/bin/edge-runner ] || units_differ "$id" || outdated "$id"; then
        act "put the unit, its drop-ins and what runs in order" change_to "$id"
    fi
    [ -n "$current" ] && [ "$current" != "$id" ] || current=$(version_of previous)
    remove_others "$id" "$current"
    conclude "$id"
}

rollback() {
    local previous
    previous=$(version_of previous)
    [ -n "$previous" ] && [ -d "$VERSIONS/$previous" ] || die "there is no version before $(version_of current | grep . || echo "this: none is installed")"
    act "make $previous the current version" change_to "$previous"
    conclude "$previous"
}

conclude() {
    if $dry; then
        say "$changes changes would be made; nothing was done"
    elif [ $changes = 0 ]; then
        say "edge-runner $1 is installed; nothing was to be done"
    else
        say "edge-runner $1 is installed. Next: $CONFIGS/NAME.yaml, then: systemctl enable --now edge-runner@NAME"
    fi
}

uninstall() {
    local unit links
    for unit in $(known_instances); do
        act "stop and disable $unit" stop_instance "$unit"
    done
    mapfile -t links < <(placed_links)
    [ ! -e "$UNITS/$UNIT" ] && [ ! -e "$UNITS/$UNIT.d" ] && [ ${#links[@]} = 0 ] || act "remove the unit" remove_units
    [ ! -L $COMMAND ] || [[ $(readlink $COMMAND) != $HOME_DIR/* ]] || act "remove $COMMAND" rm -f $COMMAND
    [ ! -e $HOME_DIR ] || act "remove $HOME_DIR" rm -rf $HOME_DIR
    if $purge; then
        purge_rest
    elif [ -d $CONFIGS ] || [ -d $STATE ] || [ -d $LOGS ]; then
        say "kept: $CONFIGS, $STATE, $LOGS and the user $ACCOUNT; --uninstall --purge removes them"
    fi
    ! $dry || say "$changes changes would be made; nothing was done"
    $dry || [ $changes != 0 ] || say "edge-runner is not installed; nothing was to be done"
}

# known_instances: all that run, failed or are enabled.
known_instances() {
    {
        systemctl list-units --all --plain --no-legend 'edge-runner@*.service' | sed -nE 's/^(edge-runner@\S+).*/\1/p'
        find $SETTINGS -name 'edge-runner@?*.service' -type l -printf '%f\n'
    } | sort -u
}

stop_instance() {
    systemctl stop "$1" || die "$1 does not stop; nothing more was removed"
    systemctl --quiet disable "$1" 2>/dev/null || true
    systemctl reset-failed "$1" 2>/dev/null || true
}

# placed_links: drop-ins of single instances that are links to those of a version, as deploy.sh makes them.
placed_links() { find $SETTINGS -mindepth 2 -path '*/edge-runner@*.service.d/*' -type l -lname "$HOME_DIR/*"; }

remove_units() {
    rm -rf "${UNITS:?}/$UNIT" "$UNITS/$UNIT.d" $FORBIDDEN
    [ ${#links[@]} = 0 ] || rm -f "${links[@]}"
    systemctl daemon-reload
}

purge_rest() {
    local each
    for each in $CONFIGS $STATE $LOGS /run/edge-runner; do
        [ ! -e "$each" ] || act "remove $each" rm -rf "$each"
    done
    while read -r each; do
        act "remove $each" rmdir "$each"
    done < <(find $SETTINGS -mindepth 1 -maxdepth 1 -name 'edge-runner@*.service.d' -type d -empty)
    ! getent passwd $ACCOUNT >/dev/null || act "remove the user $ACCOUNT" userdel $ACCOUNT
    ! getent group $ACCOUNT >/dev/null || $dry || groupdel $ACCOUNT
}

parse "$@"
check_board
if ! $dry; then
    exec 9>>$LOCK
    flock -n 9 || die "another installation is going on"
    trap 'rm -rf "$VERSIONS/.new"' EXIT
    trap 'exit 130' INT TERM
    trap 'say "edge-runner: error: ${doing:+could not $doing, as the lines above say: }$BASH_COMMAND fails"' ERR
fi
case $mode in
install | upgrade) install_or_upgrade ;;
*) "$mode" ;;
esac
