"""Tests the pages against the code: commands, options, files, links, routes, answers, errors and settings."""

import json
import re
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

import yaml

from model_service import flags
from model_service.errors import StartError
from preprocess_service.app import app_server, config, errors, model_runner
from preprocess_service.app.api.schemas import Explanation, Failure, PredictSuccess
from run import PROGRAMS
from tools.course.blocks import chapters, read_blocks

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "app").rglob("README.md"),
    ROOT / "tools" / "README.md",
    ROOT / "course" / "README.md",
    ROOT / "images" / "README.md",
    ROOT / "prev_trained_models" / "CAT-DOG" / "MODEL_CARD.md",
]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
API, CONFIGURATION = PAGES["docs/api.md"], PAGES["docs/configuration.md"]
# The command of run.py that starts a program of tools/.
COMMANDS = {program: command for command, program in PROGRAMS.items()}
# Programs that only other programs of tools/ start.
INNER_PROGRAMS = {
    *("tools.chaos.impostor", "tools.chaos.stuck_model"),
    *("tools.evaluation.torch_reference", "tools.kubernetes_events.pod_load"),
}
# Modules of Python, and of its packages, that the pages start.
FOREIGN_MODULES = ("-m unittest", "-m venv", "-m pip", "-m compileall")
# Files that the reader of the course creates.
CREATED = {block.file for number in chapters("pt") for block in read_blocks(number).values()}
# Options of argparse and of Docker Compose.
FOREIGN_OPTIONS = {"--help", "--scale"}
# Routes that are not part of the API's description.
UNDESCRIBED = {"GET /", "GET /metrics", "GET /docs", "GET /openapi.json", "GET /course"}


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same level."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.DOTALL | re.MULTILINE)
    if found is None:
        raise AssertionError(f"no heading {heading!r}")
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows, without the header rows."""
    tables = re.findall(r"^\|.*\|\n\|[ |-]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for table in tables for row in table.splitlines()]


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield page, command and arguments of everything that the pages start with Python."""
    for name, page in PAGES.items():
        for command, rest in re.findall(r"python (run\.py \w+|-m [\w.]+|[\w/]+\.py)([^`\n]*)", page):
            yield name, command, rest


class CommandsTest(unittest.TestCase):
    def test_every_command_of_run_py_is_known_to_it(self) -> None:
        usage = subprocess.run(
            [sys.executable, ROOT / "run.py", "--help"], capture_output=True, text=True, check=True
        ).stdout
        known = set(re.findall(r"python run\.py (\w+)", usage))
        named = {command.split()[1] for _, command, _ in commands() if command.startswith("run.py ")}
        self.assertLessEqual(named, known)
        listed = {row[0] for row in rows(PAGES["docs/development.md"])}
        self.assertLessEqual({f"`python run.py {command}`" for command in known}, listed)

    def test_every_program_that_is_started_exists(self) -> None:
        for name, command, _ in commands():
            with self.subTest(f"{name}: {command}"):
                if command.startswith("-m tools"):
                    self.assertTrue(self.sources(command))
                elif command.startswith("-m"):
                    self.assertIn(command, FOREIGN_MODULES)
                elif command.startswith("run.py "):
                    continue
                else:
                    self.assertTrue((ROOT / command).is_file())

    def test_every_option_of_a_tool_is_one_that_it_has(self) -> None:
        for name, command, rest in commands():
            if command.endswith("/model_server.py"):
                self.assertEqual(flags.parse(rest.split()).warnings, (), name)
            if not command.startswith(("-m tools", "run.py ", "course/")):
                continue
            for option in set(re.findall(r"(?<![\w-])--[a-z][\w-]+", rest)) - {"--help"}:
                with self.subTest(f"{name}: {command} {option}"):
                    self.assertIn(f'"{option}"', self.sources(command))

    def test_every_tool_stands_in_the_list(self) -> None:
        listed = PAGES["tools/README.md"]
        for path in (ROOT / "tools").rglob("*.py"):
            if '__name__ == "__main__"' not in path.read_text(encoding="utf-8") or "rivals" in path.parts:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            if name in INNER_PROGRAMS:
                continue
            with self.subTest(name):
                self.assertTrue(
                    f"`python -m {name}`" in listed
                    or f"`python {path.relative_to(ROOT)}`" in listed
                    or f"`python run.py {COMMANDS.get(name, name.split('.')[-1])}`" in listed
                )

    def test_every_option_that_is_named_alone_is_one_of_a_program_of_ours(self) -> None:
        programs = [ROOT / "run.py", *(ROOT / "tools").rglob("*.py")]
        known = {option for path in programs for option in re.findall(r'"(--[a-z][\w-]+)"', path.read_text("utf-8"))}
        for name, page in PAGES.items():
            # A chapter of the course explains other programs' options too. They are in its code, which is run.
            shown = set(
                re.findall(r"--[a-z][\w-]+", "".join(re.findall(r"^```.*?^```", page, re.DOTALL | re.MULTILINE)))
            )
            for option in set(re.findall(r"`(--[a-z][\w-]+)(?!=value)\b", page)) - known - shown - FOREIGN_OPTIONS:
                with self.subTest(f"{name}: {option}"):
                    self.assertTrue(self.is_flag(option))

    def is_flag(self, option: str) -> bool:
        """Return whether the model server has this flag, even if it rejects it or it has no effect."""
        try:
            warnings = flags.parse(["--model_base_path=x", f"{option}=1"]).warnings
        except StartError:
            return True
        return not any(warning.startswith("unknown") for warning in warnings)

    def sources(self, command: str) -> str:
        """Return the source of the program that a command starts, or "" if there is none."""
        if command.startswith("run.py "):
            program = PROGRAMS.get(command.split()[1])
            own = (ROOT / "run.py").read_text(encoding="utf-8")
            return own + (self.sources(f"-m {program}") if program else "")
        if command.endswith(".py"):
            return (ROOT / command).read_text(encoding="utf-8")
        path = ROOT.joinpath(*command.removeprefix("-m ").split("."))
        files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else [*path.glob("*.py")]
        return "".join(file.read_text(encoding="utf-8") for file in files)


