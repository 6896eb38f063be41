"""Checks that a model server behaves as TensorFlow Serving does, seen from outside.

    python -m tools.conformance --write FOLDER     makes the models, and says how to serve them
    python -m tools.conformance localhost:8500 localhost:8501 --folder FOLDER     checks the server: gRPC, REST

The server may be a real TensorFlow Serving or the embedded one. Without --folder, what needs the folder is skipped.
"""

import argparse
import importlib
import sys
from pathlib import Path

import requests

from tools.conformance import models
from tools.conformance.suite import CHECKS, Check, Different, Server, Skip

# In this order: the last ones change what is served.
MODULES = ("predict", "model_info", "rest", "examples", "reloading", "lifecycle")


def load_checks() -> list[Check]:
    """Return all checks in their order."""
    for name in MODULES:
        importlib.import_module(f"tools.conformance.{name}")
    return CHECKS


def outcome(check: Check, server: Server) -> str:
    """Run a check; return "" if it passes, "skipped: ..." or what is different."""
    try:
        check.run(server)
    except Skip as exc:
        return f"skipped: {exc}"
    except (Different, requests.RequestException, ValueError, LookupError) as exc:
        return f"{exc}" if isinstance(exc, Different) else f"{type(exc).__name__}: {exc}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Write the models, or check a server; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", nargs="*", metavar="HOST:PORT", help="of gRPC, and of REST")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="an empty folder for the models")
    parser.add_argument("--folder", type=Path, help="the models' folder, to check new versions and reloading")
    parser.add_argument("--served-as", default="", metavar="PATH", help="where the server sees this folder")
    options = parser.parse_args(arguments)
    if options.write:
        return _write(options.write.absolute(), options.served_as)
    if len(options.addresses) != 2:
        parser.error("two addresses are needed: gRPC and REST")
    folder = options.folder.absolute() if options.folder else None
    grpc_address, rest_address = options.addresses
    return _check(Server(grpc_address, rest_address, folder, options.served_as))


def _write(folder: Path, served_as: str) -> int:
    place = served_as or str(folder)
    models.write(folder, place)
    flags = " ".join(models.flags(place))
    print(f"The models are in {folder}. Serve them with --port, --rest_api_port and these flags, for example:")
    print(f"  tensorflow_model_server --port=8500 --rest_api_port=8501 {flags}")
    print(f"  python app/model_service/model_server.py --port=8500 --rest_api_port=8501 {flags}")
    print(f"Then: python -m tools.conformance localhost:8500 localhost:8501 --folder {folder}")
    return 0


def _check(server: Server) -> int:
    if not server.is_reachable():
        print("conformance: nothing listens at these addresses", file=sys.stderr)
        return 2
    counts = {"ok": 0, "DIFFERENT": 0, "skipped": 0}
    for check in load_checks():
        result = outcome(check, server)
        word = "ok" if not result else "skipped" if result.startswith("skipped: ") else "DIFFERENT"
        counts[word] += 1
        print(f"{word:9} {check.text}" + (f"\n          {result}" if result else ""), flush=True)
    server.close()
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["DIFFERENT"] else 0


if __name__ == "__main__":
    sys.exit(main())
