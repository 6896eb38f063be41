"""Tests the container files, also TensorFlow Serving's, as far as possible without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml

from model_service import flags
from model_service.lifecycle import model_config
from model_service.observability import metrics
from preprocess_service.app import config as service_config
from preprocess_service.app.api.course import site
from tools.system_packages import find, why_skipped
from unit_test.model_service.fixtures import shared_server

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
SERVE_MODELS = APP / "model_service" / "serve_models.sh"
COMPOSE_FILES = (APP / "docker-compose.yml", APP / "docker-compose.embedded.yml")
# Fields of TensorFlow Serving's session_bundle_config.proto whose values are wrapper messages.
BATCHING_PARAMETERS = {
    *("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name"),
    *("enable_large_batch_splitting", "max_execution_batch_size"),
}
MONITORING_FILE = APP / "docker-compose.monitoring.yml"


def compose(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["services"]


def instruction(dockerfile: str, name: str) -> list[str]:
    """Return the words of an instruction in its JSON form."""
    text = (APP / dockerfile).read_text(encoding="utf-8")
    (found,) = re.findall(rf"{name}\b[^\n]*?(?:\\\n\s*CMD )?(\[.*\])$", text, re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def entrypoint(dockerfile: str, *added: str, **environment: str) -> list[str]:
    """Return the arguments that the server gets from the image's entrypoint and the arguments of `docker run`."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "server")
        program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
        program.chmod(0o700)
        words = [
            re.sub(r"\S+/serve_models\.sh", str(SERVE_MODELS), word).replace(
                "/usr/bin/tensorflow_model_server", str(program)
            )
            for word in instruction(dockerfile, "^ENTRYPOINT")
        ]
        return subprocess.run(
            [shutil.which(Path(words[0]).name) or words[0], *words[1:], *added],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()


def image_flags(*added: str, **environment: str) -> flags.Flags:
    """Return the flags of the image of the embedded server, as it parses them."""
    names = {"MODEL_BASE_PATH": "/models", "MODEL_NAME": "M"}
    return flags.parse(entrypoint("model_service/Dockerfile.embedded", *added, **names | environment))


class ComposeTest(unittest.TestCase):
    def test_every_container_is_closed_and_limited(self) -> None:
        """This includes Prometheus and Grafana."""
        for path in (*COMPOSE_FILES, MONITORING_FILE):
            for name, service in compose(path).items():
                with self.subTest(f"{path.name}: {name}"):
                    self.assertTrue(service["read_only"])
                    self.assertEqual(service["cap_drop"], ["ALL"])
                    self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                    limits = {"mem_limit", "cpu_quota", "pids_limit", "ulimits", "logging", "stop_grace_period"}
                    self.assertLessEqual(limits, set(service))
                    self.assertTrue({"core", "nofile"} <= set(service["ulimits"]))
                    self.assertEqual(service["logging"]["options"], {"max-size": "10m", "max-file": "3"})
                    ports = service.get("ports", [])
                    self.assertTrue(all(port.startswith("127.0.0.1:") for port in ports), ports)
                    self.assertEqual((service["restart"], service["init"]), ("unless-stopped", True))

    def test_what_prometheus_keeps_has_a_limit(self) -> None:
        command = compose(MONITORING_FILE)["prometheus"]["command"]
        self.assertIn("--storage.tsdb.retention.size=1GB", command)

    def test_the_model_server_is_on_the_internal_network_alone(self) -> None:
        for path in COMPOSE_FILES:
            with self.subTest(path.name):
                model = compose(path)["model_service"]
                self.assertEqual(model["networks"], ["internal"])
                self.assertNotIn("ports", model)
                networks = yaml.safe_load(path.read_text(encoding="utf-8"))["networks"]
                self.assertEqual(networks, {"internal": {"internal": True}, "edge": {}})

    def test_the_preprocess_service_is_the_same_beside_either_model_server(self) -> None:
        one, other = (compose(path)["preprocess_service"] for path in COMPOSE_FILES)
        self.assertEqual(one | {"pids_limit": 0}, other | {"pids_limit": 0})

    def test_every_setting_that_is_for_whoever_runs_it_is_passed_on(self) -> None:
        own = {"SERVICE_HOST", "SERVICE_PORT"}  # the container's address, and its published port
        for path in COMPOSE_FILES:
            with self.subTest(path.name):
                passed = {name for name in compose(path)["preprocess_service"]["environment"] if "OTEL" not in name}
                self.assertEqual(passed, set(service_config.ENVIRONMENT) - own)

    def test_the_stack_for_swarm_has_the_limits_of_the_compose_file_and_no_key_that_swarm_refuses(self) -> None:
        stack = compose(APP / "docker-stack.yml")
        for name, service in compose(APP / "docker-compose.embedded.yml").items():
            with self.subTest(name):
                self.assertEqual(
                    {"mem_limit", "cpu_quota", "depends_on", "build", "tmpfs", "security_opt"} & set(stack[name]), set()
                )
                limits = stack[name]["deploy"]["resources"]["limits"]
                self.assertEqual(limits["memory"].lower(), service["mem_limit"])
                self.assertEqual(float(limits["cpus"]), service["cpu_quota"] / 100_000)
                self.assertEqual(stack[name]["deploy"]["replicas"], 2)
                shared = ("read_only", "init", "cap_drop", "ulimits", "logging", "networks", "stop_grace_period")
                self.assertEqual(*({key: one[key] for key in shared} for one in (stack[name], service)))

    def test_tensorflow_serving_is_told_how_many_cores_its_quota_is_worth(self) -> None:
        model = compose(APP / "docker-compose.yml")["model_service"]
        self.assertEqual(model["environment"]["MODEL_CORES"], model["cpu_quota"] / 100_000)

    def test_there_is_time_to_finish_what_is_under_way(self) -> None:
        for path in COMPOSE_FILES:
            preprocess = compose(path)["preprocess_service"]
            config = yaml.safe_load((APP / "preprocess_service/app/config.yaml").read_text(encoding="utf-8"))
            with self.subTest(path.name):
                seconds = float(preprocess["stop_grace_period"].removesuffix("s"))
                self.assertGreater(
                    seconds, config["limits"]["deadline_seconds"] + service_config.KUBERNETES_DRAIN_SECONDS
                )

    def test_there_are_files_enough_for_all_connections(self) -> None:
        config = yaml.safe_load((APP / "preprocess_service/app/config.yaml").read_text(encoding="utf-8"))
        for path in COMPOSE_FILES:
            with self.subTest(path.name):
                files = compose(path)["preprocess_service"]["ulimits"]["nofile"]
                self.assertGreater(files, 2 * config["limits"]["connections"])

    @unittest.skipUnless(find("docker-compose"), why_skipped("docker-compose"))
    def test_compose_understands_its_files(self) -> None:
        for path in COMPOSE_FILES:
            with self.subTest(path.name):
                done = subprocess.run(
                    ["docker-compose", "-f", path, "config", "--quiet"], capture_output=True, text=True
                )
                self.assertEqual(done.returncode, 0, done.stderr)


class DockerfileTest(unittest.TestCase):
    def test_the_model_server_of_the_image_loads_no_model_that_could_do_more_than_compute(self) -> None:
        self.assertTrue(image_flags().refuse_unsafe_operations)

    def test_no_client_changes_the_models_of_the_image(self) -> None:
        self.assertFalse(image_flags().allow_reload_requests)

    def test_no_image_runs_as_root(self) -> None:
        for path in APP.glob("*/Dockerfile*"):
            with self.subTest(path.name):
                users = re.findall(r"^USER (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                self.assertEqual(users[-1:], ["1000:1000"])

    def test_every_flag_that_tensorflow_serving_gets_is_one_that_the_embedded_server_takes_too(self) -> None:
        names = {"MODEL_BASE_PATH": "/models", "MODEL_NAME": "CAT-DOG", "MODEL_CORES": "2"}
        for dockerfile in ("model_service/Dockerfile", "model_service/Dockerfile.embedded"):
            with self.subTest(dockerfile):
                parsed = flags.parse(entrypoint(dockerfile, **names))
                self.assertEqual(parsed.warnings, ())
                self.assertEqual((parsed.port, parsed.rest_api_port, parsed.model_name), (8500, 8501, "CAT-DOG"))
                self.assertEqual(parsed.model_base_path, "/models/CAT-DOG")
                self.assertEqual(parsed.monitoring_config_file, "/config/monitoring.config")

    @unittest.skipIf(sys.platform == "win32", "runs in a Linux image")
    def test_several_models_are_listed_in_a_file_and_served(self) -> None:
        temporary = self.enterContext(tempfile.TemporaryDirectory())
        parsed = image_flags(MODEL_NAME="CAT-DOG, BIRDS", TMPDIR=temporary)
        self.assertEqual(Path(parsed.model_config_file).parent, Path(temporary))
        listed = model_config.read(parsed.model_config_file).model_config_list.config
        self.assertEqual(
            [(one.name, one.base_path) for one in listed],
            [("CAT-DOG", "/models/CAT-DOG"), ("BIRDS", "/models/BIRDS")],
        )

    @unittest.skipIf(sys.platform == "win32", "runs in a Linux image")
    def test_of_a_model_with_a_canary_two_versions_are_served(self) -> None:
        temporary = self.enterContext(tempfile.TemporaryDirectory())
        for canary, expected in (("A/2=10%", [2, 0]), ("A/2=10%, B/1=5%", [2, 2])):
            with self.subTest(canary):
                parsed = image_flags(MODEL_NAME="A,B", TMPDIR=temporary, SERVICE_CANARY=canary)
                listed = model_config.read(parsed.model_config_file).model_config_list.config
                self.assertEqual([one.model_version_policy.latest.num_versions for one in listed], expected)
        self.assertTrue(image_flags(MODEL_NAME="A", TMPDIR=temporary, SERVICE_CANARY="A/2=10%").model_config_file)

    @unittest.skipIf(sys.platform == "win32", "runs in a Linux image")
    def test_the_entrypoint_fills_in_the_names_and_passes_on_what_docker_run_adds(self) -> None:
        words = entrypoint(
            "model_service/Dockerfile", "--enable_batching", "--port=9000", MODEL_NAME="M", MODEL_CORES="3"
        )
        self.assertLess({"--model_base_path=/models/M", "--tensorflow_inter_op_parallelism=3"}, set(words))
        self.assertEqual(words[-2:], ["--enable_batching", "--port=9000"])

    def test_the_embedded_image_takes_the_variables_of_tensorflow_servings(self) -> None:
        names = {"MODEL_BASE_PATH": "/mnt/all models", "MODEL_NAME": "my $(model)"}
        words = entrypoint("model_service/Dockerfile.embedded", **names)
        self.assertLess({"--model_name=my $(model)", "--model_base_path=/mnt/all models/my $(model)"}, set(words))
        text = (APP / "model_service/Dockerfile.embedded").read_text(encoding="utf-8")
        self.assertRegex(text, r"(?m)^ENV MODEL_BASE_PATH=/models MODEL_NAME=CAT-DOG$")

    def test_of_two_flags_the_one_that_docker_run_adds_counts(self) -> None:
        parsed = image_flags("--port=9000", "--rest_api_port=0", "--model_name=other name", "--exit_when_stuck=false")
        self.assertEqual((parsed.port, parsed.rest_api_port, parsed.model_name), (9000, 0, "other name"))
        self.assertFalse(parsed.exit_when_stuck)

    @unittest.skipIf(sys.platform == "win32", "runs in a Linux image")
    def test_tensorflow_servings_health_is_the_models_state(self) -> None:
        """Run its line of bash against the embedded server, which answers like TensorFlow Serving."""
        shell, option, line = instruction("model_service/Dockerfile", "^HEALTHCHECK")
        server = shared_server("slow")
        for port, model, status in (
            (server.rest_port, "CAT-DOG", 0),
            (server.rest_port, "OTHER", 1),
            (server.rest_port, "CAT-DOG,CAT-DOG", 0),
            (server.rest_port, "CAT-DOG,OTHER", 1),
            (server.rest_port, "OTHER,CAT-DOG", 1),
            (1, "CAT-DOG", 1),
        ):
            with self.subTest(f"{port} {model}"):
                command = [shell, option, line.replace("8501", str(port))]
                done = subprocess.run(command, env=os.environ | {"MODEL_NAME": model}, capture_output=True, timeout=30)
                self.assertEqual(done.returncode, status)

    @unittest.skipIf(sys.platform == "win32", "runs in a Linux image")
    def test_a_model_that_failed_as_unavailable_does_not_pass_for_available(self) -> None:
        _, _, line = instruction("model_service/Dockerfile", "^HEALTHCHECK")
        search = line.partition("&& grep ")[2].partition("<&3")[0]
        for answer, status in (('"state": "AVAILABLE",', 0), ('"state": "END", "error_code": "UNAVAILABLE"', 1)):
            with self.subTest(answer):
                done = subprocess.run(["bash", "-c", f"grep {search}"], input=answer, text=True)
                self.assertEqual(done.returncode, status)


class ConfigFilesTest(unittest.TestCase):
    def test_the_monitoring_file_turns_the_metrics_on(self) -> None:
        path = metrics.read_path(str(APP / "model_service/monitoring.config"))
        self.assertEqual(path, metrics.DEFAULT_PATH)

    def test_the_batching_file_says_what_tensorflow_serving_takes(self) -> None:
        text = re.sub("#.*", "", (APP / "model_service/batching.config").read_text(encoding="utf-8"))
        found = dict(re.findall(r"^(\w+) \{ value: (\w+) \}$", text, re.MULTILINE))
        # All of the file was read, and every field belongs to TensorFlow Serving's BatchingParameters.
        self.assertEqual(len(found), len(text.split("}")) - 1)
        self.assertLessEqual(found.keys(), BATCHING_PARAMETERS)
        config = yaml.safe_load((APP / "preprocess_service/app/config.yaml").read_text(encoding="utf-8"))
        self.assertGreaterEqual(int(found["max_batch_size"]), config["limits"]["batch_items"])

    def test_the_preprocess_services_image_has_the_course_where_the_service_looks_for_it(self) -> None:
        folder = site.FOLDER.relative_to(ROOT).as_posix()
        dockerfile = (APP / "preprocess_service/Dockerfile").read_text(encoding="utf-8")
        self.assertIn(f"\nCOPY {folder} /project/{folder}\n", dockerfile)
        sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        self.assertLess(sent.index("*"), sent.index(f"!{folder}"))

    def test_the_embedded_server_has_the_monitoring_file_and_is_given_it(self) -> None:
        text = (APP / "model_service/Dockerfile.embedded").read_text(encoding="utf-8")
        self.assertRegex(text, r"COPY .*app/model_service/monitoring.config.* /config/")
        self.assertIn("=/config/monitoring.config", text)
        # The embedded server does not use this file.
        self.assertNotIn("batching", text)


if __name__ == "__main__":
    unittest.main()
