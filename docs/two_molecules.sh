#!/usr/bin/env bash
# From two molecules' XYZ files to a served model:
#
#     docs/two_molecules.sh water.xyz ammonia.xyz NAME
#
# Both molecules neutral (for ions give `dataset build` its --fragment options with charges).
# Frames come from GFN2-xTB dynamics at 300 K, labels from GFN2-xTB; CALCULATOR, FRAMES, N_TRAIN
# and DIRECTORY in the environment say otherwise. Stopped at any moment, it continues when it is
# started again. Needs pip install 'deltaserver[train]'.
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "usage: $0 FIRST.xyz SECOND.xyz NAME" >&2
    exit 2
fi
directory="${DIRECTORY:-run}/$3"
mkdir -p "$directory"

read -r -a fragments < <(deltaserver dataset complex "$1" "$2" --output "$directory/complex.xyz")
deltaserver dataset build "$directory/complex.xyz" "${fragments[@]}" --name "$3" \
    --calculator "${CALCULATOR:-GFN2-xTB}" --frames "${FRAMES:-300}" --output "$directory/data"
# The last of the three trajectories is for the test alone.
deltaserver train "$directory/data" --output "$directory/model" --n-train "${N_TRAIN:-100}" --hold-out 2
deltaserver evaluate "$directory/data" --models "$directory/model" --test-trajectory 2 \
    --output "$directory/evaluation" --no-figures

echo "Serve it with: deltaserver --models $directory/model --socket unix:delta"
