"""Trains a classifier of any classes: photos, features, split, head, domain score, version folder."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tools.evaluation.measures import by_group
from tools.evaluation.photos import Photo
from tools.service import PROJECT, Config, decode_image, read_config, to_tensor
from tools.training.backbone import cache, features, views
from tools.training.backbone.backbone import Backbone
from tools.training.backbone.features import Features
from tools.training.dataset.folders import Found, counted, find_dataset
from tools.training.dataset.split import Split, given, split
from tools.training.head.domain import MOST_PHOTOS, fit_domain
from tools.training.head.softmax_head import fit_head, photos_used
from tools.training.run import Part, Run, TrainError
from tools.training.version import check_labels, new_version, write_version

# From this number of photos on, mirror images are left out: the head learns little more, and memory is bounded.
MANY_PHOTOS = 20_000
_MOST_NAMED = 20


def train(options: argparse.Namespace) -> Run:
    """Train on the photos of the command line, and write a version. Raises the errors that `train.main` reports."""
    started = time.time()
    target = new_version(options)
    config = read_config(options.config)
    if options.config is None:
        # These values are CAT-DOG's.
        config = config.with_picture(domain_threshold=0.0, second_look=None)
    found = find_dataset(options.photos)
    check_labels(target, found.labels, options.replace_labels)
    _say_classes(options.photos, found)
    backbone = Backbone.frozen(config)
    parts = _features(found, backbone, options)
    broken = {name: reason for part in parts for name, reason in part.broken.items()}
    _say_broken(broken)
    divided = _divide(found, parts, options)
    # 200,000 photos have half a gigabyte.
    del parts
    notes = [*found.notes, *divided.notes, *_bounds(divided.training, len(found.labels))]
    for note in [*notes, *divided.few]:
        print(f"note: {note}", file=sys.stderr)
    head = fit_head(divided.training, len(found.labels), options.seed)
    imagenet, _ = backbone.network.classifier
    domain = fit_domain(divided.training, divided.validation, head, imagenet, options.seed)
    validation = divided.validation.served()
    logits = head.logits(validation)
    run = Run(
        name=options.name,
        version=int(target.name),
        command=command_of(options),
        evaluation=_line(["python", "run.py", "evaluate", "PHOTOS", "--model", options.name, *_models(options)]),
        data=options.photos,
        seed=options.seed,
        labels=found.labels,
        notes=tuple(notes),
        broken=broken,
        recipe=_recipe(config, domain.threshold),
        training=divided.training,
        validation=divided.validation,
        head=head,
        domain=domain,
        probabilities=_softmax(logits),
        domain_scores=domain.scores(validation),
        seconds=time.time() - started,
    )
    _say_accuracy(run)
    print("\nwriting the model ...", flush=True)
    run = write_version(target, backbone, run)
    print(run.second_look)
    left = cache.tidy(options.cache, started)
    print(f"written to {target} after {time.time() - started:.0f} s")
    print(f"features are kept in {options.cache} ({left / 1e6:.0f} MB), so that the next run is fast")
    if not _models(options):
        print(f"\nNext: python run.py serve --model {options.name}")
    return run


def _features(found: Found, backbone: Backbone, options: argparse.Namespace) -> list[Features]:
    """Return the features of the photos, and of those for validation if the folder is split."""
    config = backbone.config
    many = len(found.photos) + len(found.validation or ()) > MANY_PHOTOS
    extraction = features.Extraction(
        backbone.model(options.cache),
        decode=partial(decode_image, max_pixels=config.limits.pixels, picture=config.picture),
        views=views.plain_view if many else views.photo_and_mirror_image,
        prepare=lambda image: to_tensor(image, config.picture),
        fingerprint={**backbone.fingerprint, "views": "photo" if many else "photo and mirror image"},
    )

    def compute(photos: Sequence[Photo], title: str) -> Features:
        return features.extract(photos, extraction, options.cache, options.workers, title)

    if found.validation is None:
        return [compute(found.photos, "reading photos")]
    return [compute(found.photos, "training photos"), compute(found.validation, "validation photos")]


def _divide(found: Found, parts: Sequence[Features], options: argparse.Namespace) -> Split:
    if not all(len(part.photos) for part in parts):
        raise TrainError("no photo can be read: see the reasons above")
    if len(parts) == 1:
        return split(found.labels, parts[0], options.validation_share, options.seed)
    return given(found.labels, *parts)


def _bounds(training: Part, classes: int) -> Iterator[str]:
    """Yield a sentence about what is computed from a sample. With all of many photos it would take hours."""
    tried, fitted = photos_used(training, classes)
    uses = {"the head": fitted, "the choice of its penalty": tried, "the domain score": MOST_PHOTOS}
    count = len(training.photos)
    if bounded := [f"{most:,} for {use}" for use, most in uses.items() if most < count]:
        yield f"of the {count:,} photos for training, samples are used: at most {', '.join(bounded)}"


def _recipe(config: Config, threshold: float) -> dict[str, object]:
    recipe = json.loads(config.picture.model_dump_json(exclude_defaults=True, exclude_none=True))
    return {**recipe, "domain_threshold": round(float(threshold), 4)}


def _softmax(logits: features.Array) -> features.Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def command_of(options: argparse.Namespace) -> str:
    """Return the command line that repeats the run, quoted for the shell: every option that changes the result."""
    words = ["python", "run.py", "train", _path(options.photos), "--name", options.name]
    words += ["--version", str(options.version)] if options.version else []
    words += ["--seed", str(options.seed)] if options.seed else []
    words += ["--validation-share", str(options.validation_share)] if options.validation_share != 0.2 else []
    words += ["--config", _path(options.config)] if options.config else []
    return _line([*words, *_models(options)])


def _models(options: argparse.Namespace) -> list[str]:
    return ["--models", _path(options.models)] if options.models != PROJECT / "prev_trained_models" else []


def _line(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else " ".join(map(_quoted, words))


def _path(path: Path) -> str:
    """Return a path that is not read as an option."""
    return os.path.join(".", path) if str(path).startswith("-") else str(path)


def _quoted(word: str) -> str:
    """Return a word for a shell, without characters that no page can show."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = [
        chr(byte) if ord(" ") <= byte < 0x7F and chr(byte) not in "'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    ]
    return f"$'{''.join(escaped)}'"


