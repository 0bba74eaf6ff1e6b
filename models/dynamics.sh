#!/usr/bin/env bash
# The dynamics of docs/results.md, C60@buckycatcher from 10 to 400 K, Δ and full (the paper's Fig. 8):
# models/dynamics.sh [300|delta|full|expanded|symmetric|analysis …]     hours; what was stopped goes on.
# Fragments are stepped by 1 fs, the binding by 3 fs; Langevin with τ = 1 ps, but for 300 K, where
# rotation is measured: stochastic velocity rescaling leaves that alone. Three full models: sgdml's own
# recipe, which ships, one on a linear expansion, and one with all 480 permutations; the last two are
# trained first, after models/train.sh c60 has merged the datasets.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

simulate() { # DIRECTORY MODELS OPTIONS…
    if [ -d "$1" ]; then
        deltaserver simulate --resume --directory "$1"
    else
        deltaserver simulate --models "$2" --directory "$1" --positions-every 60 \
            --energies-every 5 --threads 1 --plugin "${@:3}"
    fi
}

full_of() { # DIRECTORY DATASET OPTIONS…: a full model, beside the other parts that ship
    deltaserver train "$2" --output "$1/training" --component full --n-valid 60 --sigma 20 \
        --threads 1 --solver iterative --max-memory 10GB --quiet "${@:3}"
    cp -n models/c60/{{c60,buckycatcher,binding}.npz,{model,analysis}.yaml,structure.xyz} "$1/"
    cp "$1/training/full.npz" "$1/"
}

temperatures=(--temperature 10 --temperature 100 --temperature 200 --temperature 300 --temperature 400)
delta=(--kind mts --timestep 3 --inner-steps 3)
expanded=run/compare/c60-expanded symmetric=run/compare/c60-symmetric
for part in "${@:-300 delta full expanded analysis}"; do
    for one in $part; do
        case $one in
        300) simulate run/delta/300K models/c60 "${delta[@]}" --steps 166667 --temperature 300 \
            --thermostat svr --tau 100 --seed 31715 ;;
        delta)
            simulate run/delta/seed-1 models/c60 "${delta[@]}" --steps 66667 --tau 1000 --seed 1 \
                "${temperatures[@]}"
            simulate run/delta/others models/c60 "${delta[@]}" --steps 66667 --tau 1000 --seed 41 \
                --replicas 2 "${temperatures[@]}"
            ;;
        full) simulate run/full models/c60 --component full --kind nvt --steps 400000 --tau 1000 \
            "${temperatures[@]}" || true ;; # it blows up, which is an error
        expanded)
            full_of "$expanded" run/merged/c60 --symmetry none --linear distances --n-train 300 \
                --lambda 1e-5 --tolerance 1e-2 --max-products 100 --hold-out "14,20,33,37,41"
            simulate run/expanded $expanded --component full --kind nvt --timestep 1 \
                --steps 200000 --tau 1000 --seed 1 "${temperatures[@]}"
            ;;
        symmetric)
            full_of "$symmetric" data/c60_buckycatcher_wide --symmetry product --n-train 200 \
                --tolerance 1e-3 --max-products 150 --hold-out "14,20"
            simulate run/symmetric $symmetric --component full --kind nvt --timestep 1 \
                --steps 200000 --temperature 300 --thermostat svr --tau 100 --seed 31715
            ;;
        analysis) deltaserver analyze run/delta --skip 5 ;;
        esac
    done
done
