"""How well the domain score separates photos of the model's classes from other photos."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.measures import auroc, proportion

# Photos that resemble a class are a group of their own, if their folder has this name.
LOOKALIKE = "lookalike"

Scores = NDArray[np.float32]


def domain_report(inside: Scores, outside: Scores, groups: Sequence[str], threshold: float) -> dict[str, Any]:
    """Return AUROC and flagged shares for JSON. Scores are float32 [photos], 0 to 1; one below `threshold` is flagged.

    The group LOOKALIKE (for CAT-DOG foxes, wolves, lions) is not included in the figures for all groups.
    """
    names = np.asarray(groups, object)
    plain = names != LOOKALIKE
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
    """Print the figures."""
    print(f"\nneither, threshold {found['threshold']}: {found['inside_flagged']:.2%} of the labelled photos flagged")
    if (area := found["auroc_without_lookalikes"]) is not None:
        print(f"  AUROC {area:.4f}{' without lookalikes' if LOOKALIKE in found['by_group'] else ''}")
    for name, group in found["by_group"].items():
        print(f"  {name:16} {group['photos']:4} photos, AUROC {group['auroc']:.4f}, flagged {group['flagged']:.2%}")
