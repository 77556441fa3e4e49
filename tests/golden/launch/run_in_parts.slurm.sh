#!/usr/bin/env bash
# Submits 2 jobs to SLURM from this folder, which all hosts see.
# Made by: python -m experiments.launch --target=slurm --parts=8 --partition=gpu --account=me --nodes=2 '--setup=module load cuda' -- run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s' --config.pairs.part_prompts=16
# What only your site knows, each a flag of that command:
#   --partition=gpu  (given) partition; empty: the cluster's own
#   --account=me  (given) account that pays; empty: yours
#   --time=24:00:00  (default) longest time of a job
#   --nodes=2  (given) hosts of a job; a part has one
#   --gpus=8  (default) GPUs of a host; 0: none are asked for
#   --cpus=16  (default) CPUs of a host; 0: none are asked for
#   --memory=0  (default) memory of a host; 0: all of it
#   --setup='module load cuda'  (given) line of shell before the command, e.g. modules
#   --python=python  (default) the interpreter, in shell
set -euo pipefail
mkdir -p '/data/it'"'"'s/log'

# NAME HOSTS [flags of sbatch]: submits what it reads, and says the job's id.
submit() {
  local name=$1 hosts=$2
  shift 2
  sbatch --parsable --partition=gpu --account=me --time=24:00:00 --mem=0 --gpus-per-node=8 --cpus-per-task=16 --ntasks-per-node=1 --requeue --open-mode=append --signal=TERM@300 --kill-on-invalid-dep=yes \
    --job-name="$name" --nodes="$hosts" --output='/data/it'"'"'s/log'/%x-%j.out "$@" |
    cut -d';' -f1
}

job_1=$(
  submit simulate 1 --array=1-8 <<'JOB'
#!/usr/bin/env bash
set -euo pipefail
module load cuda
status=0
srun --cpus-per-task=16 python -m experiments.run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s' --config.pairs.part_prompts=16 --stage=simulate --part="$SLURM_ARRAY_TASK_ID/8" || status=$?
[ "$status" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
JOB
)
echo "$job_1 simulate"

job_2=$(
  submit run 2 --dependency="afterok:$job_1" <<'JOB'
#!/usr/bin/env bash
set -euo pipefail
module load cuda
status=0
srun --cpus-per-task=16 python -m experiments.run --config=rlcd:task=cheerful,model=hf:DIR '--workdir=/data/it'"'"'s' --config.pairs.part_prompts=16 || status=$?
[ "$status" != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
JOB
)
echo "$job_2 run"
