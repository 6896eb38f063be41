"""What `pip install -e .` installs: the packages in app/, and what they need as their requirements files have it."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIREMENTS = ("preprocess_service/requirements.txt", "model_service/requirements.txt", "requirements-messages.txt")


def pins(file: str) -> list[str]:
    """The requirements of a file in app/, without its comments."""
    lines = (Path(__file__).parent / "app" / file).read_text(encoding="utf-8").splitlines()
    return [pin for line in lines if (pin := line.partition("#")[0].strip())]


setup(
    packages=find_packages("app"),
    package_dir={"": "app"},
    install_requires=sorted({pin for file in REQUIREMENTS for pin in pins(file)}),
)
