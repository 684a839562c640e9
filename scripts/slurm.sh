#!/usr/bin/env bash
# One run on several nodes of a Slurm cluster, a process for each GPU:
#
#     sbatch --nodes=4 scripts/slurm.sh --config configs/imagenet_nfnet.py:f0
#
# JAX reads the number and the place of each process from Slurm. The work directory must
# be on a file system that all nodes share. The same command continues a stopped run.
#SBATCH --job-name=nfnet_jax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=12
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

exec srun --kill-on-bad-exit=1 \
    python -m nfnet_jax.train --coordinator=auto "$@"
