"""Finds the versions of a model on disk, and chooses those that its policy wants."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from model_service.errors import StartError


def find_versions(model_name: str, base_path: Path) -> dict[int, list[Path]]:
    """Return the folders of each version in `base_path`. If a version has several, the shortest name comes first.

    A version is a folder, or a link to one, whose name has only the digits 0 to 9; `0001` is version 1.
    Raises StartError if `base_path` is missing or can't be read.
    """
    found: dict[int, list[Path]] = {}
    try:
        for child in sorted(base_path.iterdir(), key=lambda path: len(path.name)):
            if _is_version(child):
                found.setdefault(int(child.name), []).append(child)
    except OSError as exc:
        raise StartError(
            f"Could not find base path {base_path} for servable {model_name} ({exc.strerror}): "
            "point --model_base_path, or base_path in the config, at the folder that holds the version folders."
        ) from exc
    return found


def duplicates(versions: Mapping[int, list[Path]]) -> list[str]:
    """Return a warning for each version with several folders, as TensorFlow Serving does."""
    return [
        f"Duplicate version directories detected. Version {version} will be loaded from {first}, "
        f"and not from {', '.join(map(str, others))}"
        for version, (first, *others) in sorted(versions.items())
        if others
    ]


def no_versions(model_name: str, base_path: Path) -> str:
    """Return TensorFlow Serving's message for a base path without versions."""
    return (
        f"No versions of servable {model_name} found under base path {base_path}. "
        "Did you forget to name your leaf directory as a number (eg. '/1/')?"
    )


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and int(path.name) < 2**63 and path.is_dir()


def wanted_versions(policy: Any, found: Collection[int]) -> set[int]:
    """Return which of the versions a ServableVersionPolicy wants: all, chosen ones, or the latest (by default one)."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(found)
    if choice == "specific":
        return set(policy.specific.versions).intersection(found)
    return set(sorted(found)[-max(policy.latest.num_versions, 1) :])
