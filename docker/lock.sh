#!/bin/sh
# Pin every Python package of the images, with the hashes of its files, to docker/requirements/.
# Run it from anywhere, with uv on the PATH, whenever setup.cfg changes or to take newer versions.
set -eu
cd "$(dirname "$0")/.."

# The images run Debian 12's Python, 3.11, on x86_64 and aarch64: hashes of all files are kept.
lock() {
    output=docker/requirements/$1.txt
    shift
    uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
        --python-version 3.11 --upgrade --output-file "$output" "$@"
}

lock build docker/requirements/build.in
lock cpu setup.cfg docker/requirements/cpu.in --extra metrics
lock fast setup.cfg docker/requirements/cpu.in --extra metrics --extra fast
lock ipi docker/requirements/ipi.in
lock gpu setup.cfg docker/requirements/cpu.in docker/requirements/gpu.in \
    --extra metrics --extra gpu
lock full setup.cfg docker/requirements/cpu.in docker/requirements/gpu.in \
    --extra metrics --extra gpu --extra train --extra analysis --extra sampling --extra ipi \
    --extra tblite --extra dft
