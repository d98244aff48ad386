#!/bin/sh
# Install edgekube on this machine: as a server (the default), or as an agent of one. Running it again upgrades, changes settings,
# completes what was interrupted, and starts what was stopped.
#
#   install.sh [server] [flags for `edgekube server`...]
#   install.sh agent --server https://HOST:6443 --token TOKEN [flags for `edgekube agent`...]
#
#   --binary FILE       the program, if it is not beside this script (edgekube, or edgekube-VERSION-linux-ARCH)
#   --offline DIR       take all from DIR and ask no network: the program, *.deb packages, and *.tar* archives of images
#   --allow-downgrade   install an older program than the one that is here
#   --fix               let `edgekube check` put right what it safely can
#
# The same by variables: INSTALL_EDGEKUBE_BINARY, INSTALL_EDGEKUBE_OFFLINE, INSTALL_EDGEKUBE_EXEC (role and flags, before those of the
# command line), INSTALL_EDGEKUBE_DATA_DIR, INSTALL_EDGEKUBE_SKIP_ENABLE=true, INSTALL_EDGEKUBE_SKIP_START=true; EDGEKUBE_URL (makes an
# agent) and EDGEKUBE_TOKEN; EDGEKUBE_<SETTING> for every setting. Flags and settings are remembered in /etc/edgekube/config.yaml, a token
# only in a file for root, and only until this machine has joined.
#
# Without a program it is installed from the checkout that this script is in, with a Python environment of its own (for development).
set -eu

HOME_DIR=/usr/local/lib/edgekube
LAUNCHER=/usr/local/bin/edgekube
STAGED=/usr/local/bin/.edgekube.new
LOG=/var/log/edgekube.log
CONFIG_DIR=/etc/edgekube
ENV_FILE=$CONFIG_DIR/edgekube.env
TOKEN_FILE=$CONFIG_DIR/join-token
LEAST_MIB=200          # the program unpacked, and room to start

say() { echo "edgekube: $*"; }
warn() { echo "edgekube: $*" >&2; }
fail() { warn "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
is_true() { case "${1:-}" in true | 1 | yes) return 0 ;; *) return 1 ;; esac; }

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
UMASK=$(umask)
umask 022

# --- the machine

check_machine() {
    [ "$(uname -s)" = Linux ] || fail "edgekube runs on Linux only, this is $(uname -s)"
    [ "$(id -u)" = 0 ] || fail "installing needs root: run it with sudo"
    case "$(uname -m)" in
    x86_64 | amd64) ARCH=amd64 OTHER=x86_64 ELF=3e ;;
    aarch64 | arm64) ARCH=arm64 OTHER=aarch64 ELF=b7 ;;
    *) fail "there is no edgekube for $(uname -m): it runs on 64-bit x86 (amd64) and ARM (arm64)" ;;
    esac
    # A 64-bit kernel below a 32-bit system, as on a Raspberry Pi: the kernel says arm64, the programs are not.
    if has getconf && [ "$(getconf LONG_BIT 2>/dev/null || echo 64)" != 64 ]; then
        fail "this system is a 32-bit one on a 64-bit kernel: edgekube needs a 64-bit system (for a Raspberry Pi: Raspberry Pi OS 64-bit)"
    fi
}

check_space() {
    for folder in "$1" /usr/local/bin; do
        while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
        free=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
        [ "${free:-0}" -ge "$LEAST_MIB" ] || fail "only $free MiB are free on the disk of $folder: at least $LEAST_MIB MiB are needed. Nothing was changed"
    done
}

# --- the program

find_program() {
    # $1: a folder. Prints the newest program for this machine in it.
    for name in "$1"/edgekube-*-linux-"$ARCH" "$1"/edgekube-*-linux-"$OTHER"; do
        [ -f "$name" ] && echo "$name"
    done | sort -V | tail -n 1 | grep . && return
    [ -f "$1/edgekube" ] && echo "$1/edgekube"
}

choose_program() {
    [ -z "$BINARY" ] || { [ -f "$BINARY" ] || fail "$BINARY does not exist or is no file"; return 0; }
    if [ -n "$OFFLINE" ]; then
        BINARY=$(find_program "$OFFLINE") || fail "there is no program edgekube-VERSION-linux-$ARCH in $OFFLINE"
        return 0
    fi
    BINARY=$(find_program "$HERE") && return 0
    [ -f "$HERE/../pyproject.toml" ] || fail "there is no program edgekube-VERSION-linux-$ARCH beside $0: name it with --binary FILE"
    CHECKOUT=$(CDPATH='' cd -- "$HERE/.." && pwd)
    BINARY=$(find_program "$CHECKOUT/dist") || BINARY=""
}

