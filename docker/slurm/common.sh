# shellcheck shell=bash
# What the job scripts beside this file share. Each of them reads these variables:
#
#   MODELS       the model directory
#   INPUT        an i-PI input, written for a unix socket or for TCP; file names in it count from
#                where sbatch was called
#   RUN          where to run; made if it is not there       [run-JOB, or run-JOB_TASK in an array]
#   DELTASERVER  the daemon's command                        [deltaserver]
#                e.g. "apptainer run --nv --bind $SCRATCH deltaserver-gpu.sif"
#   OPTIONS      further options of the daemon, e.g. "--device cuda"
#   IPI          i-PI's command                              [i-pi]
#   SCRIPTS      the folder of this file                     [docker/slurm]

name=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
RUN=${RUN:-run-${name:-$SLURM_JOB_ID}}
mkdir -p "$RUN"
RUN=$(realpath "$RUN")
read -r -a daemon_command <<< "${DELTASERVER:-deltaserver}"
read -r -a daemon_options <<< "${OPTIONS:-}"
read -r -a ipi_command <<< "${IPI:-i-pi}"
ipi='' daemon=''

# Print INPUT with its file names made absolute, so that i-PI can run in a directory of its own.
absolute_input() {
    sed -E "s|(<file[^>]*>)[[:space:]]*([^/[:space:]<])|\1$PWD/\2|" "$1"
}

# This node's address as Slurm knows it: the network that jobs are meant to use.
node_address() {
    scontrol show node "$SLURMD_NODENAME" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'
}

# Start i-PI on the input $1 in RUN, and the daemon beside it, over unix sockets in a directory
# that nobody else can enter. Sets `ipi` and `daemon`.
start_unix() {
    local address sockets_of=()
    sockets=$(mktemp -d)
    trap 'rm -rf "$sockets"' EXIT
    while read -r address; do
        sockets_of+=(--socket "unix:$address")
    done < <(sed -n 's|.*<address>\(.*\)</address>.*|\1|p' "$1")
    cd "$RUN" || return
    rm -f EXIT # of an earlier run: it would end this one at once
    "${ipi_command[@]}" -S "$sockets/" "$1" >> i-pi.log 2>&1 &
    ipi=$!
    "${daemon_command[@]}" --models "$MODELS" --sockets-prefix "$sockets/" "${sockets_of[@]}" \
        --log-file "$RUN/deltaserver.jsonl" --quiet "${daemon_options[@]}" &
    daemon=$!
}

# Wait for i-PI and the daemon. If one fails, end the other; return the failure's exit code.
wait_for_both() {
    local code=129
    while [ "$code" -gt 128 ] && kill -0 "$ipi" 2> /dev/null && kill -0 "$daemon" 2> /dev/null; do
        code=0
        wait -n "$ipi" "$daemon" || code=$? # a trap interrupts this with a code above 128
    done
    if [ "$code" != 0 ]; then
        kill "$ipi" "$daemon" 2> /dev/null || true # i-PI writes its RESTART file
    fi
    wait "$ipi" || code=$?
    wait "$daemon" || code=$?
    return "$code"
}
