#!/bin/bash
# A program on the machines of a Slurm job: sbatch examples/deploy/slurm.sh ./app --its --arguments
#
# The first task runs the program itself, the others are nodes of it. The program's code does not change. The executable must
# lie where all machines see it.
#SBATCH --job-name=mobula
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch $0 PROGRAM [ARGUMENTS]" >&2
    exit 2
fi

# The authority of this job's cluster. The folder is the user's alone, and goes with the job.
dir=$(mktemp -d "${SLURM_SUBMIT_DIR:-$PWD}/.mobula-${SLURM_JOB_ID:-0}-XXXXXX")
trap 'rm -rf "$dir"' EXIT
MOBULA_TOKEN=$(mobula token --dir "$dir")
export MOBULA_TOKEN
export MOBULA_DIR=$dir
# The first of them. Not by `| head -n 1`: it ends early, and pipefail then ends the job.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
MOBULA_HEAD=${hosts%%$'\n'*}
export MOBULA_HEAD
export MOBULA_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MOBULA_NUM_CPUS=${SLURM_CPUS_PER_TASK:-1}

# Nodes that come before the head try again; --kill-on-bad-exit ends all when the program fails.
srun --kill-on-bad-exit=1 bash -c '
    addresses=$(getent ahostsv4 "$MOBULA_HEAD")
    address=${addresses%% *}
    export MOBULA_NODE_NAME=$SLURMD_NODENAME
    if [ "$SLURM_PROCID" -eq 0 ]; then
        unset MOBULA_TOKEN
        MOBULA_LISTEN=$address:$MOBULA_PORT MOBULA_CLUSTER_DIR=$MOBULA_DIR exec "$@"
    fi
    for _ in 1 2 3 4 5; do
        MOBULA_JOIN=$address:$MOBULA_PORT "$@" && exit 0
        sleep 2
    done
    exit 1
' mobula "$@"
