"""Make one pair, one reply of PPO or one step of a training again, and compare it.

    python -m experiments.replay --workdir RUN --pair ID
    python -m experiments.replay --workdir RUN --sample STEP/LINE
    python -m experiments.replay --workdir RUN --step STAGE/STEP

A pair is named by its `id` in RUN/pairs/pairs.jsonl; a reply by the step of a
checkpoint that is still there and its line in RUN/policy/samples; both are compared
byte by byte. A step (preference/7, distill/7, policy/7) is made from the checkpoint
before it; its metrics and norms by layer are shown, and compared with
RUN/STAGE/nonfinite/STEP.json where a loss, gradient or reward was not finite. The exit
status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments import command
from rlcd_jax import replaying, step_replays


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    command.for_people(lambda: sys.exit(replay(args)))


def replay(args: argparse.Namespace) -> int:
    """Make again what the flags name, say what came of it, return the exit status."""
    if args.step is not None:
        made = step_replays.replay_step(args.workdir, args.step)
        print(made.report())
        return 1 if made.differences else 0
    if args.pair is not None:
        drawn = replaying.replay_pair(args.workdir, args.pair)
    else:
        drawn = replaying.replay_sample(args.workdir, args.sample)
    print(drawn.report())
    return 0 if drawn.is_same else 1


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("replay", __doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a run")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pair", metavar="ID", help="a pair's id")
    what.add_argument(
        "--sample", metavar="STEP/LINE", help="a line of policy/samples, from 1"
    )
    what.add_argument("--step", metavar="STAGE/STEP", help="a step of a training")
    return parser


if __name__ == "__main__":
    main()
