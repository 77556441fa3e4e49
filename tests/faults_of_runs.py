"""Rows of the fault table that whole runs make happen, each in a test of its own.

`sees` is what the user reads; `test` is the test, "file::function", that makes the
fault happen and asserts the message or that nothing is lost.
"""

from __future__ import annotations

import dataclasses

CHECKPOINTS, CONTENT = "Checkpoints", "What was changed since"
NUMBERS, MODELS = "Numbers that are not finite", "Models"
STOPPED, WRITERS = "Stopped and killed", "Two at once, and none that moves"


@dataclasses.dataclass(frozen=True)
class Told:
    """A row; see the module."""

    group: str
    fault: str
    sees: str
    test: str


_DAMAGED, _CONTENTS = "test_damaged_checkpoints", "test_contents"
_WATCH, _LEAVING = "test_watchdog", "test_leaving"
_PROCESSES, _STAGES = "test_processes", "test_stages"
_DONE = "RUN/pairs is done, and since then: {} has changed. Restore what was there, …"

ROWS = (
    Told(
        MODELS,
        "in the chat format, models of two roles have different templates",
        "model.generator='hf:…' and model.preference='hf:…' have other chat "
        "templates, so that in the chat format one would read the marks of the other "
        "as words; set task_format='dialogue', or name models of one template",
        "test_roles::test_mistakes_in_a_role_are_told_before_anything",
    ),
    Told(
        CHECKPOINTS,
        "a bit is flipped in a file of the newest step, or the file is cut, emptied "
        "or deleted, whichever of nine kinds it is",
        "checkpoint … is damaged …; goes on from step N, before",
        f"{_DAMAGED}::test_damage_of_a_file_of_the_newest_step_computes_nothing_wrong",
    ),
    Told(
        CHECKPOINTS,
        "a number of an array differs, and the file's format does not notice",
        "policy/norm is not as it was saved",
        f"{_DAMAGED}::test_the_parameter_that_differs_is_named",
    ),
    Told(
        CHECKPOINTS,
        "the newest step lacks policy, optimizer, notes or hashes",
        "checkpoint … is damaged …; goes on from step N, before",
        f"{_DAMAGED}::test_a_half_deleted_step_is_gone_on_from_without",
    ),
    Told(
        CHECKPOINTS,
        "every step is damaged",
        "no checkpoint in … is whole: steps …",
        f"{_DAMAGED}::test_where_no_step_is_whole_nothing_is_made_up",
    ),
    Told(
        CHECKPOINTS,
        "a kill amid the deletion of an old step",
        "nothing: the deletion is ended when the run goes on",
        f"{_DAMAGED}::test_a_deletion_that_a_kill_ended_half_way_is_ended",
    ),
    Told(
        CONTENT,
        "adapters (lora.rank) are read or exported with another base model than they "
        "were trained on",
        "the adapters in … were trained on another base model: embed … "
        "differ from what they were trained beside; name the model that the run had",
        "test_lora_run::test_adapters_are_refused_on_another_base",
    ),
    Told(
        CONTENT,
        "adapters that were trained on a base in eight bits are to lie on another form",
        "the adapters in … were trained on a base with lora.base='int8', and this run "
        "has lora.base='compute'; set --config.lora.base=int8",
        "test_quantized::test_others_read_it_as_it_was_trained",
    ),
    Told(
        CONTENT,
        "a line is removed from pairs.jsonl after simulate was done",
        _DONE.format("pairs/pairs.jsonl"),
        f"{_CONTENTS}::test_a_line_removed_after_the_stage_was_done_is_noticed",
    ),
    Told(
        CONTENT,
        "a line is removed from samples or verdicts",
        "RUN/evaluate is done, and since then: evaluate/samples.jsonl has changed …",
        f"{_CONTENTS}::test_a_line_removed_after_the_stage_was_done_is_noticed",
    ),
    Told(
        CONTENT,
        "a table is edited by hand",
        "evaluate/table.md has changed",
        f"{_CONTENTS}::test_a_table_edited_by_hand_is_noticed",
    ),
    Told(
        CONTENT,
        "a result is deleted",
        "pairs/dropped.jsonl is not there any more",
        f"{_CONTENTS}::test_a_result_that_is_gone_is_named",
    ),
    Told(
        CONTENT,
        "the last checkpoint of a finished stage is deleted",
        "policy/checkpoints has changed",
        f"{_CONTENTS}::test_a_lost_checkpoint_does_not_make_the_one_before_the_result",
    ),
    Told(
        CONTENT,
        "pairs are changed before preference or distill begins",
        "preference cannot begin: pairs/pairs.jsonl has changed since simulate was done",
        f"{_CONTENTS}::test_a_stage_does_not_begin_on_pairs_that_changed",
    ),
    Told(
        CONTENT,
        "the task or the prompt file is edited in a run that was begun, or is done",
        "the task … has changed; prompts.source=… has changed",
        f"{_CONTENTS}::test_an_edited_task_or_prompt_file_is_noticed",
    ),
    Told(
        CONTENT,
        "another folder of hh-rlhf",
        "prompts.hh_dir, harmless-base/train.jsonl.gz has changed",
        f"{_CONTENTS}::"
        "test_another_folder_of_human_pairs_is_noticed_and_another_place_is_not",
    ),
    Told(
        CONTENT,
        "other weights in the folder of the model",
        "model.spec=hf:… has changed",
        f"{_CONTENTS}::test_other_weights_in_the_same_folder_are_noticed",
    ),
    Told(
        CONTENT,
        "other weights in the folder of one role's model, such as the generator's",
        "RUN/pairs is done, and since then: model.generator=hf:… has changed …",
        "test_roles::test_changed_weights_of_a_role_refuse_its_stage_and_no_other",
    ),
    Told(
        CONTENT,
        "a file of somebody's pairs is edited",
        "preference.data=trl:… has changed",
        "test_comparisons::test_a_run_starts_from_somebodys_pairs_and_ends_with_a_table",
    ),
    Told(
        CONTENT,
        "a pair is edited, and drawn again by experiments.replay",
        "the field that differs, and status 1",
        "test_replaying::test_what_was_edited_is_named",
    ),
    Told(
        STOPPED,
        "SIGTERM in preference, distill or policy",
        "policy is saved at step N; status 75, and the same command goes on",
        f"{_LEAVING}::test_a_stage_that_leaves_goes_on_to_the_same_numbers",
    ),
    Told(
        STOPPED,
        "SIGTERM in simulate",
        "1 of 2 blocks are drawn; status 75, and the same command goes on",
        f"{_LEAVING}::test_simulate_leaves_between_its_parts",
    ),
    Told(
        STOPPED,
        "SIGTERM in evaluate",
        "evaluate keeps nothing before its end; status 75, and it is begun anew",
        f"{_LEAVING}::test_evaluate_leaves_between_systems_and_is_begun_anew",
    ),
    Told(
        STOPPED,
        "SIGTERM to one of several processes",
        "all save the same step and leave with status 75",
        f"{_PROCESSES}::test_a_signal_to_one_process_saves_and_leaves_on_all",
    ),
    Told(
        STOPPED,
        "one of several processes dies",
        "process 1 (host …) is gone. What was saved … start the same command on every "
        "host",
        f"{_PROCESSES}::test_a_lost_process_ends_the_other_with_what_to_do",
    ),
    Told(
        STOPPED,
        "killed after the last save of a stage and before its mark",
        "nothing: the same command leaves the same rows, summary and mark",
        f"{_STAGES}::test_a_run_killed_before_its_mark_leaves_the_same_mark",
    ),
    Told(
        STOPPED,
        "killed before the mark of simulate",
        "nothing: no pair is drawn again",
        f"{_STAGES}::test_pairs_are_not_drawn_again_when_only_the_mark_is_missing",
    ),
    Told(
        STOPPED,
        "killed between a mark and the deletion of the blocks of pairs",
        "nothing: the blocks go when the stage is skipped",
        f"{_STAGES}::test_blocks_that_a_kill_has_left_go_when_the_stage_is_skipped",
    ),
    Told(
        STOPPED,
        "killed at any moment of any stage or save",
        "nothing: the same command leaves what an undisturbed one leaves",
        "test_resuming::test_a_killed_run_leaves_what_an_undisturbed_one_leaves",
    ),
    Told(
        STOPPED,
        "a run goes on with fewer devices",
        "nothing: the same batches, and losses within 2e-4",
        "test_topology::test_a_run_goes_on_with_fewer_devices",
    ),
    Told(
        WRITERS,
        "a second run in the same workdir",
        "workdir … is being written by pid … of … since …",
        f"{_WATCH}::test_a_second_run_in_a_workdir_is_refused_and_named",
    ),
    Told(
        WRITERS,
        "the lock of a run on another host",
        "it is written by pid … of …; of a dead one nothing: it is taken over",
        f"{_WATCH}::"
        "test_the_lock_of_a_dead_run_elsewhere_is_taken_over_and_of_a_live_one_not",
    ),
    Told(
        WRITERS,
        "half-written temporary files of a killed run",
        "nothing: they are removed, and the log says so",
        f"{_WATCH}::test_what_a_killed_run_left_half_written_is_removed",
    ),
    Told(
        WRITERS,
        "nothing moves for stall_minutes",
        "nothing has moved …, and the stacks of all threads",
        f"{_WATCH}::test_a_process_that_does_not_move_shows_its_stacks",
    ),
    Told(
        WRITERS,
        "processes of one job have different configs",
        "--config.policy.gamma: 1.0 on process 0 (…), 0.5 on process 1 (…); all leave "
        "before anything is made",
        f"{_PROCESSES}::test_processes_that_differ_are_refused_on_all_before_anything",
    ),
    Told(
        CHECKPOINTS,
        "what Orbax notes of a step as a whole is damaged",
        "…/_CHECKPOINT_METADATA is damaged (…); it is deleted, and the step read "
        "without",
        "test_fuzz_loaders::test_a_damaged_file_is_read_rightly_or_refused",
    ),
    Told(
        CHECKPOINTS,
        "a disk is full to its last block when a checkpoint is saved",
        "stage policy stopped: No space left on device …; the step before is gone on "
        "from when there is room",
        "test_outages::test_a_disk_that_is_really_full_loses_no_step",
    ),
    Told(
        CHECKPOINTS,
        "the best checkpoint is to be kept by a metric that the stage does not have",
        "preference.keep_best='eval/accuracy'; accepted: \"\", "
        "preference/held_out_accuracy, preference/held_out_loss; …",
        "test_retention::test_what_cannot_be_kept_is_refused_before_the_first_stage",
    ),
    Told(
        NUMBERS,
        "one batch is not finite in a job of two processes, with nonfinite=rollback",
        "preference, step 3: not finite: …; back to step 2, and the batches of steps 3 "
        "to 3 are left out …, on both",
        f"{_PROCESSES}::test_what_is_not_finite_takes_all_processes_back",
    ),
    Told(
        NUMBERS,
        "a run that went back is killed then, and goes on",
        "nothing: the same batches are left out, and it ends with the same numbers",
        "test_nonfinite::test_a_run_goes_back_and_ends_the_same_if_it_is_killed",
    ),
    Told(
        NUMBERS,
        "a step that was not finite is made again, and is so no more",
        "preference, step 2 is finite not as in …nonfinite/000002.json: …",
        "test_step_replays::test_the_command_of_a_note_makes_the_step_again",
    ),
    Told(
        NUMBERS,
        "the optimizer's moments of a step to be made again are deleted",
        "…: preference is done and the optimizer's moments are deleted, so no step of "
        "it can be made again; more stays with --config.keep_moments",
        "test_step_replays::test_a_stage_that_is_done_and_has_no_moments_says_so",
    ),
)
