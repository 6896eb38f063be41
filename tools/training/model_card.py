"""Writes MODEL_CARD.md of a training run: what the model is for, how far to trust it, its figures and pictures."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tools.evaluation.measures import Proportion
from tools.evaluation.report.markdown import cells, code, duration, interval, percent, table, text
from tools.evaluation.report.results import CONFIDENCES, Results, class_proportions
from tools.training.run import Run

CARD = "MODEL_CARD.md"
PICTURES = "card"
# Below this number of training photos in a class, the card begins with a warning.
FEW_PHOTOS = 50
# From this width of the interval on, the accuracy is told to be a rough figure; 0.2 is plus or minus 10 points.
_ROUGH = 0.2
_MOST_CONFUSIONS, _MOST_BROKEN, _MOST_NAMED, _MOST_ROWS = 20, 50, 5, 36


def write_card(folder: Path, run: Run) -> None:
    """Write MODEL_CARD.md and its pictures into the version folder `folder`; raises OSError."""
    from tools.evaluation.report import pictures  # importing matplotlib takes a second

    both = of_all_photos(run)
    (folder / PICTURES).mkdir(exist_ok=True)
    pictures.draw_confusion(both, folder / PICTURES / "confusion.png")
    pictures.draw_reliability(results_of(run), folder / PICTURES / "reliability.png")
    pictures.draw_mistakes(both, folder / PICTURES / "mistakes.jpg", _MOST_ROWS)
    (folder / CARD).write_text(card(run), encoding="utf-8")


def results_of(run: Run) -> Results:
    """Return the answers for the photos of validation."""
    threshold = run.domain.threshold if run.domain else 0.0
    return Results(run.labels, run.validation.photos, run.probabilities, run.domain_scores, threshold)


def of_all_photos(run: Run) -> Results:
    """Return the answers for the photos of validation, then by cross-validation those for the photos of training."""
    powers = np.exp(run.head.held_out - run.head.held_out.max(1, keepdims=True))
    probabilities = np.concatenate([run.probabilities, powers / powers.sum(1, keepdims=True)])
    return Results(run.labels, [*run.validation.photos, *run.training.photos], probabilities)


def card(run: Run) -> str:
    """Return the text of the model card, in Markdown."""
    results, both = results_of(run), of_all_photos(run)
    parts = [
        f"# Model card: {text(run.name)}, version {run.version}",
        f"The model tells {len(run.labels)} classes of photos apart: {_names(run.labels, 20)}.",
        "## How far to trust it",
        "\n".join(f"- {sentence}" for sentence in _trust(run, results)),
        "## Photos",
        *_photos(run),
        "## Accuracy by class",
        *_accuracy(run, results),
        "## Which classes are confused",
        *_confusions(run, both),
        "## Confidence",
        *_confidence(results),
        "## Photos of none of the classes",
        _domain(run, results),
        "## The worst mistakes",
        *_mistakes(run, both),
        "## How it was made",
        *_method(run),
    ]
    return "\n\n".join(parts) + "\n"


def _trust(run: Run, results: Results) -> Iterator[str]:
    """Yield sentences, the most important ones first."""
    training = np.bincount(run.training.classes, minlength=len(run.labels))
    accuracy = results.accuracy
    low, high = accuracy.interval
    if training.min() < FEW_PHOTOS:
        few = [run.labels[number] for number in np.argsort(training, kind="stable") if training[number] < FEW_PHOTOS]
        yield (
            f"**Few photos.** The model learned from fewer than {FEW_PHOTOS} photos of {_of_classes(few, run.labels)}. "
            "Use it to try things out. The surest way to a better model is more photos."
        )
    yield (
        f"**{percent(accuracy.value)} right** on {accuracy.total} photos that the model was not trained on. Of many "
        f"more photos like these, probably {100 * low:.0f} to {100 * high:.0f} % would be right (95 % interval)."
    )
    if high - low > _ROUGH:
        yield f"This figure is rough, because it comes from only {accuracy.total} photos."
    yield (
        f"Cross-validation on the {len(run.training.photos)} training photos gives "
        f"{percent(run.held_out_accuracy.value)} ({interval(run.held_out_accuracy)}): each photo was answered by a "
        "model that was trained without it. This comes from more photos, so look at it if both figures differ."
    )
    yield from _weakest(run)
    yield (
        "All figures are for photos of the same collection. Photos from another camera, place or season may be "
        "answered worse, and no figure here says by how much. Measure it with such photos: see the last section."
    )
    if training.max() > 5 * training.min():
        most, least = run.labels[int(training.argmax())], run.labels[int(training.argmin())]
        yield (
            f"The classes differ in size: {text(most)} has {training.max()} training photos, {text(least)} has "
            f"{training.min()}. All classes count equally in training. The accuracy is that of validation, where large "
            f"classes have more photos; the mean over the classes is {percent(_balanced(results))}."
        )
    yield (
        "A photo of anything else gets one of the classes too"
        + (", unless its domain score is low (see below)." if run.domain else ". This model has no domain score.")
    )


def _weakest(run: Run) -> Iterator[str]:
    """Yield a sentence about the classes that are clearly worse than all together, by cross-validation."""
    whole = run.held_out_accuracy
    weak = [
        (share, label)
        for share, label in zip(_held_out(run), run.labels, strict=True)
        if share.right < share.total and share.interval[1] < whole.value
    ]
    if weak:
        weak.sort(key=lambda found: found[0].value)
        named = ", ".join(f"{text(label)} ({percent(share.value)})" for share, label in weak[:_MOST_NAMED])
        more = f" and {len(weak) - _MOST_NAMED} more" if len(weak) > _MOST_NAMED else ""
        yield f"Weakest, by cross-validation: {named}{more}."


def _photos(run: Run) -> Iterator[str]:
    training, validation = (len(part.photos) for part in (run.training, run.validation))
    yield (
        f"The folder {text(run.data.name or run.data)} has {training + validation} photos that could be used: "
        f"{training} for training, {validation} for validation. The next table has the numbers by class."
    )
    if run.notes:
        # As in `_file`: no folder of the user is named.
        yield "\n".join(f"- {text(note.replace(f'{run.data}{os.sep}', ''), 400)}" for note in run.notes)
    if run.broken:
        yield f"Files that could not be read and were left out: {len(run.broken)}"
        rows = [
            f"- {_file(run, Path(name))}: {text(why, 200)}" for name, why in list(run.broken.items())[:_MOST_BROKEN]
        ]
        more = [f"- and {len(run.broken) - _MOST_BROKEN} more"] if len(run.broken) > _MOST_BROKEN else []
        yield "\n".join([*rows, *more])


def _accuracy(run: Run, results: Results) -> Iterator[str]:
    yield (
        "With 95 % intervals (Wilson). The number of a class is that of the pictures. The columns of cross-validation "
        "are of the training photos, each answered by a model that was trained without it."
    )
    training = np.bincount(run.training.classes, minlength=len(run.labels))
    shares = zip(run.labels, training.tolist(), results.by_class(), _held_out(run), strict=True)
    rows = [
        [str(number), text(label), str(count), str(share.total), *cells(share), *cells(held)]
        for number, (label, count, share, held) in enumerate(shares)
    ]
    whole = [*cells(results.accuracy), *cells(run.held_out_accuracy)]
    rows.append(["", "**all**", str(training.sum()), str(results.accuracy.total), *whole])
    head = (
        "#number",
        "class",
        "#training",
        "#validation",
        "#right",
        "interval",
        "#right by cross-validation",
        "interval",
    )
    yield table(head, rows)
    if results.accuracy.total:
        yield f"The mean over the classes on validation is {percent(_balanced(results))}."


def _confusions(run: Run, both: Results) -> Iterator[str]:
    yield (
        f"![confusion matrix]({PICTURES}/confusion.png)\n\nA row has the photos of one class, a column those that were "
        "answered as one class. Blue is right, red is wrong; the stronger, the larger the part of the row. It has all "
        "photos: those of validation, and those of training by cross-validation."
    )
    found = both.confusions(_MOST_CONFUSIONS)
    if not found:
        yield "No photo was confused."
        return
    yield f"The most frequent mistakes{', of more' if len(found) == _MOST_CONFUSIONS else ''}:"
    rows = [
        [text(run.labels[one.actual]), text(run.labels[one.predicted]), f"{one.count} of {one.total}"] for one in found
    ]
    yield table(("true class", "answered", "#photos"), rows)


def _confidence(results: Results) -> Iterator[str]:
    yield f"![reliability diagram]({PICTURES}/reliability.png)"
    yield (
        "Of the answers with a confidence of 80 %, about 80 % should be right: points on the diagonal. The expected "
        f"calibration error is {results.calibration_error:.3f} (15 bins); with few photos, a large part of it is "
        "chance."
    )
    if results.calibration_error > 0.05:
        sure, right = float(results.confidence.mean()), results.accuracy.value
        yield (
            f"Here the model is too {'sure' if sure > right else 'careful'}: its mean confidence is "
            f"{percent(sure)}, and {percent(right)} of its answers are right."
        )
    yield "What you get if you use only answers from a confidence on, and look at the other photos yourself:"
    rows = []
    for confidence in (0.0, *CONFIDENCES):
        above = results.above(confidence)
        used = Proportion(above.total, results.accuracy.total)
        name = f"{100 * confidence:.0f} %" if confidence else "any"
        rows.append([name, percent(used.value), *(cells(above) if above.total else ("", ""))])
    yield table(("#confidence from", "#photos used", "#right", "interval"), rows)


def _domain(run: Run, results: Results) -> str:
    flagged = results.flagged()
    if not run.domain or flagged is None:
        return "This model has no domain score: it can't tell that a photo shows none of the classes."
    alarms = run.domain.false_alarms
    return (
        "The output `domain_score`, 0 to 1, says how much a photo resembles those of the classes. Below the threshold "
        f"{run.domain.threshold:.4g} the answer has `in_domain: false`. This will happen wrongly to about "
        f"{percent(alarms.expected)} of other photos like these; the 95 % interval is {100 * alarms.low:.1f} to "
        f"{100 * alarms.high:.1f} %, and narrower with more photos. Of the photos of validation, which helped to set "
        f"the threshold, it happens to {flagged.right} of {flagged.total}. Photos of these classes from other places, "
        "or with another look, are told so more often. How many photos of other things are found depends on the "
        "things: measure it with `--neither` (see the last section)."
    )


def _mistakes(run: Run, both: Results) -> Iterator[str]:
    numbers = both.mistakes()
    if not numbers:
        yield "There is none."
        return
    shown = numbers[:_MOST_ROWS]
    which = f"The first {len(shown)} of {len(numbers)} mistakes" if len(numbers) > len(shown) else "All mistakes"
    yield (
        f"{which} on all photos, those with the highest confidence first. Look for wrong folders, for photos of two "
        "classes at once, and for what they have in common: more photos of that kind help most.\n\n"
        f"![the worst mistakes]({PICTURES}/mistakes.jpg)\n\n"
        "The picture has photos of yours. So do the golden photos in `assets.extra/golden`, which the page of the "
        "service shows. To give the model away without them, delete the picture and that folder, then run `python -m "
        "tools.model_folder` on the version folder."
    )
    rows = [
        [
            str(place),
            _file(run, both.photos[number].path),
            text(run.labels[int(both.actual[number])]),
            text(run.labels[int(both.predicted[number])]),
            percent(float(both.confidence[number])),
            "validation" if number < len(run.validation.photos) else "training",
        ]
        for place, number in enumerate(shown, start=1)
    ]
    yield table(("#number", "photo", "true class", "answered", "#confidence", "part"), rows)


def _method(run: Run) -> Iterator[str]:
    features, classes = run.head.kernel.shape
    yield (
        "A frozen network (EfficientNet-Lite2, trained on ImageNet, rounded to 8 bits) turns each photo into "
        f"{features:,} numbers, its features. A multinomial logistic regression on them chooses one of {classes} "
        f"classes. Its penalty, {run.head.penalty:.4g}, was chosen by cross-validation. The temperature "
        f"{run.head.temperature:.3f} calibrates the confidence. The training took {duration(run.seconds)}, with seed "
        f"{run.seed}."
    )
    if run.second_look:
        told = text(f"{run.second_look[0].upper()}{run.second_look[1:]}", 400)
        yield f"{told}. All figures on this page are of one look."
    yield f"The command that repeats it:\n\n{code(run.command)}"
    yield f"The command that measures the model on other photos, in one folder per class:\n\n{code(run.evaluation)}"
    yield f"With photos of other things in the folder OTHERS:\n\n{code(f'{run.evaluation} --neither OTHERS')}"


def _held_out(run: Run) -> list[Proportion]:
    right = run.head.held_out.argmax(1) == run.training.classes
    return class_proportions(run.training.classes, right, len(run.labels))


def _balanced(results: Results) -> float:
    """Return the mean accuracy over the classes that have photos, 0 to 1."""
    shares = [share.value for share in results.by_class() if share.total]
    return sum(shares) / len(shares)


def _names(labels: Sequence[str], most: int = _MOST_NAMED) -> str:
    named = ", ".join(text(label, 40) for label in labels[:most])
    return f"{named} and {len(labels) - most} more" if len(labels) > most else named


def _of_classes(found: Sequence[str], labels: Sequence[str]) -> str:
    return "each class" if len(found) == len(labels) else f"{len(found)} of {len(labels)} classes: {_names(found)}"


def _file(run: Run, path: Path) -> str:
    """Return a photo's path within the data, so that no folder of the user is named."""
    return text(path.relative_to(run.data) if path.is_relative_to(run.data) else path.name, 120)
