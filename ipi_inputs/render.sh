#!/usr/bin/env bash
# Write the inputs in this directory again: ipi_inputs/render.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-ipi_inputs}"

render() { # MODEL KIND OPTIONS…
    deltaserver input --models "models/$1" --kind "$2" --output "$out/$1_$2.xml" --force "${@:3}"
}

render c60 nvt --temperature 300 --steps 500 --checkpoint-every 200
render c60 mts --temperature 300 --timestep 1 --inner-steps 2 --steps 500
render benzene_dimer nvt --temperature 150
render benzene_dimer nve --temperature 150 --timestep 0.25
render benzene_dimer pimd --temperature 150 --timestep 0.25 --beads 16 --steps 500
render benzene_dimer remd --temperature 100 --temperature 150 --temperature 200
render benzene_dimer mts --temperature 150 --timestep 1 --inner-steps 2
render benzene_dimer ramp --temperature 300 --temperature 50
