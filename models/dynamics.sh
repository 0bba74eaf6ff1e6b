#!/usr/bin/env bash
# The dynamics of docs/results.md, C60@buckycatcher from 10 to 400 K, Δ and full (the paper's Fig. 8):
# models/dynamics.sh [300|delta|full|analysis …]     hours; what was stopped goes on.
# Fragments are stepped by 1 fs, the binding by 3 fs; Langevin with τ = 1 ps, but for 300 K, where
# rotation is measured: stochastic velocity rescaling leaves that alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

simulate() { # DIRECTORY OPTIONS…
    if [ -d "$1" ]; then
        deltaserver simulate --resume --directory "$1"
    else
        deltaserver simulate --models models/c60 --directory "$1" --positions-every 60 \
            --energies-every 5 --threads 1 "${@:2}"
    fi
}

delta=(--kind mts --timestep 3 --inner-steps 3)
for part in "${@:-300 delta full analysis}"; do
    for one in $part; do
        case $one in
        300) simulate run/delta/300K "${delta[@]}" --steps 166667 --temperature 300 \
            --thermostat svr --tau 100 --seed 31715 ;;
        delta) simulate run/delta/others "${delta[@]}" --steps 66667 --tau 1000 --temperature 400 \
            --temperature 200 --temperature 100 --temperature 10 ;;
        full) simulate run/full --component full --kind nvt --steps 400000 --tau 1000 \
            --temperature 10 --temperature 100 --temperature 200 --temperature 300 \
            --temperature 400 || true ;; # it blows up, which is an error
        analysis) deltaserver analyze run/delta --skip 5 ;;
        esac
    done
done
