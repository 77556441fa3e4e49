#!/usr/bin/env bash
# Submits 1 jobs to SLURM from this folder, which all hosts see.
# Made by: python -m experiments.launch --target=slurm --gpus=0 --cpus=0 -- run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s'
# What only your site knows, each a flag of that command:
#   --partition=''  (default) partition; empty: the cluster's own
#   --account=''  (default) account that pays; empty: yours
#   --time=24:00:00  (default) longest time of a job
#   --nodes=1  (default) hosts of a job; a part has one
#   --gpus=0  (given) GPUs of a host; 0: none are asked for
#   --cpus=0  (given) CPUs of a host; 0: none are asked for
#   --memory=0  (default) memory of a host; 0: all of it
#   --setup=''  (default) line of shell before the command, e.g. modules
#   --python=python  (default) the interpreter, in shell
set -euo pipefail
mkdir -p '/data/it'"'"'s/log'

# NAME HOSTS [flags of sbatch]: submits what it reads, and says the job's id.
submit() {
  local name=$1 hosts=$2
  shift 2
  sbatch --parsable --time=24:00:00 --mem=0 --ntasks-per-node=1 --requeue --open-mode=append --signal=TERM@300 --kill-on-invalid-dep=yes \
    --job-name="$name" --nodes="$hosts" --output='/data/it'"'"'s/log'/%x-%j.out "$@" |
    cut -d';' -f1
}

job_1=$(
  submit run 1 <<'JOB'
#!/usr/bin/env bash
set -euo pipefail
status=0
srun python -m experiments.run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s' || status=$?
[ "$status" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
JOB
)
echo "$job_1 run"
