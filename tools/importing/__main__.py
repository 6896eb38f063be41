"""Imports your own model: ``python run.py import PATH``, then ``python run.py serve --model NAME``.

PATH is a Keras file (.h5, .keras), a SavedModel folder, a layers model of TensorFlow.js (model.json), a TFLite or ONNX
file, a folder with one of these, or a zip, as Teachable Machine exports it. A model file does not say how photos are
prepared. The import finds it from photos whose answer is known: --photo P --says "Sparrow 95.16". Give two or three,
or a file of them, which your script writes: --answers FILE.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.importing.import_model import Options, Report, import_model
from tools.importing.network import ImportProblem, Numbers, OpenQuestion, Three
from tools.importing.ways import RESIZES, SCALES, Wanted
from tools.quiet import quiet
from tools.service import PROJECT
from tools.training.export import ExportError


def main(arguments: Sequence[str] | None = None) -> int:
    """Import the model that the command line names. Return 0, or 1 with one line on stderr."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        with quiet():
            report = _import(_options(given))
    except (ImportProblem, ExportError, OSError) as exc:
        reason = str(exc)
    except KeyboardInterrupt:
        return 130
    # Unexpected errors get one line too, without a traceback: usually the model is broken.
    except Exception as exc:
        if given.traceback:
            raise
        reason = f"it can't be imported ({type(exc).__name__}: {str(exc)[:300]}); --traceback shows where"
    else:
        _print(report)
        return 0
    print(f"import: {given.path}: {_one_line(reason)}", file=sys.stderr)
    return 1


def _import(options: Options) -> Report:
    while True:
        try:
            return import_model(options, lambda text: print(f"{text} ...", flush=True))
        except OpenQuestion as question:
            options = _asked(options, question)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a model's file, folder or zip")
    parser.add_argument("--name", help="the model's name; default: the name of the file")
    parser.add_argument("--version", type=_positive, help="the version's number; default: the next free one")
    parser.add_argument("--labels", type=Path, help="a file with one label per line, in the order of the outputs")
    parser.add_argument("--photo", type=Path, action="append", default=[], help="a photo whose answer is known")
    parser.add_argument("--says", action="append", default=[], help='the answer for that photo: "LABEL PERCENT"')
    parser.add_argument("--answers", type=Path, help='a file with one line per photo: "PHOTO: LABEL PERCENT"')
    parser.add_argument("--resize", choices=RESIZES, help="how photos are resized to the model's size")
    parser.add_argument("--scale", choices=list(SCALES), help="the range that pixels of 0 to 255 are scaled to")
    parser.add_argument("--mean", type=_three, help="instead of --scale: R,G,B, for pixels of 0 to 1")
    parser.add_argument("--std", type=_three, help="with --mean: the deviation, R,G,B")
    parser.add_argument("--order", choices=["rgb", "bgr"], help="the order of the colours")
    parser.add_argument("--size", type=_size, help="WIDTHxHEIGHT, for a model that accepts any size")
    parser.add_argument("--output", help="the output with the classes")
    parser.add_argument(
        "--activation", choices=["none", "softmax", "sigmoid"], help="the function to add to the output"
    )
    parser.add_argument("--signature", help="the signature of a SavedModel")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an unexpected error")
    parser.add_argument(
        "--models", type=Path, default=PROJECT / "prev_trained_models", help="folder of models (default: %(default)s)"
    )
    return parser


def _options(given: argparse.Namespace) -> Options:
    if len(given.photo) != len(given.says):
        raise ImportProblem(f"there are {len(given.photo)} --photo and {len(given.says)} --says: give pairs of both")
    if given.std is not None and given.mean is None:
        raise ImportProblem("--std needs --mean")
    if given.mean is not None and given.scale is not None:
        raise ImportProblem("--mean and --scale exclude each other: give one of them")
    said = list(zip(given.photo, given.says, strict=True))
    if given.answers is not None:
        said += _answers(given.answers)
    numbers = None if given.mean is None else Numbers(1 / 255, given.mean, given.std or (1.0,) * 3)
    return Options(
        path=given.path,
        models=given.models,
        name=given.name,
        version=given.version,
        labels=given.labels,
        said=said,
        output=given.output,
        signature=given.signature,
        activation=given.activation,
        size=given.size,
        wanted=Wanted(given.resize, given.scale, given.order, numbers),
    )


def _answers(path: Path) -> list[tuple[Path, str]]:
    found = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as exc:
        raise ImportProblem(f"{path} can't be read ({exc})") from exc
    for line in filter(str.strip, text.splitlines()):
        photo, colon, answer = line.partition(": ")
        if not colon:
            raise ImportProblem(f"{path} has the line {line[:80]!r}; a line is like: a.jpg: Sparrow 95.16")
        found.append((Path(photo.strip()), answer))
    return found


def _asked(options: Options, question: OpenQuestion) -> Options:
    """Ask the user at the terminal, and return the options with the answer. Without a terminal, raise the question."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise question
    print(f"\n{question}")
    for number, choice in enumerate(question.choices, start=1):
        print(f"  {number}  {choice}")
    answer = input(f"{question.option} (a number, or Enter to stop): ").strip()
    if not answer.isdigit() or not 1 <= int(answer) <= len(question.choices):
        raise ImportProblem(f"nothing was chosen: add {question.option}")
    chosen = question.choices[int(answer) - 1]
    if question.option == "--output":
        return replace(options, output=chosen)
    wanted = options.wanted
    if question.option == "--resize":
        wanted = replace(wanted, resize=chosen)
    elif question.option == "--scale":
        wanted = replace(wanted, scale=chosen)
    else:
        wanted = replace(wanted, order=chosen)
    return replace(options, wanted=wanted)


def _print(report: Report) -> None:
    print(f"\n{report.format}")
    shown = ", ".join(report.labels[:10]) + (f", ... ({len(report.labels)} in all)" if len(report.labels) > 10 else "")
    lines = [("labels", [shown]), ("found", report.found), ("assumed", report.assumed), ("note", report.notes)]
    lines += [("largest difference", [report.difference]), ("written to", [str(report.target)])]
    for title, texts in lines:
        for text in texts:
            print(f"  {title + ':':20}{text}")
    if report.assumed:
        print(
            '\nThe assumptions may be wrong. To check them, give two or three photos: --photo P --says "LABEL PERCENT"'
        )
    # `serve` knows only the models of the project.
    if report.target.resolve().is_relative_to(PROJECT / "prev_trained_models"):
        print(f"\nNext: python run.py serve --model {report.name}")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < 2**63:
        raise argparse.ArgumentTypeError("a version is a whole number from 1")
    return int(text)


def _three(text: str) -> Three:
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError("three numbers, separated by commas") from exc
    return first, second, third


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if match is None or not int(match[1]) or not int(match[2] or match[1]):
        raise argparse.ArgumentTypeError("a size is like 224x224")
    return int(match[1]), int(match[2] or match[1])


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
