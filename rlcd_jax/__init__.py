"""RLCD (reinforcement learning from contrastive distillation) in functional JAX.

The floor plan. A room imports rooms of its own floor and of floors below it, never one
above; `tests/test_floors.py` reads the plan from here. A package stands on one floor;
a module that is named beside its package has left it for the floor where it is named.

    launching: a command as jobs of a cluster, in scripts
    paper: the published tables, their runs and figures
    command_line: what is typed becomes a config; its fields as --help lists them
    pipeline, planning, bench, weights.exchange: a run, beforehand, how fast, in and out
    resuming: whether a killed run ends as another
    replaying, step_replays: one draw again; one update again
    report, diagnosis: what a run has left, as pages and tables
    checks: whether a run can go through, told before it begins
    stages.*, human: the stages; studies with people
    ppo: rollouts, credit, the update, which checkpoint
    preference: the preference model as a library
    scoring: what models that are only read say of texts
    job: from a config to mesh, model, tokenizer, prompts; trainers; the work folder
    judging: judges, verdicts, the table of a run
    pairs, datasets, weights: prompts to labelled pairs; human pairs; foreign weights
    text, decode: dialogues, tokenizers; drawing replies
    models, training, tasks: the LLaMA; losses and updates; a task is data
    statistics, paper.appendix_n, paper.published: figures with intervals
    row_files: files of rows that others write and read
    records, record_files, metrics, metric_rows, trackers, checkpoint, done_mark: files
    retention: which checkpoints stay
    weights.gguf_header, weights.fields: whether a file of weights can be read at all
    fetched: files of a model as others wrote them, read or told why not
    fingerprints, item_forms: 64 bits of each array, to know it again
    processes, leaving, outages: what processes do together; what the machine refuses
    stages, jsonl, locks, schema, seeds, sharding, tree, progress_bar: nothing of ours
    headline: the few numbers of a step that are shown
    local_paths, dotted, pulse, phases, screen: where files lie; fields; what is shown
"""

__version__ = "0.1.0"
