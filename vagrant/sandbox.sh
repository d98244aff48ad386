#!/bin/sh
# Run Vagrant with libvirt on a machine that has neither, and leave it as it is: in a Debian folder with a network and processes of its own.
#
#   sudo vagrant/box.sh
#   sudo vagrant/sandbox.sh sh -c 'vagrant box add --name edgekube/debian12 ../edgekube-debian12.box && vagrant up && ./smoke.sh'
#
# The first time it makes the folder EDGEKUBE_SANDBOX (/var/tmp/edgekube-vagrant; 800 MB, a minute; with debootstrap). The command runs in
# vagrant/ of this checkout. When it ends, so do libvirt and all guests; their disks stay in the folder. Guests are emulated, unless EDGEKUBE_DRIVER=kvm.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
ROOT=${EDGEKUBE_SANDBOX:-/var/tmp/edgekube-vagrant}
CHECKOUT=$(dirname "$HERE")
PACKAGES="vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base \
netcat-openbsd dbus iproute2 iptables openssh-client procps rsync kubernetes-client ca-certificates"

make_root() {
    archive=$(apt-get indextargets --format "\$(REPO_URI)" | grep '/debian/*$' | head -n 1)
    rm -rf --one-file-system "$ROOT.new"
    unshare --mount --pid --fork --kill-child sh -eu -c "
        debootstrap --variant=minbase bookworm '$ROOT.new' '$archive' >/dev/null
        printf '#!/bin/sh\nexit 101\n' >'$ROOT.new/usr/sbin/policy-rc.d'
        chmod 755 '$ROOT.new/usr/sbin/policy-rc.d'
        export DEBIAN_FRONTEND=noninteractive
        chroot '$ROOT.new' apt-get update -q >/dev/null
        chroot '$ROOT.new' apt-get install -y -q --no-install-recommends $PACKAGES >/dev/null
    "
    mkdir -p "$ROOT.new/edgekube"
    mv "$ROOT.new" "$ROOT"
}

inside() {
    # As process 1 of the new namespaces. Mounts and processes go with it.
    mount --make-rprivate /
    ip link set lo up
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount -t sysfs sysfs "$ROOT/sys"
    mount -t tmpfs tmpfs "$ROOT/run"
    mount -t tmpfs tmpfs "$ROOT/tmp"
    mount --bind "$CHECKOUT" "$ROOT/edgekube"
    hostname edgekube-sandbox
    cat >"$ROOT/etc/libvirt/qemu.conf" <<'END'
user = "root"
group = "root"
security_driver = "none"
remember_owner = 0
cgroup_controllers = []
namespaces = []
END
    echo "127.0.0.1 localhost edgekube-sandbox" >"$ROOT/etc/hosts"
    export HOME=/root EDGEKUBE_DRIVER="${EDGEKUBE_DRIVER:-qemu}" VAGRANT_DOTFILE_PATH=/root/.vagrant-edgekube VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt
    chroot "$ROOT" sh -c 'mkdir -p /run/dbus /run/libvirt; dbus-daemon --system --fork; virtlogd -d; libvirtd -d; cd /edgekube/vagrant && exec "$@"' sh "$@"
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi
[ "$(id -u)" = 0 ] || { echo "sandbox: needs root (a network namespace, chroot)" >&2; exit 1; }
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
[ -d "$ROOT" ] || make_root
exec unshare --mount --pid --net --uts --ipc --fork --kill-child "$0" --inside "$@"