check_program() {
    # Before anything is changed: is it whole, is it for this machine? Whether this system's C library will do it says itself.
    magic=$(od -An -tx1 -N 20 "$BINARY" | tr -d ' \n')
    case "$magic" in
    7f454c46*) machine=$(echo "$magic" | cut -c37-38) ;;
    2321*) machine=$ELF ;; # a script
    *) fail "$BINARY is no program for Linux, or damaged: copy it again" ;;
    esac
    [ "$machine" = "$ELF" ] || fail "$BINARY is for another kind of machine: this one needs the file for $ARCH"
    check_sum
}

check_sum() {
    sums=$(dirname "$BINARY")/SHA256SUMS
    [ -f "$sums" ] || return 0
    wanted=$(awk -v name="$(basename "$BINARY")" '{ sub(/^\*/, "", $2); sub(/^\.\//, "", $2) } $2 == name { print $1; exit }' "$sums")
    [ -n "$wanted" ] || return 0
    found=$(sha256sum "$BINARY" | cut -d' ' -f1)
    [ "$found" = "$wanted" ] || fail "$BINARY is damaged: its SHA-256 is $found, $sums says $wanted. Copy it again"
}

version_of() { "$1" version 2>/dev/null | awk '$1 == "edgekube" { print $2; exit }'; }

stage_program() {
    # Beside its place, so that putting it there is one step; what was staged by an interrupted run is replaced.
    rm -f "$STAGED"
    if [ -n "$BINARY" ]; then
        mkdir -p "$(dirname "$STAGED")"
        cp "$BINARY" "$STAGED" || { rm -f "$STAGED"; fail "$BINARY could not be copied to $(dirname "$STAGED")"; }
        chmod 755 "$STAGED"
    else
        build_environment
        ln -sfn "$target/bin/edgekube" "$STAGED"
    fi
    new=$(version_of "$STAGED") || new=""
    if [ -z "$new" ]; then
        why=$("$STAGED" version 2>&1 | tail -n 1) || true
        rm -f "$STAGED"
        end=.
        case "$why" in
        "") why="it ends without a word: is ${BINARY:-it} edgekube?" end="" ;;
        *"xec format error"*) why="$BINARY is damaged: copy it again" ;;
        esac
        fail "the program does not run on this machine: ${why#edgekube: }$end Nothing was changed"
    fi
    old=""
    [ ! -e "$LAUNCHER" ] || old=$(version_of "$LAUNCHER") || old=""
    if [ -n "$old" ] && [ "$old" != "$new" ] && [ "$(printf '%s\n%s\n' "$old" "$new" | sort -V | tail -n 1)" = "$old" ]; then
        is_true "$DOWNGRADE" || { rm -f "$STAGED"; fail "edgekube $old is installed, and $new is older: its database may not be read by it. Use --allow-downgrade if you mean it"; }
    fi
}

build_environment() {
    # From the checkout. Built aside and moved into place: a broken download leaves the running version alone.
    stamp=$(cd "$CHECKOUT" && find edgekube systemd pyproject.toml -type f ! -name '*.pyc' -exec sha256sum {} + | sort | sha256sum | cut -c1-16)
    target="$HOME_DIR/$stamp"
    [ ! -x "$target/bin/edgekube" ] || return 0
    say "installing the program from $CHECKOUT"
    rm -rf "$target"
    mkdir -p "$HOME_DIR"
    /usr/bin/python3 -m venv "$target" || fail "python3 -m venv failed"
    "$target/bin/python" -m pip install -q --disable-pip-version-check "$CHECKOUT" ||
        { rm -rf "$target"; fail "the program could not be installed from $CHECKOUT"; }
}

place_program() {
    UPGRADED=false
    if [ -e "$LAUNCHER" ] && cmp -s "$STAGED" "$LAUNCHER"; then
        rm -f "$STAGED"
    elif [ -n "$BINARY" ] && [ -f "$LAUNCHER" ] && [ ! -h "$LAUNCHER" ] && ! is_true "$SKIP_START" && runs "$@"; then
        # On trial: should it not become ready, the program and the database of before come back by themselves.
        allow=""
        if is_true "$DOWNGRADE"; then allow=--allow-downgrade; fi
        [ ! -d /run/systemd/system ] || systemctl daemon-reload
        # shellcheck disable=SC2086  # nothing, or one word
        "$STAGED" upgrade "$STAGED" "--data-dir=$DATA_DIR" --timeout "$WAIT" $allow || { rm -f "$STAGED"; fail "edgekube ${old:-before} is in use as before"; }
        rm -f "$STAGED"
        UPGRADED=true
    else
        mv -Tf "$STAGED" "$LAUNCHER" 2>/dev/null || mv -f "$STAGED" "$LAUNCHER"
        say "edgekube ${new}${old:+ (it was $old)} is in $LAUNCHER"
    fi
}

