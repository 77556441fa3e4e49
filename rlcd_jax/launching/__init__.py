"""How a command becomes jobs of a cluster: scripts that are printed, and run by others.

What lives here: what is typed at the launcher (`launcher_words`), which commands a run
or a graph of runs splits into and what waits for what (`jobs`), what a site must say
(`site`), one module for each target, which writes the script: `slurm`, `gke`, `tpu_vm`;
and what gives it away (`submission`).

What may not live here: a scheduler, a queue, anything that watches jobs. A target has
`Site`, its values; `script`, from jobs and a site to text; `SUBMIT`, what the text is
given to; `QUEUES`, whether several jobs can wait for each other there.
"""

from rlcd_jax.launching import gke, slurm, tpu_vm

TARGETS = {"slurm": slurm, "gke": gke, "tpu-vm": tpu_vm}
