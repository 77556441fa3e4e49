"""The table of Appendix N: published digits, closed forms and a Monte Carlo check."""

from __future__ import annotations

import math

from scipy import special

from rlcd_jax.paper import appendix_n
from rlcd_jax.statistics import estimates, tables
from rlcd_jax.statistics.estimates import Missing

PUBLISHED = (  # what, published digits, number of decimals; paper, Appendix N
    ("RLAIF, all pairs", 0.750, 3),
    ("RLAIF, hard pairs", 0.528, 3),
    ("RLCD, hard pairs, shift 3", 0.574, 3),
    ("RLCD, hard pairs, shift 0", 0.5, 1),
)
HARD = 0.2  # bound of the paper's hard pairs
SHIFTS = (0.0, 1.0, 2.0, 3.0, 4.0)


def paper_table(*, trials: int, seed: int, level: float = 0.95) -> tables.Table:
    """Return Appendix N: published digits, closed forms and a Monte Carlo check.

    All with spread and noise 1 and hard pairs within 0.2, as in the paper.

    Args:
      trials: pairs drawn for each shift; the paper uses 10^8.
      seed: of the draws.
      level: of the Monte Carlo intervals.
    """
    z = float(special.ndtri((1 + level) / 2))
    published = {name: f"{value:.{digits}f}" for name, value, digits in PUBLISHED}
    rows, even = [], appendix_n.break_even_shift(1.0, 1.0)
    for shift in SHIFTS:
        args = (shift, 1.0, 1.0, HARD)
        exact = appendix_n.predict(*args)
        shares, errors = appendix_n.simulate(*args, trials=trials, seed=seed)
        for name, label in _paper_rows(shift):
            value = getattr(shares, name)
            half = z * getattr(errors, name)
            among = round(trials * _among(name, shares))
            cell = (
                Missing("no hard pair was drawn")
                if math.isnan(value)
                else estimates.Estimate(value, value - half, value + half, level, among)
            )
            figures = (published.get(label, ""), getattr(exact, name), cell)
            rows.append((label, figures))
    columns = (
        tables.Column("published"),
        tables.Column("closed form", 4),
        tables.Column("Monte Carlo", 4),
    )
    notes = (
        "Generator spread 1, scorer noise 1 on each reply, hard pairs differ by at "
        f"most {HARD}. Monte Carlo: {trials:g} pairs for each shift, normal intervals.",
        f"RLCD's labels are right more often than RLAIF's from shift {even:.2f} on.",
    )
    caption = "Share of right labels (Appendix N)"
    return tables.Table(caption, "labels and pairs", columns, tuple(rows), notes)


def disagreements(table: tables.Table) -> list[str]:
    """Return the rows of `paper_table` that miss the published digits."""
    out = []
    for name, (published, exact, _) in table.rows:
        if published and published != f"{exact:.{len(published.split('.')[1])}f}":
            out.append(f"{name}: published {published}, closed form {exact:.6f}")
    return out


def _among(name: str, shares: appendix_n.LabelAccuracy) -> float:
    """Return the part of the drawn pairs that a share is about."""
    if not name.endswith("_hard"):
        return 1.0
    same = name.startswith("rlaif")
    return shares.hard_share_same if same else shares.hard_share_contrast


def _paper_rows(shift: float) -> list[tuple[str, str]]:
    """Return (field of `appendix_n.LabelAccuracy`, name of the row) for one shift."""
    rows = [
        ("rlcd", f"RLCD, all pairs, shift {shift:g}"),
        ("rlcd_hard", f"RLCD, hard pairs, shift {shift:g}"),
        ("rescore", f"Rescore, all pairs, shift {shift:g}"),
        ("rescore_hard", f"Rescore, hard pairs, shift {shift:g}"),
        ("hard_share_contrast", f"share of hard pairs, shift {shift:g}"),
    ]
    if shift:
        return rows
    same = [("rlaif", "RLAIF, all pairs"), ("rlaif_hard", "RLAIF, hard pairs")]
    # Without a shift Rescore is RLAIF.
    return same + [row for row in rows if not row[0].startswith("rescore")]
