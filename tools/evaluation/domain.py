"""How well the domain score tells photos of the model's classes from photos of neither."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.measures import auroc, proportion

Scores = NDArray[np.float32]


def domain_report(inside: Scores, outside: Scores, groups: Sequence[str], threshold: float) -> dict[str, Any]:
    """AUROC and flagged shares, ready for JSON; scores float32 [photos], 0 to 1, below `threshold` is flagged.

    A group named `lookalike` (foxes, wolves, lions) stands apart: it is left out of the figure for all.
    """
    names = np.asarray(groups, object)
    plain = names != "lookalike"
    return {
        "threshold": threshold,
        "inside_flagged": proportion(inside < threshold).value,
        "auroc_without_lookalikes": auroc(inside, outside[plain]) if plain.any() else None,
        "flagged_without_lookalikes": proportion(outside[plain] < threshold).value,
        "by_group": {
            name: {
                "photos": int((names == name).sum()),
                "auroc": auroc(inside, outside[names == name]),
                "flagged": proportion(outside[names == name] < threshold).value,
            }
            for name in sorted(set(groups))
        },
    }


def print_domain(found: dict[str, Any]) -> None:
    """The figures for a person."""
    print(f"\nneither, threshold {found['threshold']}: {found['inside_flagged']:.2%} of the labelled photos flagged")
    print(f"  AUROC {found['auroc_without_lookalikes']} without lookalikes")
    for name, group in found["by_group"].items():
        print(f"  {name:16} {group['photos']:4} photos, AUROC {group['auroc']:.4f}, flagged {group['flagged']:.2%}")