runs() {
    case "$("$STAGED" status "$@" 2>/dev/null | head -n 1)" in "process: "[0-9]*) return 0 ;; *) return 1 ;; esac
}

remove_old_environments() {
    # Only after the new one has started: until it is stopped, the old one still reads its files.
    for folder in "$HOME_DIR"/*; do
        if [ "$folder" != "${target:-none}" ]; then rm -rf "$folder"; fi
    done
    rmdir "$HOME_DIR" 2>/dev/null || true
}

# --- packages

missing_commands() {
    # What the program calls. It finds libnftables without a program of its own.
    for name in podman conmon nft ip; do
        has "$name" || [ -x "/usr/sbin/$name" ] || [ -x "/usr/libexec/podman/$name" ] || [ -x "/usr/lib/podman/$name" ] || echo "$name"
    done
    has crun || has runc || [ -x /usr/sbin/runc ] || echo crun
    [ -n "$BINARY" ] || /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || echo venv
    (ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || echo libnftables.so.1) | grep -q 'libnftables\.so\.1' || echo libnftables
}

package_names() {
    # The words of `missing_commands` as packages of the manager $1.
    while read -r name; do
        case "$1:$name" in
        *:nft) echo nftables ;;
        dnf:ip) echo iproute ;;
        *:ip) echo iproute2 ;;
        apt:libnftables | zypper:libnftables) echo libnftables1 ;;
        apk:libnftables | dnf:libnftables) echo nftables ;;
        apt:venv) printf 'python3\npython3-venv\nca-certificates\n' ;;
        *:venv) echo python3 ;;
        *) echo "$name" ;;
        esac
    done | sort -u
}

install_packages() {
    missing=$(missing_commands)
    [ -n "$missing" ] || return 0
    if [ -n "$OFFLINE" ]; then
        install_offline
    else
        manager=""
        for name in apt-get:apt dnf:dnf apk:apk zypper:zypper; do
            if has "${name%%:*}"; then manager=${name#*:} && break; fi
        done
        # shellcheck disable=SC2086  # a list of words on purpose
        [ -n "$manager" ] || fail "these are missing, and there is no apt, dnf, apk or zypper to install them with:" $missing
        packages=$(echo "$missing" | package_names "$manager" | tr '\n' ' ')
        say "installing ${packages% }"
        log=$(mktemp)
        "with_$manager" >"$log" 2>&1 || { tail -n 5 "$log" >&2; rm -f "$log"; fail "the packages ${packages% } could not be installed"; }
        rm -f "$log"
        INSTALLED=$packages
    fi
    hash -r
    missing=$(missing_commands)
    # shellcheck disable=SC2086  # a list of words on purpose
    [ -z "$missing" ] || fail "these are still missing:" $missing
}

# shellcheck disable=SC2086  # a list of words on purpose
with_apt() {
    export DEBIAN_FRONTEND=noninteractive
    set -- -y -q --no-install-recommends -o DPkg::Lock::Timeout=120
    apt-get install "$@" $packages || { apt-get update -q && apt-get install "$@" $packages; }
}
# shellcheck disable=SC2086
with_dnf() { dnf install -y -q --setopt=install_weak_deps=False $packages; }
# shellcheck disable=SC2086
with_apk() { apk add --no-cache $packages; }
# shellcheck disable=SC2086
with_zypper() { zypper --non-interactive install --no-recommends $packages; }

install_offline() {
    # Packages of the folder that are not here yet, all in one go: dpkg configures them in the order of their dependencies. One that must
    # be whole before another is even unpacked needs a second round.
    has dpkg || fail "podman and its helpers are missing, and offline they can be installed from .deb files only"
    set --
    for file in "$OFFLINE"/*.deb "$OFFLINE"/*/*.deb; do
        [ -f "$file" ] || continue
        name=$(dpkg-deb -f "$file" Package) || fail "$file is damaged: copy it again"
        wanted=$(dpkg-deb -f "$file" Version)
        have=$(dpkg-query -W -f '${Status} ${Version}' "$name" 2>/dev/null) || have=""
        case "$have" in
        "install ok installed "*) dpkg --compare-versions "${have##* }" lt "$wanted" || continue ;;
        esac
        set -- "$@" "$file"
        INSTALLED="$INSTALLED $name"
    done
    # shellcheck disable=SC2086  # a list of words on purpose
    [ $# -gt 0 ] || fail "there are no packages in $OFFLINE for what is missing:" $missing
    say "installing$INSTALLED"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    for _ in 1 2 3; do
        if dpkg --force-confold -i "$@" >"$log" 2>&1; then rm -f "$log" && return 0; fi
    done
    grep -i -E 'depends|error' "$log" | head -n 5 >&2
    rm -f "$log"
    fail "the packages of $OFFLINE could not be installed: see which others they depend on, and put those there too"
}

