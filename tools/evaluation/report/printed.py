"""Prints the figures of an evaluation, and returns them for JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tools.evaluation.measures import Proportion
from tools.evaluation.report.markdown import short
from tools.evaluation.report.results import CONFIDENCES, Results

# Longer tables are cut to their worst rows.
_MOST_ROWS = 30
_MOST_CONFUSIONS = 15
_MOST_REFUSED = 20
# Up to this number of classes, the whole confusion matrix is printed.
_SMALL = 8
_NAME = 32


def print_results(results: Results, refused: Mapping[str, str]) -> None:
    """Print accuracy, confusions, calibration, second looks, and the rejected photos."""
    rows = {"all photos": results.accuracy}
    shares = zip(results.labels, results.by_class(), strict=True)
    classes = {label: share for label, share in shares if share.total}
    if len(classes) > _MOST_ROWS:
        worst = sorted(classes.items(), key=lambda row: (row[1].value, -row[1].total))
        print(f"the {_MOST_ROWS} worst of {len(classes)} classes; --json has all")
        classes = dict(worst[:_MOST_ROWS])
    _print_shares(rows | classes)
    if sources := results.by_source():
        print("\nby source")
        _print_shares(sources)
    _print_confusions(results)
    print(f"\nexpected calibration error {results.calibration_error:.4f}")
    above = results.above(0.9)
    print(f"with a confidence of at least 90 %: {above.total} photos, {str(above).strip()}")
    if results.second_looks is not None:
        print(f"looked at twice {results.second_looks / len(results.photos):.2%}")
    if (flagged := results.flagged()) is not None:
        print(f"told to be none of the classes, wrongly: {str(flagged).strip()}")
    if refused:
        print(f"\nrefused photos, which are in none of these figures: {len(refused)}")
        for name, reason in list(refused.items())[:_MOST_REFUSED]:
            print(f"  {name}: {reason}")
        if len(refused) > _MOST_REFUSED:
            print(f"  and {len(refused) - _MOST_REFUSED} more; --json has all")


def results_json(results: Results, refused: Mapping[str, str]) -> dict[str, Any]:
    """Return all figures, for JSON."""
    shares = zip(results.labels, results.by_class(), strict=True)
    flagged = results.flagged()
    return {
        "labels": list(results.labels),
        "overall": _json(results.accuracy),
        "by_class": {label: _json(share) for label, share in shares if share.total},
        "by_source": {name: _json(share) for name, share in results.by_source().items()},
        "confusion_matrix": {"rows": "actual", "columns": "predicted", "counts": results.matrix().tolist()},
        "calibration": {"ece": results.calibration_error, "bins": [asdict(found) for found in results.bins()]},
        "by_confidence": {str(least): _json(results.above(least)) for least in CONFIDENCES},
        "second_looks": None if results.second_looks is None else results.second_looks / len(results.photos),
        "flagged": None if flagged is None else _json(flagged),
        "mistakes": [
            {
                "photo": str(results.photos[number].path),
                "actual": results.labels[int(results.actual[number])],
                "predicted": results.labels[int(results.predicted[number])],
                "confidence": round(float(results.confidence[number]), 6),
            }
            for number in results.mistakes()
        ],
        "refused": dict(refused),
    }


def _json(share: Proportion) -> dict[str, Any]:
    low, high = share.interval
    return {"right": share.right, "photos": share.total, "accuracy": share.value, "interval_95": [low, high]}


def _print_shares(rows: Mapping[str, Proportion]) -> None:
    names = [short(name, _NAME) for name in rows]
    width = max(map(len, names))
    for name, share in zip(names, rows.values(), strict=True):
        print(f"{name:{width}}  {share}")


def _print_confusions(results: Results) -> None:
    if len(results.labels) <= _SMALL:
        names = [short(label, 16) for label in results.labels]
        widths = [max(8, len(name) + 2) for name in names]
        heads = zip(names, widths, strict=True)
        print("\nactual \\ predicted" + "".join(f"{name:>{width}}" for name, width in heads))
        for name, counts in zip(names, results.matrix(), strict=True):
            print(f"{name:18}" + "".join(f"{count:{width}d}" for count, width in zip(counts, widths, strict=True)))
        return
    if found := results.confusions(_MOST_CONFUSIONS):
        print("\nmost frequent mistakes: photos of the first class that were answered as the second")
    for one in found:
        actual, predicted = (short(results.labels[number], _NAME) for number in (one.actual, one.predicted))
        print(f"  {one.count:4d} of {one.total:4d}  {actual} -> {predicted}")
