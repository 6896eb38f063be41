"""Trains a classifier from a folder of photos, for any 2 to 200 classes:

    python run.py train photos/ --name birds       photos/robin/..., photos/wren/..., at least 10 photos each
    python run.py serve --model birds              then open http://localhost:7998

The names of the folders are the classes. A part of the photos is kept for validation; if there are train/ and val/,
they are used. Nothing is sent anywhere. Three of your photos, made small, become part of the model: the service checks
its answers with them, and shows them on its page. A stopped run continues where it was.
docs/training.md explains the data, the method and the results.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.quiet import quiet
from tools.service import PROJECT

VARIANTS = ("lite0", "lite1", "lite2")
# The options that need --cats-and-dogs.
ANIMALS = ("calibrate", "variant", "weights", "index", "penalty", "source_exponent", "views")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="run.py train",
        usage="run.py train PHOTOS --name NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder with one folder of photos per class")
    found.add_argument("--name", required=True, help="the model's name: a folder in prev_trained_models")
    found.add_argument("--version", type=_positive, help="number of the version (default: the next free one)")
    found.add_argument(
        "--replace-labels", action="store_true", help="also if the newest version of the model has other labels"
    )
    found.add_argument(
        "--validation-share", type=_share, default=0.2, help="the part of each class for validation (default: 0.2)"
    )
    found.add_argument("--seed", type=_natural, default=0, help="chooses another split (default: 0)")
    workers = os.cpu_count() or 1
    found.add_argument("--workers", type=_positive, default=workers, help="threads (default: %(default)s)")
    cache = PROJECT / ".build" / "features"
    found.add_argument("--cache", type=Path, default=cache, help="folder for features (default: %(default)s)")
    models = PROJECT / "prev_trained_models"
    found.add_argument("--models", type=Path, default=models, help="folder of models (default: %(default)s)")
    found.add_argument("--config", type=Path, help="a preprocessor_config.json (default: that of CAT-DOG)")
    found.add_argument("--traceback", action="store_true", help="show the traceback of an unexpected error")
    animals = found.add_argument_group(
        "cats and dogs",
        "With --cats-and-dogs, PHOTOS has train/{cat,dog} and val/{cat,dog}. ImageNet's own odds of cats\n"
        "and dogs are one more feature, and the penalty is chosen on left-out sources. The other options\n"
        "of this group need it.",
    )
    animals.add_argument("--cats-and-dogs", action="store_true", help="train CAT-DOG by its own method")
    animals.add_argument(
        "--calibrate", action="store_true", help="measure the 8-bit ranges on these photos; else they are CAT-DOG's"
    )
    animals.add_argument("--variant", choices=VARIANTS, default="lite2", help="backbone (default: %(default)s)")
    animals.add_argument("--weights", type=Path, help="the backbone's .pth (default: the installed package's)")
    animals.add_argument("--index", type=Path, help="INDEX.csv with sources (default: in the folder or its parent)")
    animals.add_argument("--penalty", type=float, nargs="+", default=[0.3], help="L2 penalties to try (default: 0.3)")
    animals.add_argument(
        "--source-exponent", type=float, default=1.0, help="a source of n photos counts as n to this power (default: 1)"
    )
    animals.add_argument("--views", type=int, default=2, choices=range(1, 5), help="views per photo (default: 2)")
    return found


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options. It ends the program if one of them would have no effect."""
    reader, unset = parser(), object()
    dests = (*ANIMALS, "validation_share")
    # argparse sets a default only where there is no value.
    options = reader.parse_args(arguments, argparse.Namespace(**dict.fromkeys(dests, unset)))
    for dest in dests:
        if getattr(options, dest) is unset:
            setattr(options, dest, reader.get_default(dest))
        elif (dest in ANIMALS) != options.cats_and_dogs:
            option = f"--{dest.replace('_', '-')}"
            reader.error(f"{option} {'has no effect with' if options.cats_and_dogs else 'needs'} --cats-and-dogs")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says. Return 0, or 2 after an error message of one line."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name may have characters that the terminal can't show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser().print_help()
        return 2
    options = parse(arguments)
    try:
        with quiet():
            _train(options)
    except KeyboardInterrupt:
        print("\ntrain: stopped; the same command continues from here", file=sys.stderr)
        return 130
    except Exception as exc:
        reason = _reason(exc, options)
        if reason is None or options.traceback:
            raise
        print(f"train: {reason}", file=sys.stderr)
        return 2
    return 0


def _train(options: argparse.Namespace) -> None:
    # Imported here, so that --help is fast.
    if options.cats_and_dogs:
        from tools.training.cats_and_dogs import method

        method.train(options)
    else:
        from tools.training import classifier

        classifier.train(options)


def _reason(exc: Exception, options: argparse.Namespace) -> str | None:
    """Return one line for the user; None for a mistake of this program."""
    from tools.evaluation.photos import PhotosError
    from tools.evaluation.predictors.predictor import PredictorError
    from tools.service import ConfigError
    from tools.training.backbone.calibration import CalibrationError
    from tools.training.backbone.efficientnet_lite import WeightsError
    from tools.training.cats_and_dogs.heads import HeadError
    from tools.training.export import ExportError
    from tools.training.run import TrainError

    full = getattr(exc, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(exc)
    if full:
        return (
            f"the disk is full ({exc}). Nothing half-written is left. Free some space for {options.cache} and "
            f"{options.models}; the same command continues"
        )
    if isinstance(exc, MemoryError):
        return "there is not enough memory for so many photos: use fewer"
    known = (CalibrationError, ConfigError, ExportError, HeadError, OSError, PhotosError, PredictorError, TrainError)
    return " ".join(str(exc).split()) if isinstance(exc, (*known, WeightsError)) else None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < 2**63:
        raise argparse.ArgumentTypeError("a whole number from 1")
    return int(text)


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError("a whole number from 0")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 0.5:
        raise argparse.ArgumentTypeError("a number above 0, at most 0.5")
    return share


if __name__ == "__main__":
    sys.exit(main())
