"""The quickstart's flags in the words of a run."""

from __future__ import annotations

from collections.abc import Sequence


def as_run(
    config_file: str,
    workdir: str,
    *,
    task: str,
    model: str,
    size: str,
    seed: str = "",
    others: Sequence[str] = (),
) -> list[str]:
    """Return the flags of a run that does the same.

    Args:
      config_file: of the quickstart.
      workdir: folder of the run.
      task: name or file.
      model: model spec.
      size: of the config.
      seed: root of all randomness; "": the config's own.
      others: what was typed beside these: flags of single fields.

    Raises:
      ValueError: one of `others` sets no field.
    """
    for flag in others:
        if not (flag.startswith("--config.") and "=" in flag):
            raise ValueError(f"{flag!r}; accepted beside these: --config.field=value")
    config = f"--config={config_file}:task={task},model={model},size={size}"
    seeds = [f"--config.seed={seed}"] if seed else []
    return [config, f"--workdir={workdir}", *seeds, *others]
