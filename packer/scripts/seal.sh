#!/bin/sh
# Remove what this one build machine was, so that every clone becomes a machine of its own at its first boot.
set -eu

# In place first: a deleted block keeps its bytes, and trimming frees whole clusters of the disk only. The keys of this very
# connection are in memory by now.
for secret in /etc/ssh/ssh_host_*_key /root/.ssh/authorized_keys /etc/ssl/private/ssl-cert-snakeoil.key \
	/var/lib/systemd/random-seed; do
	[ ! -f "$secret" ] || shred --iterations=0 --zero "$secret"
done
rm -rf /etc/ssh/ssh_host_* /root/.ssh /root/.bash_history /root/.cache
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
rm -f /var/lib/systemd/random-seed /var/lib/dbus/machine-id /etc/hostname
rm -rf /var/lib/dhcp/* /var/lib/systemd/network/* /var/lib/systemd/timesync/* /var/lib/systemd/timers/*
rm -rf /var/lib/cloud /var/log/cloud-init*.log
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/lib/apt/extended_states.old
rm -rf /tmp/* /tmp/.[!.]* /var/tmp/* /var/tmp/.[!.]*
rm -rf /var/lib/consul/* /var/lib/patroni-node/identity.json /etc/patroni/patroni.yml /etc/consul.d/patroni-node.json
rm -f /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/backups/*
: >/etc/machine-id

rm -rf /var/log/journal/*
find /var/log -type f -delete

# The day and the hour of the build would be the one difference between two images of the same packages.
sed -i -E "s/^([^:]*:[^:]*):[0-9]*:/\1:$((EPOCH / 86400)):/" /etc/shadow /etc/shadow-
# Not what is mounted there.
find / -xdev -fstype ext4 -newermt "@$EPOCH" -exec touch --no-dereference --date="@$EPOCH" {} +

sync
fstrim / || true
