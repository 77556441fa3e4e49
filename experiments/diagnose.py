"""What a run's pairs are like, and what the contrast of each affix pair does.

    python -m experiments.diagnose --workdir RUN [--likelihoods] [--scored RUN2]

Reads RUN/pairs and writes RUN/diagnostics: pairs.md and pairs.json (by side and by
cell of the grid), affixes.md and affixes.json (by affix pair, with the linter's
findings), readings.jsonl (one line a pair) and, for a run with a policy, watch.md and
watch.json (over-optimisation). `--likelihoods` loads the model that wrote the pairs
and asks how likely each reply is under both prompts; without it those columns say that
they are missing.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax.diagnosis import run_diagnostics


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    command.for_people(lambda: print("\n".join(diagnose(args))))


def diagnose(args: argparse.Namespace) -> list[str]:
    """Write the diagnostics of a run; return what was written."""
    written = run_diagnostics.diagnose(
        args.workdir,
        scored=args.scored,
        with_likelihoods=args.likelihoods,
        with_lexicon=args.lexicon,
        resamples=args.resamples,
        seed=args.seed,
    )
    return [f"wrote {path}" for path in written]


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("diagnose", __doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a run")
    parser.add_argument(
        "--scored",
        type=pathlib.Path,
        help="workdir of a run whose scored labels are of the same replies, as those "
        "of Rescore with the same seed are",
    )
    parser.add_argument(
        "--likelihoods", action="store_true", help="ask the model; takes a while"
    )
    parser.add_argument(
        "--lexicon",
        action="store_true",
        help="score with the word list of sentiment though the task does not name it",
    )
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    main()
