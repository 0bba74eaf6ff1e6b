#!/usr/bin/env bash
# From two molecules' XYZ files to a served model, right in the well, at contact and far apart:
#
#     docs/two_molecules.sh water.xyz ammonia.xyz NAME
#
# Both molecules neutral (for ions give the --fragment options charges). Frames come from GFN2-xTB
# dynamics at 300 K, in the well and along the separation, and from contacts that no dynamics
# reaches; labels from GFN2-xTB. CALCULATOR, FRAMES, PLACES, N_TRAIN and DIRECTORY in the
# environment say otherwise. Stopped at any moment, it continues when it is started again. Needs
# pip install 'deltaserver[train]'.
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "usage: $0 FIRST.xyz SECOND.xyz NAME" >&2
    exit 2
fi
directory="${DIRECTORY:-run}/$3" calculator="${CALCULATOR:-GFN2-xTB}"
mkdir -p "$directory"

read -r -a fragments < <(deltaserver dataset complex "$1" "$2" --output "$directory/complex.xyz")
# The last of the three trajectories in the well is for the test alone; windows are numbered after them.
deltaserver dataset build "$directory/complex.xyz" "${fragments[@]}" --name "$3" \
    --calculator "$calculator" --frames "${FRAMES:-300}" --separations 2:12 --output "$directory/sampled"
[ -f "$directory/places.xyz" ] || deltaserver dataset place "$directory/sampled" --gaps 1.5:8 \
    --frames "${PLACES:-300}" --hold-out 2 --output "$directory/places.xyz"
deltaserver dataset label "$directory/places.xyz" "${fragments[@]}" --name "$3" \
    --calculator "$calculator" --output "$directory/placed"
deltaserver dataset merge "$directory/sampled" "$directory/placed" --name "$3" \
    --reference "$calculator" --max-binding 1 --output "$directory/data"
deltaserver train "$directory/data" --output "$directory/model" --n-train "${N_TRAIN:-300}" \
    --n-valid 100 --prior pairs --intra-weight 0.3 --hold-out 2
deltaserver evaluate "$directory/data" --models "$directory/model" --test-trajectory 2 \
    --scan "$directory/scan" --calculator "$calculator" --output "$directory/evaluation" --no-figures

echo "Serve it with: deltaserver --models $directory/model --socket unix:delta"
