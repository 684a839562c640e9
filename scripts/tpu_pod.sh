#!/usr/bin/env bash
# One run on all hosts of a TPU pod slice, from a machine with gcloud:
#
#     TPU=NAME ZONE=us-central2-b scripts/tpu_pod.sh \
#         --config configs/imagenet_nfnet.py:f0 --workdir /mnt/shared/f0
#
# Every host needs a checkout in ~/nfnet_jax, installed with jax[tpu]. JAX reads the
# number and the place of each process from the TPU's metadata. All hosts must reach the
# work directory by the same path.
set -euo pipefail
: "${TPU:?expected the name of the TPU}" "${ZONE:?expected its zone}"

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="cd nfnet_jax && python -m nfnet_jax.train --coordinator=auto ${*@Q}"
