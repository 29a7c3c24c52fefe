#!/bin/sh
# Install the node's packages from the repository disk. The guest has no network: what is not on it does not exist.
set -eu

mount_point=/run/patroni-foundry
mkdir -p "$mount_point"
mount -o ro "/dev/disk/by-label/$REPOSITORY_LABEL" "$mount_point"

list=/run/patroni-foundry.list
echo "deb [signed-by=$mount_point/key.gpg] file:$mount_point ./" >"$list"
apt="apt-get -o Dir::Etc::SourceList=$list -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=0 -o DPkg::Use-Pty=0"

if ip route get 192.0.2.1 >/dev/null 2>&1; then
	echo "install: this machine has a route to the world and must not" >&2
	exit 1
fi

# shellcheck disable=SC2086  # both are lists of words
{
	$apt update
	DEBIAN_FRONTEND=noninteractive $apt install --yes --no-install-recommends \
		-o Dpkg::Options::=--force-unsafe-io $PACKAGES
}

# The base's own file for this was only needed until patroni-node brought its one.
rm -f /etc/postgresql-common/createcluster.d/00-base.conf
umount "$mount_point"
