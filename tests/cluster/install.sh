#!/bin/sh
# Install what the tests in this folder need, from Debian's packages. Run as root on Debian 12.
set -eu

if [ "$(id -u)" != 0 ]; then
    echo "these tests make network namespaces and install packages: run them as root" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# No service is started: the tests run daemons of their own, on configurations of their own.
apt-get install -y -q --no-install-recommends \
    aardvark-dns buildah charliecloud iproute2 iptables mmdebstrap munge netavark openssl podman \
    podman-compose runc siftool slurm-wlm squashfs-tools squashfuse
