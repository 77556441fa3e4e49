#!/usr/bin/env bash
# Runs one command on all hosts of a TPU slice; run again it goes on.
# All hosts must see /data/it's: mount one file system there (Filestore).
# Made by: python -m experiments.launch --target=tpu-vm --project=mine -- run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s'
# What only your site knows, each a flag of that command:
#   --name=rlcd-jax  (default) of the TPU, made if absent
#   --zone=us-east5-a  (default) where it is
#   --project=mine  (given) that pays; empty: gcloud's own
#   --accelerator=v5p-16  (default) type of the slice
#   --runtime=v2-alpha-tpuv5  (default) software of the hosts
#   --source=.  (default) folder of this project here, copied to each host
#   --folder=rlcd_jax  (default) its name in the home of each host
#   --setup='pip install --quiet -e '"'"'.[tpu]'"'"''  (default) line of shell there, before the command
#   --python=python3  (default) the interpreter, in shell
set -euo pipefail

gcloud compute tpus tpu-vm describe rlcd-jax --zone=us-east5-a --project=mine >/dev/null 2>&1 ||
  gcloud compute tpus tpu-vm create rlcd-jax --zone=us-east5-a --project=mine --accelerator-type=v5p-16 \
    --version=v2-alpha-tpuv5
gcloud compute tpus tpu-vm scp --recurse --worker=all . \
  rlcd-jax:rlcd_jax --zone=us-east5-a --project=mine
gcloud compute tpus tpu-vm ssh rlcd-jax --zone=us-east5-a --project=mine --worker=all --command='cd rlcd_jax && pip install --quiet -e '"'"'.[tpu]'"'"''
gcloud compute tpus tpu-vm ssh rlcd-jax --zone=us-east5-a --project=mine --worker=all --command='cd rlcd_jax && python3 -m experiments.run --config=rlcd:task=cheerful,model=hf:DIR '"'"'--workdir=/data/it'"'"'"'"'"'"'"'"'s'"'"''
# When the results are elsewhere:
# gcloud compute tpus tpu-vm delete rlcd-jax --zone=us-east5-a --project=mine --quiet
