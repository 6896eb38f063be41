"""Tests `run.py serve` with real processes: all of them always end, and a taken port names the program that has it."""

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import psutil

from launcher import Problem, ports, services
from model_service.lifecycle import model_config
from unit_test.processes import Running, answers, free_port, running

ROOT = Path(__file__).parents[2]
# Generous: a busy machine is slow.
PATIENCE_S = 60
# run.py in this environment, without its check of the installed packages.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import run
from launcher import ports, services
run.set_up = lambda layer, command: None
run.python = ports.python = services.python = lambda: sys.executable
sys.exit(run.main(sys.argv[1:]))
"""
# A supervisor that waits 1 s instead of 10 s.
SUPERVISE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from launcher import supervise
supervise.STOP_SECONDS = 1
sys.exit(supervise.main())
"""
LISTENER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""


def command(*arguments: str) -> list[str]:
    """Return the command line of run.py with these arguments."""
    return [sys.executable, "-c", PROGRAM, *arguments]


def serve(*options: str) -> list[str]:
    return command("serve", *options)


def wait_for(condition: Callable[[], bool]) -> bool:
    """Return whether `condition` becomes true in time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def alive(processes: list[psutil.Process]) -> list[str]:
    """Return the command lines of those that still run."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


class ServeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.ports = [free_port() for _ in range(3)]

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[Running, list[psutil.Process]]]:
        """Yield the pair under run.py, and all its processes. Processes that still run at the end are killed."""
        http_port, grpc_port, rest_port = self.ports
        command = serve(f"--port={http_port}", f"--grpc-port={grpc_port}", f"--rest-port={rest_port}")
        family: list[psutil.Process] = []
        try:
            with running(
                command, lambda: answers(f"http://127.0.0.1:{http_port}/readyz"), timeout=PATIENCE_S
            ) as started:
                family += psutil.Process(started.process.pid).children(recursive=True)
                names = " ".join(alive(family))
                self.assertIn("app_server.py", names)
                self.assertIn(f"model_server.py --port={grpc_port} --rest_api_port={rest_port}", names)
                yield started, family
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def check_that_all_end(self, started: Running, family: list[psutil.Process]) -> None:
        self.assertTrue(wait_for(lambda: started.process.poll() is not None), started.output())
        self.assertTrue(wait_for(lambda: not alive(family)), alive(family))

    @unittest.skipIf(os.name == "nt", "Windows has no such signals")
    def test_signals_that_come_again_and_again_leave_nothing_behind(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number), self.serving() as (started, family):
                while started.process.poll() is None:
                    started.process.send_signal(number)
                    time.sleep(0.02)
                # It waited for its services and ends with 130. A signal after Python's shutdown ends it with -number.
                self.assertIn(started.process.returncode, (130, -number))
                self.assertEqual(alive(family), [])
                self.assertNotIn("Traceback", started.output())

    def test_nothing_goes_on_after_run_py_was_killed(self) -> None:
        with self.serving() as (started, family):
            started.process.kill()
            self.check_that_all_end(started, family)

    def test_all_ends_when_a_service_does(self) -> None:
        with self.serving() as (started, family):
            (model,) = [one for one in family if one.cmdline()[1].endswith("model_server.py")]
            model.kill()
            self.check_that_all_end(started, family)
            self.assertEqual(started.process.returncode, 1)
            self.assertIn("a service has ended", started.output())


class OwnFilesTest(unittest.TestCase):
    def test_training_and_evaluation_read_the_callers_folder_and_import_nothing_from_it(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "my photos", "cat").mkdir(parents=True)
            # Python would find these first if it looked for modules in the folder that it runs in.
            for name in ("tools", "numpy"):
                Path(folder, f"{name}.py").write_text("raise SystemExit('wrong module')", "utf-8")
            for words, said in (
                (("train", "my photos", "--name", "a"), "my photos has only one class"),
                (("evaluate", "my photos", "--model", "CAT-DOG"), "the folders of the classes have no photos"),
            ):
                with self.subTest(words[0]):
                    done = subprocess.run(
                        command(*words), cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S
                    )
                    self.assertEqual(done.returncode, 2)
                    self.assertIn(said, done.stderr)


