#!/bin/sh
# Make a Vagrant box for libvirt on this machine, from Debian's archive alone: no registry, no cloud, and it boots without KVM.
#
#   sudo vagrant/box.sh [FILE]        FILE is edgekube-debian12.box unless named; then:
#   vagrant box add --name edgekube/debian12 edgekube-debian12.box && EDGEKUBE_BOX=edgekube/debian12 vagrant up
#
# Debian 12 for amd64 with edgekube's packages, ssh and the user vagrant with Vagrant's public key, as of every box. It has no boot loader:
# the box brings its kernel and says so to libvirt. Needs debootstrap, qemu-utils, e2fsprogs, kmod and cpio (Debian, Ubuntu).
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
BOX=$(realpath -m "${1:-edgekube-debian12.box}")
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/edgekube-box.XXXXXX")
trap 'rm -rf --one-file-system "$WORK"' EXIT
KEY="ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key"

[ "$(id -u)" = 0 ] || { echo "box: needs root (debootstrap makes device files)" >&2; exit 1; }

overlay() {
    # What makes Debian a Vagrant box. The user is made at the first boot, by the system's own tools.
    mkdir -p "$1/etc/sudoers.d" "$1/etc/ssh/sshd_config.d" "$1/etc/systemd/network" "$1/etc/systemd/system/multi-user.target.wants" "$1/usr/local/sbin"
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/vagrant"
    chmod 440 "$1/etc/sudoers.d/vagrant"
    echo 'UseDNS no' >"$1/etc/ssh/sshd_config.d/vagrant.conf"
    printf '[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n' >"$1/etc/systemd/network/50-eth0.network"
    cat >"$1/usr/local/sbin/make-vagrant-user" <<END
#!/bin/sh -e
id vagrant >/dev/null 2>&1 || useradd --create-home --shell /bin/bash vagrant
install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
[ -s /home/vagrant/.ssh/authorized_keys ] || echo '$KEY' >/home/vagrant/.ssh/authorized_keys
chown vagrant:vagrant /home/vagrant/.ssh/authorized_keys
chmod 600 /home/vagrant/.ssh/authorized_keys
ssh-keygen -A
END
    chmod 755 "$1/usr/local/sbin/make-vagrant-user"
    cat >"$1/etc/systemd/system/vagrant-user.service" <<'END'
[Unit]
Before=ssh.service
ConditionPathExists=!/home/vagrant/.ssh/authorized_keys

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/make-vagrant-user
END
    ln -s ../vagrant-user.service "$1/etc/systemd/system/multi-user.target.wants/vagrant-user.service"
}

overlay "$WORK/overlay"
# In namespaces of its own: what is mounted for the build goes with it, however it ends.
unshare --mount --pid --fork --kill-child \
    python3 "$HERE/../tests/vm/image.py" "$WORK/image" --include openssh-server,sudo --overlay "$WORK/overlay"
mkdir "$WORK/box"
qemu-img convert -f raw -O qcow2 "$WORK/image/node.raw" "$WORK/box/box.img"
mv "$WORK/image/vmlinuz" "$WORK/image/first.gz" "$WORK/box/"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 8, "architecture": "amd64"}' >"$WORK/box/metadata.json"
cat >"$WORK/box/Vagrantfile" <<'END'
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("first.gz", __dir__)
    libvirt.cmd_line = "console=ttyS0 net.ifnames=0"
    libvirt.disk_bus = "virtio"
  end
end
END
tar -czf "$BOX.new" -C "$WORK/box" metadata.json Vagrantfile box.img vmlinuz first.gz
mv "$BOX.new" "$BOX"
echo "box: $BOX ($(du -h "$BOX" | cut -f1))"