place_images() {
    # Archives of images are loaded when edgekube runs.
    for file in "$OFFLINE"/*.tar "$OFFLINE"/*.tar.gz "$OFFLINE"/*.tgz "$OFFLINE"/*.tar.zst "$OFFLINE"/*.tar.xz; do
        [ -f "$file" ] || continue
        place="$DATA_DIR/images/$(basename "$file")"
        cmp -s "$file" "$place" && continue
        (umask 077 && mkdir -p "$DATA_DIR/images")
        cp "$file" "$DATA_DIR/images/.new" || fail "$file could not be copied to $DATA_DIR/images"
        mv -f "$DATA_DIR/images/.new" "$place"
        say "the images of $(basename "$file") are in $place"
    done
}

# --- settings, units, start

edgekube_staged() {
    command=$1
    shift
    "$STAGED" "$command" "--data-dir=$DATA_DIR" "$@"
}

note_changes() {
    # Into the receipt, before they are made: `edgekube uninstall` undoes them.
    edgekube_staged host note tree "$LAUNCHER" || fail "the receipt in $DATA_DIR could not be written"
    # shellcheck disable=SC2086  # a list of words on purpose
    [ -z "$MADE" ] || edgekube_staged host note --made folder $MADE
    edgekube_staged host note folder "$CONFIG_DIR"
    edgekube_staged host note file "$ENV_FILE"
    [ -n "$BINARY" ] || edgekube_staged host note tree "$HOME_DIR"
    [ -d /run/systemd/system ] || edgekube_staged host note file "$LOG"
    # shellcheck disable=SC2086  # a list of words on purpose
    [ -z "$INSTALLED" ] || edgekube_staged host note package $INSTALLED
}

findings() {
    # Those marked with $1, each with the proof and the fix below it.
    awk -v mark="^ *($1)" '!/^        / { shown = $0 ~ mark } shown'
}

check_host() {
    # What runs is left alone if the flags are wrong (2) or the machine can not do it (1).
    code=0
    found=$("$STAGED" check --as "$ROLE" $FIX "$@" 2>&1) || code=$?
    [ $code != 2 ] || { rm -f "$STAGED"; fail "$(echo "$found" | tail -n 1 | sed 's/^edgekube: error: //')"; }
    [ $code = 0 ] || { rm -f "$STAGED"; fail "this machine can not be made $ROLE_TEXT:
$(echo "$found" | findings 'FAIL|edgekube:')"; }
    echo "$found" | findings warn >&2
}

failed() {
    # With what the program said last of its own accord.
    last=$(journalctl -q -u "$UNIT" -n 50 -o cat 2>/dev/null | sed -n 's/^edgekube: //p' | tail -n 1)
    fail "$1${last:+: $last}. See journalctl -u $UNIT; systemd goes on trying. Running this again is fine"
}

start_with_systemd() {
    systemctl daemon-reload
    if ! is_true "$SKIP_ENABLE"; then systemctl enable -q edgekube-shutdown.service "$UNIT.service"; fi
    if is_true "$SKIP_START"; then return 0; fi
    systemctl start edgekube-shutdown.service || true
    is_true "$UPGRADED" || systemctl restart "$UNIT.service" 2>/dev/null || failed "the service did not start"
    "$LAUNCHER" status --wait "$WAIT" --node --quiet "$@" || failed "the node did not become ready"
}

start_in_background() {
    if is_true "$SKIP_START"; then return 0; fi
    if is_true "$UPGRADED"; then
        "$LAUNCHER" status --wait "$WAIT" --node --quiet "$@" || fail "the node did not become ready: see $LOG"
        return 0
    fi
    "$LAUNCHER" stop "--data-dir=$DATA_DIR" >/dev/null 2>&1 || true
    umask "$UMASK"
    setsid nohup "$LAUNCHER" "$ROLE" "$@" >>"$LOG" 2>&1 </dev/null &
    process=$!
    umask 022
    tries=0
    until "$LAUNCHER" status --wait 2 --node --quiet "$@"; do
        tries=$((tries + 1))
        if [ $((tries * 2)) -ge "$WAIT" ] || ! kill -0 $process 2>/dev/null; then
            tail -n 3 "$LOG" >&2
            fail "the node did not become ready: see $LOG"
        fi
    done
}

# --- what is asked for

ROLE="" BINARY=${INSTALL_EDGEKUBE_BINARY:-} OFFLINE=${INSTALL_EDGEKUBE_OFFLINE:-} DOWNGRADE=false FIX="" CHECKOUT="" INSTALLED="" MADE="" target=""
SKIP_ENABLE=${INSTALL_EDGEKUBE_SKIP_ENABLE:-} SKIP_START=${INSTALL_EDGEKUBE_SKIP_START:-} WAIT=${INSTALL_EDGEKUBE_WAIT:-120}
EDGEKUBE_TOKEN=${EDGEKUBE_TOKEN:-}
DATA_DIR=${EDGEKUBE_DATA_DIR:-/var/lib/edgekube}
if [ -n "${INSTALL_EDGEKUBE_DATA_DIR:-}" ]; then
    DATA_DIR=$INSTALL_EDGEKUBE_DATA_DIR
    set -- "$@" "--data-dir=$DATA_DIR"
fi
chosen=""
case "${1:-}" in server | agent) chosen=$1 && shift ;; esac
# shellcheck disable=SC2086  # words, as with k3s
set -- ${INSTALL_EDGEKUBE_EXEC:-} "$@"
case "${1:-}" in server | agent) ROLE=$1 && shift ;; esac
ROLE=${chosen:-$ROLE}
count=$#
while [ "$count" -gt 0 ]; do
    word=$1 value=""
    shift
    count=$((count - 1))
    case "$word" in
    --binary | --offline | --token)
        [ "$count" -gt 0 ] || fail "$word needs a value"
        value=$1
        shift
        count=$((count - 1))
        ;;
    --*=*) value=${word#*=} ;;
    --data-dir) value=${1:-} ;; # passed on, as two words
    esac
    case "$word" in
    --binary | --binary=*) BINARY=$value ;;
    --offline | --offline=*) OFFLINE=$value ;;
    --token | --token=*) EDGEKUBE_TOKEN=$value ;;
    --allow-downgrade) DOWNGRADE=true ;;
    --fix) FIX=--fix ;;
    -h | --help) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    --data-dir | --data-dir=*) DATA_DIR=$value && set -- "$@" "$word" ;;
    *) set -- "$@" "$word" ;;
    esac
done
if [ -n "${EDGEKUBE_URL:-}" ]; then
    [ -n "$ROLE" ] || ROLE=agent
    [ "$ROLE" != agent ] || set -- "--server=$EDGEKUBE_URL" "$@"
fi
[ -n "$ROLE" ] || ROLE=server
if [ "$ROLE" = agent ]; then UNIT=edgekube-agent ROLE_TEXT="an agent"; else UNIT=edgekube ROLE_TEXT="a server"; fi
case "$OFFLINE" in "" | /*) ;; *) OFFLINE=$PWD/$OFFLINE ;; esac
[ -z "$OFFLINE" ] || [ -d "$OFFLINE" ] || fail "$OFFLINE is no folder"
export EDGEKUBE_TOKEN
if [ "$DATA_DIR" != /var/lib/edgekube ]; then export EDGEKUBE_DATA_DIR="$DATA_DIR"; fi

check_machine
check_space "$DATA_DIR"
folder=$(dirname "$DATA_DIR") # those above the data directory that will have been made
while [ ! -d "$folder" ]; do MADE="$folder $MADE" && folder=$(dirname "$folder"); done
choose_program
if [ -n "$BINARY" ]; then check_program; fi
install_packages
stage_program
check_host "$@"
note_changes
mkdir -p "$CONFIG_DIR"
[ -f "$ENV_FILE" ] || : >"$ENV_FILE"
"$STAGED" setup --as "$ROLE" "$@" >/dev/null || { rm -f "$STAGED"; exit 1; }
unset EDGEKUBE_TOKEN
if [ -n "$OFFLINE" ]; then place_images; fi
place_program "$@"
if [ -d /run/systemd/system ]; then start_with_systemd "$@"; else start_in_background "$@"; fi
if is_true "$SKIP_START"; then
    say "installed, and not started: INSTALL_EDGEKUBE_SKIP_START is set"
    exit 0
fi
rm -f "$TOKEN_FILE"
remove_old_environments
if [ "$ROLE" = agent ]; then
    say "this machine is a node of the cluster: see it with 'kubectl get nodes' on the server"
else
    say "the cluster is ready: try 'edgekube kubectl get nodes', or 'export KUBECONFIG=/etc/edgekube/kubeconfig.yaml'"
fi