class SuperviseTest(unittest.TestCase):
    def start(self, program: str) -> subprocess.Popen[bytes]:
        """Start a program under a supervisor. It has started when it has written a line."""
        folder = self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        Path(folder, "service.py").write_text(program, encoding="utf-8")
        command = [sys.executable, "-c", SUPERVISE, str(Path(folder, "service.py"))]
        process = self.enterContext(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        self.addCleanup(process.kill)
        assert process.stdout
        self.assertTrue(process.stdout.readline())
        return process

    def test_its_exit_code_is_the_services(self) -> None:
        process = self.start("import sys; print('up', flush=True); sys.exit(7)")
        self.assertEqual(process.wait(PATIENCE_S), 7)

    def test_a_service_that_does_not_end_when_asked_is_killed(self) -> None:
        process = self.start(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
        )
        (service,) = psutil.Process(process.pid).children()
        assert process.stdin
        process.stdin.close()
        self.assertGreater(process.wait(PATIENCE_S), 0)
        self.assertEqual(alive([service]), [])

    @unittest.skipIf(os.name == "nt", "Windows has no such signal")
    def test_sigterm_ends_the_service(self) -> None:
        process = self.start("import time; print('up', flush=True); time.sleep(600)")
        (service,) = psutil.Process(process.pid).children()
        process.terminate()
        self.assertEqual(process.wait(PATIENCE_S), 128 + signal.SIGTERM)
        self.assertEqual(alive([service]), [])


class PortsTest(unittest.TestCase):
    def test_a_taken_port_names_the_program_and_how_to_end_it(self) -> None:
        command = [sys.executable, "-c", LISTENER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            port = int(holder.stdout.readline())
            for option in ("--port", "--grpc-port", "--rest-port"):
                others = {name: free_port() for name in ("--port", "--grpc-port", "--rest-port")} | {option: port}
                with self.subTest(option):
                    done = subprocess.run(
                        serve(*(f"{name}={value}" for name, value in others.items())),
                        capture_output=True,
                        text=True,
                        timeout=PATIENCE_S,
                    )
                    self.assertEqual(done.returncode, 1)
                    self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                    self.assertIn(f"port {port} is used by process {holder.pid} (", done.stderr)
                    self.assertIn(Path(sys.executable).name, done.stderr)
                    end = "taskkill /F /PID" if os.name == "nt" else "kill"
                    self.assertIn(f"End it: {end} {holder.pid} - or use another port: {option} PORT", done.stderr)
            holder.communicate("\n")

    def test_a_port_that_is_taken_after_the_first_check_is_named_with_the_option_of_run_py(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as holder, self.ended() as ended:
            port = holder.getsockname()[1]
            with self.assertRaisesRegex(Problem, f"port {port} is used .* or use another port: --rest-port PORT"):
                services._wait_for_last(port, {"--grpc-port": free_port(), "--rest-port": port}, [ended])
            with self.assertRaisesRegex(Problem, "a service could not start"):
                services._wait_for_last(port, {"--grpc-port": free_port()}, [ended])

    @contextlib.contextmanager
    def ended(self) -> Iterator[subprocess.Popen[bytes]]:
        """Yield a process that has ended."""
        with (
            mock.patch.object(ports, "python", lambda: sys.executable),
            subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as process,
        ):
            process.wait(PATIENCE_S)
            yield process

    @unittest.skipIf(os.name == "nt", "Windows lets several programs bind a port")
    def test_a_port_that_is_bound_but_not_listened_at_is_taken(self) -> None:
        with socket.socket() as holder, mock.patch.object(ports, "python", lambda: sys.executable):
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            with self.assertRaisesRegex(Problem, f"port {port} is used .* --rest-port PORT"):
                ports.refuse_taken(port, "--rest-port")
        ports.refuse_taken(port, "--rest-port")

    def test_equal_ports_are_refused(self) -> None:
        one, other = free_port(), free_port()
        with self.assertRaisesRegex(Problem, "three different ports"), services.pair(one, other, other, "CAT-DOG"):
            self.fail("it started")

    def test_a_model_that_is_not_there_is_refused_at_once_with_those_that_are(self) -> None:
        for options, environment in ((["--model", "NONE"], {}), ([], {"MODEL_NAME": "../launcher"})):
            with self.subTest(options):
                done = subprocess.run(
                    serve(*options), env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE_S
                )
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, r"^run\.py: there is no model '.*'.*; there are: .*CAT-DOG")
                self.assertEqual(done.stderr.count("\n"), 1)

    def test_several_models_are_named_by_options_by_the_variable_or_in_the_settings(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("A", "B", "C"):
            (folder / "models" / name / "1").mkdir(parents=True)
        settings = folder / "mine.yaml"
        settings.write_text("experiment_id: [\"C\", 'A']  # two\n", encoding="utf-8")
        self.enterContext(mock.patch.object(services, "MODELS", folder / "models"))
        self.enterContext(mock.patch.dict(os.environ, {"SERVICE_CONFIG": str(settings), "MODEL_NAME": ""}))
        self.assertEqual(services.model_names(), ["C", "A"])
        os.environ["MODEL_NAME"] = "B, A,"
        self.assertEqual(services.model_names(), ["B", "A"])
        self.assertEqual(services.model_names(["A", "C"]), ["A", "C"])
        for wanted, words in ((["A", "D"], "no model 'D'.*there are: A, B, C"), (["A", "B", "A"], "'A' is named more")):
            with self.subTest(wanted), self.assertRaisesRegex(Problem, words):
                services.model_names(wanted)
        os.environ["MODEL_NAME"] = ","
        with self.assertRaisesRegex(Problem, "no model ','"):
            services.model_names()

    def test_a_canary_is_served_beside_the_newest_other_version_or_refused(self) -> None:
        models = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, version in (("A", 1), ("A", 2), ("A", 10), ("B", 1)):
            (models / name / str(version)).mkdir(parents=True)
        self.enterContext(mock.patch.object(services, "MODELS", models))
        for canary, others in (("A/2=10%", ["10", "2"]), ("A/10=0.5%", ["2", "10"])):
            with self.subTest(canary):
                versions = services.canary_versions(["A", "B"], [canary])
                self.assertEqual(versions, {"A": others})
                (flag,) = services._model_flags(["A"], versions, models)
                (listed,) = model_config.read(flag.removeprefix("--model_config_file=")).model_config_list.config
                self.assertEqual([*map(str, listed.model_version_policy.specific.versions)], others)
        for canary, words in (
            ("A/2", "give one of"),
            ("C/1=1%", "give one of"),
            ("A/3=1%", "10, 2, 1"),
            ("B/1=1%", "1$"),
        ):
            with self.subTest(canary), self.assertRaisesRegex(Problem, f"^--canary {canary}: .*{words}"):
                services.canary_versions(["A", "B"], [canary])

    def test_the_model_server_gets_the_list_of_several_models_as_a_file(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (flag,) = services._model_flags(["A", 'B "é" \\'], {}, folder)
        listed = model_config.read(flag.removeprefix("--model_config_file=")).model_config_list.config
        self.assertEqual(
            [(one.name, Path(one.base_path)) for one in listed],
            [(name, services.MODELS / name) for name in ("A", 'B "é" \\')],
        )

    def test_why_a_pair_does_not_become_ready_is_told(self) -> None:
        answer = json.dumps({"ok": [], "failing": {"model": "The model has no recipe."}}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with (
                mock.patch.object(services, "START_SECONDS", 1),
                self.assertRaisesRegex(Problem, "The model has no recipe"),
            ):
                services.wait_until_ready(f"http://127.0.0.1:{server.server_port}/readyz", [])
            server.shutdown()

    def test_what_is_no_port_is_refused(self) -> None:
        done = subprocess.run(serve("--grpc-port=70000"), capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 2)
        self.assertIn("a port is a number from 1 to 65535", done.stderr)


if __name__ == "__main__":
    unittest.main()
