#!/usr/bin/env bash
# C60 leaves the buckycatcher at 300 K: umbrella windows on the distance of the centres of mass, and
# the free energy of docs/enhanced_sampling.md: models/c60_leaving.sh [windows|analysis …]
# Some 160 ps, an hour on two busy cores; what was stopped goes on, and what is finished is passed over.
# Fragments are stepped by 1 fs, the binding and the springs by 3 fs, all in i-PI's process. Beyond
# 10 Å the free energy is nearly flat: wider windows, whose springs are weaker, do there.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
directory=${DIRECTORY:-run/c60_leaving}

windows() { # LOW:HIGH:STEP STEPS OPTIONS…
    deltaserver simulate --models models/c60 --directory "$directory" --resume --jobs 2 \
        --kind umbrella --variable R_CM --temperature 300 --windows "$1" --steps "$2" \
        --timestep 3 --inner-steps 3 --tau 500 --plugin --threads 1 \
        --positions-every 15 --energies-every 10 --max-separation 14 "${@:3}"
}

for part in "${@:-windows analysis}"; do
    for one in $part; do
        case $one in
        windows)
            windows 7.2:7.6:0.4 2000 # where the force is largest, windows are farther apart
            windows 4.2:9.4:0.4 1667
            windows 10.2:13.4:0.8 3333 --spring 0.2 --pull-speed 3
            ;;
        analysis)
            deltaserver analyze fes "$directory" --variable R_CM --skip 1 --jacobian remove \
                --bins 40 --bound 10 --outer 11:14
            ;;
        esac
    done
done
