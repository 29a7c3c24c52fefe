#!/bin/sh
# Install the node's packages from the repository disk. The guest has no network: what is not on it does not exist.
set -eu

mount_point=/run/patroni-foundry
mkdir -p "$mount_point"
# A container was lent it there already.
mountpoint --quiet "$mount_point" || mount -o ro "/dev/disk/by-label/$REPOSITORY_LABEL" "$mount_point"

# apt sees this repository only, keeps no caches of it, and asks no questions before: what apt-utils does for that, it
# would first have to start a Perl for.
APT_CONFIG=/run/patroni-foundry.apt
export APT_CONFIG
echo "deb [signed-by=$mount_point/key.gpg] file:$mount_point ./" >/run/patroni-foundry.list
cat >"$APT_CONFIG" <<'END'
Dir::Etc::SourceList "/run/patroni-foundry.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Get::List-Cleanup "0";
APT::Sandbox::User "root";
APT::Install-Recommends "0";
DPkg::Use-Pty "0";
DPkg::Options { "--force-unsafe-io"; };
#clear DPkg::Pre-Install-Pkgs;
END

if ip route get 192.0.2.1 >/dev/null 2>&1; then
	echo "install: this machine has a route to the world and must not" >&2
	exit 1
fi

# The machine is about to be switched off: systemd need not load its units again after each link that the packages make,
# which takes seconds under emulation.
export SYSTEMD_OFFLINE=1

apt-get update
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install --yes $PACKAGES

# The base's own file for this was only needed until patroni-node brought its one.
rm -f /etc/postgresql-common/createcluster.d/00-base.conf
umount "$mount_point"