class LinksTest(unittest.TestCase):
    def test_every_link_leads_to_a_file_and_its_heading(self) -> None:
        for name, page in PAGES.items():
            for target in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page):
                path, _, anchor = target.partition("#")
                found = (ROOT / name).parent.joinpath(path) if path else ROOT / name
                with self.subTest(f"{name}: {target}"):
                    self.assertTrue(found.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(found.read_text(encoding="utf-8")))

    def test_every_file_that_is_named_exists(self) -> None:
        for name, page in PAGES.items():
            paths = re.findall(r"(?<![\w/.:-])((?:app|course|tools|unit_test|images|docs)/[\w./-]*[\w/])", page)
            for path in set(paths) - CREATED:
                with self.subTest(f"{name}: {path}"):
                    # The path is relative to the project's root or, in a link, to the page.
                    self.assertTrue((ROOT / path).exists() or (ROOT / name).parent.joinpath(path).exists())


class ApiTest(unittest.TestCase):
    def test_it_lists_the_routes_of_the_service_and_no_others(self) -> None:
        settings = config.load_config({})
        app = app_server.create_app(settings, model_runner.ModelRunner(settings))
        served = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
        listed = set(re.findall(r"`((?:GET|POST) /[^`]*)`", section(API, "## Routes")))
        self.assertEqual(listed, served | UNDESCRIBED)

    def test_it_has_each_error_with_its_status_and_no_other(self) -> None:
        listed = {(int(status), code.strip("`")) for status, code, _ in rows(section(API, "## Errors"))}
        self.assertEqual(listed, {(error.status, error.code) for error in errors.ServiceError.__subclasses__()})

    def test_its_fields_are_those_of_an_answer(self) -> None:
        answers = section(API, "## Answers")
        fields = {name for row in rows(answers) for name in re.findall("`([^`]+)`", row[0])}
        self.assertEqual(fields, set(PredictSuccess.model_fields) - {"status"})
        (example,) = re.findall(r"```json\n(.*?)```", answers, re.DOTALL)
        self.assertEqual(set(json.loads(example)), set(PredictSuccess.model_fields) - {"explanation"})
        explained = section(API, "## Where the model looked")
        (example,) = re.findall(r"```json\n(.*?)```", explained, re.DOTALL)
        listed = {row[0].strip("`") for row in rows(explained)}
        self.assertEqual([set(json.loads(example)["explanation"]), listed], [set(Explanation.model_fields)] * 2)
        (failed,) = re.findall(r"```json\n(.*?)```", section(API, "## Errors"), re.DOTALL)
        self.assertEqual(set(json.loads(failed)), set(Failure.model_fields))
        self.assertEqual(json.loads(failed)["msg"], errors.InvalidBase64("base64_invalid").text("en"))


class ConfigurationTest(unittest.TestCase):
    def test_it_has_every_variable_of_the_environment_with_its_default(self) -> None:
        table = rows(section(CONFIGURATION, "## Environment variables"))
        defaults = {row[0].strip("`"): row[1].strip("`") for row in table}
        self.assertEqual(set(defaults), {*config.ENVIRONMENT, "SERVICE_CONFIG"})
        settings = yaml.safe_load(config.CONFIG_FILE.read_text(encoding="utf-8"))
        for variable, (*part, key) in config.ENVIRONMENT.items():
            with self.subTest(variable):
                documented = None if defaults[variable] == "none" else yaml.safe_load(defaults[variable])
                value = (settings[part[0]] if part else settings)[key]
                self.assertEqual(documented, value if value != [] else None)

    def test_it_has_every_key_of_the_settings_with_its_default(self) -> None:
        settings = yaml.safe_load(config.CONFIG_FILE.read_text(encoding="utf-8"))
        expected = {
            f"{name}.{key}" if isinstance(value, dict) else name: one
            for name, value in settings.items()
            for key, one in (value.items() if isinstance(value, dict) else [("", value)])
        }
        documented = {}
        for heading in ("## Model", "## model_server", "## server", "## limits"):
            for names, defaults, *_ in rows(section(CONFIGURATION, heading)):
                keys, values = re.findall("`([^`]+)`", names), re.findall("`([^`]+)`", defaults)
                # One default in the row of several keys applies to all of them.
                values = values * len(keys) if len(values) == 1 else values
                documented |= {key: yaml.safe_load(value) for key, value in zip(keys, values, strict=True)}
        self.assertEqual(documented, expected)

    def test_every_variable_and_every_limit_that_a_page_names_is_there(self) -> None:
        keys = set(re.findall(r"`((?:limits|model_server|server|picture)\.[a-z_]+)`", CONFIGURATION))
        for name, page in PAGES.items():
            # The section "Renamed" names former keys too.
            page = page.partition("### Renamed")[0]
            with self.subTest(name):
                variables = set(re.findall(r"\bSERVICE_[A-Z_]+\b", page))
                self.assertLessEqual(variables, {*config.ENVIRONMENT, "SERVICE_CONFIG", "SERVICE_"})
                self.assertLessEqual(set(re.findall(r"`((?:limits|model_server)\.(?!py)[a-z_]+)`", page)), keys)


if __name__ == "__main__":
    unittest.main()
