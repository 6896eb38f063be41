"""Tests that the running containers are isolated, limited, healthy, and restart after a crash: ``run.py e2e``."""

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from unit_test.utils import URL, predict_image

# The Compose command line for the running pair, in the syntax of a shell.
COMPOSE = shlex.split(os.environ.get("TEST_COMPOSE", ""))
ROOT = Path(__file__).parents[2]
SERVICES = ("model_service", "preprocess_service")
BACK_SECONDS = 90
# The largest size that the project promises for the image of the preprocess service, in bytes.
LARGEST_IMAGE = 350_000_000


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def container(service: str) -> str:
    return output(*COMPOSE, "ps", "-q", service)


def inspect(service: str) -> Any:
    return json.loads(output("docker", "inspect", container(service)))[0]


def run_inside(service: str, program: str) -> str:
    """Run a Python program in the container, as the container's user, and return what it prints."""
    return output("docker", "exec", container(service), "python", "-c", program)


@unittest.skipUnless(COMPOSE, "NO CONTAINERS TO LOOK AT: python run.py e2e starts them")
class ContainersTest(unittest.TestCase):
    def wait_until_healthy(self, service: str) -> None:
        end = time.monotonic() + BACK_SECONDS
        while (health := inspect(service)["State"]["Health"]["Status"]) != "healthy":
            self.assertLess(time.monotonic(), end, f"{service} is {health}")
            time.sleep(0.2)

    def test_no_process_is_roots_or_has_or_can_get_any_capability(self) -> None:
        program = """
import glob
for path in glob.glob("/proc/[0-9]*/status"):
    lines = dict(line.split(":", 1) for line in open(path))
    print(lines["Uid"].split()[0], *(lines[key].strip("0\\t\\n") or 0 for key in ("CapEff", "CapPrm", "CapBnd")),
          lines["NoNewPrivs"].strip())
"""
        for service in SERVICES:
            with self.subTest(service):
                processes = run_inside(service, program).splitlines()
                self.assertGreaterEqual(len(processes), 3)  # init, the server and this process
                self.assertEqual(set(processes), {"1000 0 0 0 1"})

    def test_their_file_systems_are_read_only(self) -> None:
        program = """
import errno
for folder in ("/", "/packages", "/usr/bin", "/home"):
    try:
        open(folder + "/written", "w")
    except OSError as exc:
        print(errno.errorcode[exc.errno])
"""
        for service in SERVICES:
            with self.subTest(service):
                self.assertEqual(run_inside(service, program).split(), ["EROFS"] * 4)

    def test_nothing_can_be_installed_in_them(self) -> None:
        program = """
import importlib.util, os, shutil
for name in ("pip", "setuptools", "wheel", "ensurepip", "pkg_resources"):
    if importlib.util.find_spec(name):
        print("module", name)
print(*filter(None, map(shutil.which, ("pip", "pip3", "easy_install", "uv"))), end="")
for folder, folders, files in os.walk("/"):
    if folder in ("/proc", "/sys"):
        folders.clear()
    for name in (*folders, *files):
        if name in ("pip", "setuptools", "ensurepip") or name.endswith(".whl"):
            print(folder, name)
"""
        for service in SERVICES:
            with self.subTest(service):
                self.assertEqual(run_inside(service, program), "")

    def test_a_model_that_reads_files_is_refused(self) -> None:
        """Run in the server's own container with its own flags, on a copy of its model in its scratch folder."""
        program = """
import os, re, shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, "/server")
from model_service.lifecycle.versions import find_versions
from model_service.models.saved_model import read_message
shipped = max(find_versions("M", Path("/models/CAT-DOG")).items())[1][0]
folder = Path("/tmp/hostile/1")
folder.mkdir(parents=True)
message = read_message(shipped)
message.meta_graphs[0].graph_def.node.add(name="passwords", op="ReadFile")
(folder / "saved_model.pb").write_bytes(message.SerializeToString())
for path in Path("/proc").glob("[0-9]*/cmdline"):
    words = path.read_bytes().decode().split("\\0")
    if "/server/model_service/model_server.py" in words and words[0] != "sh":
        flags = [word for word in words if word.startswith("--")]
flags += ["--model_base_path=/tmp/hostile", "--port=18500", "--rest_api_port=0"]
done = subprocess.run([sys.executable, "/server/model_service/model_server.py", *flags], capture_output=True, text=True,
                      timeout=120)
shutil.rmtree("/tmp/hostile")
print(done.returncode, done.stderr)
"""
        ended = run_inside("model_service", program)
        self.assertRegex(ended, r'(?s)^255 .*--refuse_unsafe_operations: the graph has the operation "ReadFile"')

    def test_the_models_scratch_space_is_small_and_runs_nothing(self) -> None:
        program = "import os; s = os.statvfs('/tmp'); print(s.f_blocks * s.f_frsize, bool(s.f_flag & os.ST_NOEXEC))"
        self.assertEqual(run_inside("model_service", program), f"{64 * 2**20} True")

    def test_memory_processor_time_processes_and_logs_are_limited(self) -> None:
        for service in SERVICES:
            with self.subTest(service):
                host = inspect(service)["HostConfig"]
                self.assertLessEqual(host["Memory"], 700 * 2**20)
                self.assertEqual((host["CpuQuota"], host["PidsLimit"]), (200_000, 256))
                self.assertEqual(host["LogConfig"]["Config"], {"max-size": "10m", "max-file": "3"})
                self.assertGreater(host["Memory"], 0)
                ulimits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]}
                self.assertEqual(ulimits, {"core": (0, 0), "nofile": (4096, 4096)})

    def test_both_services_see_their_share_of_the_processors(self) -> None:
        for service, folder in (("model_service", "/server"), ("preprocess_service", "/project/app")):
            with self.subTest(service):
                program = (
                    f"import sys; sys.path.insert(0, {folder!r}); "
                    "from serving_common import cpu_quota; print(cpu_quota.cpu_quota())"
                )
                self.assertEqual(run_inside(service, program), "2.0")

    def test_only_the_preprocess_service_has_a_port_and_only_on_this_machine(self) -> None:
        self.assertEqual(inspect("model_service")["HostConfig"]["PortBindings"], {})
        self.assertEqual(output("docker", "port", container("model_service")), "")
        published = inspect("preprocess_service")["HostConfig"]["PortBindings"]
        self.assertEqual(list(published), ["7998/tcp"])
        self.assertEqual([binding["HostIp"] for binding in published["7998/tcp"]], ["127.0.0.1"])

    def test_the_model_server_is_reached_from_the_preprocess_container(self) -> None:
        program = "import urllib.request as r; print(r.urlopen('http://model_service:8501/readyz', timeout=10).status)"
        self.assertEqual(run_inside("preprocess_service", program), "200")

    def test_there_is_no_way_out_for_the_model_server(self) -> None:
        """The preprocess service is on both networks. The model server reaches only its address on the internal one."""
        networks = inspect("preprocess_service")["NetworkSettings"]["Networks"]
        addresses = {name.rpartition("_")[2]: network["IPAddress"] for name, network in networks.items()}
        self.assertEqual(set(addresses), {"internal", "edge"})
        connect = """
import socket
try:
    socket.create_connection((%r, 7998), timeout=3)
    print("connected")
except OSError as exc:
    print(type(exc).__name__)
"""
        self.assertEqual(run_inside("model_service", connect % addresses["internal"]), "connected")
        self.assertIn(run_inside("model_service", connect % addresses["edge"]), ("TimeoutError", "OSError"))
        (network,) = inspect("model_service")["NetworkSettings"]["Networks"]
        self.assertEqual(output("docker", "network", "inspect", "--format={{.Internal}}", network), "true")

    def test_both_are_healthy_and_say_so_by_readyz(self) -> None:
        for service in SERVICES:
            with self.subTest(service):
                self.wait_until_healthy(service)
                self.assertIn("/readyz", " ".join(inspect(service)["Config"]["Healthcheck"]["Test"]))

    def run_model_server(self, *options: str, arguments: Sequence[str] = ()) -> str:
        """Start the image of the model server without Compose, as one starts TensorFlow Serving's; return its name."""
        name = f"cat-dog-e2e-{secrets.token_hex(4)}"
        image = inspect("model_service")["Image"]
        self.addCleanup(subprocess.run, ["docker", "rm", "--force", name], capture_output=True)
        output("docker", "run", "--detach", f"--name={name}", *options, image, *arguments)
        return name

    def rest_answer(self, name: str, port: int, path: str) -> Any:
        """Wait until the container answers this path of its REST API with 200, and return the answer."""
        address = output("docker", "port", name, f"{port}/tcp").splitlines()[0]
        end = time.monotonic() + BACK_SECONDS
        while True:
            with contextlib.suppress(requests.RequestException):
                answer = requests.get(f"http://{address}{path}", timeout=10)
                if answer.status_code == 200:
                    return answer.json()
            self.assertLess(time.monotonic(), end, output("docker", "logs", name))
            time.sleep(0.2)

    def test_the_line_for_tensorflow_servings_image_runs_the_model_servers(self) -> None:
        """Also the arguments behind the image's name count, and SIGTERM reaches the server."""
        mount = f"--volume={ROOT / 'prev_trained_models' / 'CAT-DOG'}:/models/NAME"
        ports = ("--publish=127.0.0.1::8500", "--publish=127.0.0.1::8501")
        name = self.run_model_server(*ports, mount, "--env=MODEL_NAME=NAME")
        (version,) = self.rest_answer(name, 8501, "/v1/models/NAME")["model_version_status"]
        self.assertEqual(version["state"], "AVAILABLE")
        self.assert_ends(name, 0)

    def test_the_last_of_two_flags_counts_and_the_base_path_may_be_another(self) -> None:
        mount = f"--volume={ROOT / 'prev_trained_models'}:/mnt/all"
        base_path = ("--env=MODEL_BASE_PATH=/mnt/all", "--read-only", "--tmpfs=/tmp")
        arguments = ("--rest_api_port=9001", "--model_name=OTHER")
        name = self.run_model_server("--publish=127.0.0.1::9001", mount, *base_path, arguments=arguments)
        self.assertTrue(self.rest_answer(name, 9001, "/v1/models/OTHER"))

    def test_it_can_be_stopped_while_it_starts(self) -> None:
        """Process 1 has no default action for SIGTERM: without a handler Docker would have to kill it."""
        # Nobody writes to this pipe, so the server waits for its configuration.
        script = "mkfifo /tmp/pipe && exec /usr/bin/tensorflow_model_server --model_config_file=/tmp/pipe"
        name = self.run_model_server("--entrypoint=sh", arguments=("-c", script))
        handled = "print(next(line.split()[1] for line in open('/proc/1/status') if line.startswith('SigCgt')))"
        end = time.monotonic() + BACK_SECONDS
        while not int(output("docker", "exec", name, "python", "-c", handled), 16) >> signal.SIGTERM - 1 & 1:
            self.assertLess(time.monotonic(), end, "no handler for SIGTERM")
        self.assert_ends(name, 128 + signal.SIGTERM)

    def assert_ends(self, name: str, status: int) -> None:
        output("docker", "stop", "--time=60", name)
        self.assertEqual(int(output("docker", "inspect", "--format={{.State.ExitCode}}", name)), status)

    def test_a_service_that_crashes_comes_back_and_the_next_request_is_answered(self) -> None:
        # Kill it from inside: Docker does not restart a container that was killed by Docker itself.
        program = """
import glob, os
for path in glob.glob("/proc/[0-9]*/cmdline"):
    if any(name in open(path).read() for name in ("model_server.py", "app_server.py")) and path.split("/")[2] != "1":
        os.kill(int(path.split("/")[2]), 9)
"""
        for service in SERVICES:
            with self.subTest(service):
                before = inspect(service)["RestartCount"]
                # The program ends with its container, so its exit status does not matter.
                subprocess.run(["docker", "exec", container(service), "python", "-c", program], capture_output=True)
                self.wait_for_restart(service, before)
                self.wait_until_healthy("preprocess_service")
                self.assertEqual(predict_image("cat_1.jpg")["pet_type"], "CAT")

    def wait_for_restart(self, service: str, before: int) -> None:
        end = time.monotonic() + BACK_SECONDS
        while inspect(service)["RestartCount"] == before:
            self.assertLess(time.monotonic(), end, f"{service} was not restarted")
            time.sleep(0.2)
        # What /readyz says may be a second old, from before the crash.
        time.sleep(1.5)
        while not self.is_ready():
            self.assertLess(time.monotonic(), end, f"{service} did not come back")
            time.sleep(0.2)

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{URL}/readyz", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def test_the_image_that_faces_the_network_is_small(self) -> None:
        size = int(output("docker", "image", "inspect", "--format={{.Size}}", inspect("preprocess_service")["Image"]))
        self.assertLessEqual(size, LARGEST_IMAGE)


if __name__ == "__main__":
    unittest.main()
