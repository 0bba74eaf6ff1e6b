#!/usr/bin/env bash
# Held-out errors of the shipped models and of what models/train.sh left in run/compare/:
# models/evaluate.sh [SYSTEM …]. Writes models/*/README.md and run/evaluate/; then
# models/results.py prints the table of docs/results.md. Curves are labelled once, in run/scan/.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

evaluate() { # NAME DATASET CALCULATOR SPLIT-OPTIONS…
    local name=$1 data=data/$2 calculator=$3
    shift 3
    deltaserver evaluate "$data" --models "models/$name" "$@" --output "run/evaluate/$name" \
        --scan "run/scan/$name" --calculator "$calculator" \
        --readme --made-with "models/train.sh $name" --no-figures >/dev/null
    deltaserver evaluate "$data" --models "run/compare/$name-none" \
        --models "run/compare/$name-product" "$@" --output "run/evaluate/$name-table" >/dev/null
    echo "$(date +%H:%M:%S) evaluated $name"
}

LAST_TWO=(--split trajectory --test-trajectory 4 --test-trajectory 5)
for name in "${@:-methane_dimer benzene_dimer benzene_water na_benzene no3_corona_surrogate c60}"; do
    for one in $name; do
        case $one in
        methane_dimer) evaluate "$one" methane_dimer PBE-D4/def2-SVP --split trajectory --test-trajectory 3 ;;
        benzene_dimer) evaluate "$one" benzene_dimer_gfn2_150K.xyz.gz tblite:GFN2-xTB ;;
        c60)
            evaluate "$one" c60_buckycatcher_gfn2_400K.xyz.gz GFN2-xTB
            # Other arrangements of guest and host, 150, 300 and 450 K: the binding model's test.
            deltaserver evaluate data/c60_buckycatcher_turned --models models/c60 \
                --test-trajectory 3 --test-trajectory 7 --test-trajectory 11 \
                --output run/evaluate/c60-turned --no-figures >/dev/null
            ;;
        na_benzene) evaluate "$one" "$one" GFN1-xTB "${LAST_TWO[@]}" ;;
        *) evaluate "$one" "$one" GFN2-xTB "${LAST_TWO[@]}" ;;
        esac
    done
done