def _say_classes(folder: Path, found: Found) -> None:
    counts = Counter(photo.label for photo in [*found.photos, *(found.validation or ())])
    shown = ", ".join(f"{label} {counts[number]}" for number, label in enumerate(found.labels[:_MOST_NAMED]))
    more = ", ..." if len(found.labels) > _MOST_NAMED else ""
    print(f"{folder}: {len(found.labels)} classes, {sum(counts.values())} photos ({shown}{more})", flush=True)


def _say_broken(broken: dict[str, str]) -> None:
    if broken:
        print(f"{counted(len(broken), 'photo')} not readable, and left out:", file=sys.stderr)
    for name, reason in list(broken.items())[:_MOST_NAMED]:
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(broken) > _MOST_NAMED:
        print(f"  and {len(broken) - _MOST_NAMED} more", file=sys.stderr)


def _say_accuracy(run: Run) -> None:
    """Print the accuracy with its interval, for all classes and for each."""
    print("\naccuracy, with the interval that holds in 19 of 20 cases")
    rows = {f"on {len(run.validation.photos)} photos for validation": run.accuracy}
    right = run.probabilities.argmax(1) == run.validation.classes
    by_label = by_group(right, [run.labels[number] for number in run.validation.classes])
    if len(by_label) <= _MOST_NAMED:
        rows |= {f"  {label}": share for label, share in by_label.items()}
    rows[f"on {len(run.training.photos)} others, each by a model without it"] = run.held_out_accuracy
    width = max(map(len, rows))
    for name, share in rows.items():
        print(f"  {name:{width}}  {share}")
    if run.domain:
        alarms = run.domain.false_alarms
        expected = f"{alarms.expected:7.2%}  [{alarms.low:.2%}, {alarms.high:.2%}]  expected for photos like these"
        print(f"  {'told to be none of the classes, wrongly':{width}}  {expected}")
