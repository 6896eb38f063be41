"""Tests that the dashboard and the alerts use metrics and labels that the services export."""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grpc
import requests
import yaml

from preprocess_service.app import errors
from preprocess_service.app.observability import metrics
from preprocess_service.app.server.admission import LIMITED_PATHS, MODEL_PREFIX, PREDICTIONS
from tools.system_packages import find, why_skipped
from unit_test.processes import APP_SERVER, answers, free_port, model_server, running
from unit_test.utils import IMAGES

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "app" / "monitoring"
MONITORING_CONFIG = ROOT / "app" / "model_service" / "monitoring.config"
TIMEOUT_S = 30
# Labels that Prometheus adds itself.
OWN_LABELS = {"job", "instance"}
# The preprocess service adds the label ``model`` to these if it has several models.
OF_MODEL = {"catdog_model_ready", "catdog_model_version", "catdog_predictions_total", "catdog_second_looks_total"}

Labels = dict[str, set[str]]


def alerts() -> list[dict[str, object]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, object]]:
    return [panel for panel in json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))["panels"]]


def targets() -> Iterator[tuple[str, str]]:
    """Yield title, expression and legend of each query of the dashboard."""
    for panel in panels():
        for target in panel.get("targets", []):  # type: ignore[attr-defined]
            yield f"{panel['title']}: {target['expr']}", target["legendFormat"]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each metric in a PromQL expression, with its label matchers."""
    text = re.sub(r"\b(by|without)\s*\([^)]*\)|\[[^\]]*\]", "", expression)
    for name, matchers in re.findall(r"(?<![\w:$])([a-zA-Z_:][\w:]*+)(\{[^}]*\})?+(?!\s*\()", text):
        yield name, dict(re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers))


def exported(page: str) -> Labels:
    """Return the metrics of a /metrics page that have a sample, with their labels."""
    found: Labels = defaultdict(set)
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, labels = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? \S+", line).groups()  # type: ignore[union-attr]
            found[name] |= set(re.findall(r'(\w+)="', labels or ""))
    return found


class MonitoringFilesTest(unittest.TestCase):
    known: Labels
    # The metrics that the /metrics pages describe, including those without a sample.
    described: set[str]

    @classmethod
    def setUpClass(cls) -> None:
        """Read the metrics of both services after a photo and a failed request."""
        flag = f"--monitoring_config_file={MONITORING_CONFIG}"
        models, port = ROOT / "prev_trained_models" / "CAT-DOG", free_port()
        url = f"http://127.0.0.1:{port}"
        with model_server(models, "CAT-DOG", flag) as server:
            place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_PORT": str(server.grpc_port)}
            place["SERVICE_MODEL_HOST"] = "127.0.0.1"
            with running([sys.executable, APP_SERVER], lambda: answers(f"{url}/livez"), place):
                for data in ((IMAGES / "cat_1.jpg").read_bytes(), b"no photo"):
                    requests.post(f"{url}/predict", data, headers={"Content-Type": "image/jpeg"}, timeout=TIMEOUT_S)
                pages = [f"{url}/metrics", server.url + "/monitoring/prometheus/metrics"]
                texts = [requests.get(page, timeout=TIMEOUT_S).text for page in pages]
        cls.known = exported("\n".join(texts)) | {"up": set()}
        cls.described = set(re.findall(r"^# TYPE (\S+)", "\n".join(texts), re.MULTILINE))

    def check(self, expression: str, legend: str = "") -> None:
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby\s*\(([^)]*)\)", expression))))
        asked = list(selectors(expression))
        self.assertTrue(asked)
        for name, matchers in asked:
            self.assertIn(name, self.known)
            labels = self.known[name] | OWN_LABELS | ({"model"} if name in OF_MODEL else set())
            self.assertLessEqual(set(matchers), labels, name)
            self.assertLessEqual(grouped, labels, name)
            self.check_values(name, matchers)
        shown = set(re.findall(r"{{\s*(\w+)\s*}}", legend))
        self.assertLessEqual(shown, grouped or labels)

    def check_values(self, metric: str, matchers: dict[str, str]) -> None:
        possible = {
            "code": {error.code for error in errors.ServiceError.__subclasses__()},
            "stage": set(metrics.STAGES),
            "job": {job["job_name"] for job in self.prometheus()["scrape_configs"]},
        }
        if metric.startswith(":"):
            possible["status"] = {code.name for code in grpc.StatusCode}
        for label in matchers.keys() & possible.keys():
            self.assertLessEqual(set(matchers[label].split("|")), possible[label], metric)
        if "route" in matchers:
            for route in (*LIMITED_PATHS, *(MODEL_PREFIX + path for path in PREDICTIONS)):
                self.assertRegex(route, f"^({matchers['route']})$")

    def prometheus(self) -> dict[str, list[dict[str, str]]]:
        return yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def test_every_alert_asks_for_what_there_is(self) -> None:
        for alert in alerts():
            with self.subTest(alert["alert"]):
                self.check(str(alert["expr"]))

    def test_every_panel_asks_for_what_there_is(self) -> None:
        for target, legend in targets():
            with self.subTest(target):
                self.check(target.partition(": ")[2], legend)

    def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(self) -> None:
        expressions = [str(alert["expr"]) for alert in alerts()] + [
            target.partition(": ")[2] for target, _ in targets()
        ]
        used = {re.sub("_(bucket|count|sum)$", "", name) for text in expressions for name, _ in selectors(text)}
        told = {
            re.sub("_(bucket|count|sum)$", "", name)
            for name in self.known
            if name.startswith(("catdog_", "model_server_", ":")) and not name.endswith("_created")
        }
        self.assertEqual(told - used - {":tensorflow:serving:request"}, set())

    def test_the_operations_page_has_every_metric_of_ours_with_its_labels(self) -> None:
        page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        cells = re.findall(r"^\| (`(?:catdog_|model_server_|:)[^|]*) \|", page, re.MULTILINE)
        documented = {
            name: set(filter(None, labels.split(",")))
            for name, labels in re.findall(r"`([\w:]+)(?:\{([\w,]*)\})?`", " ".join(cells))
        }
        told = {name for name in self.described if name.startswith(("catdog_", "model_server_", ":"))}
        self.assertEqual(set(documented), {name for name in told if not name.endswith("_created")})
        for name, labels in documented.items():
            found = [self.known[series] for series in (name, f"{name}_bucket") if series in self.known]
            with self.subTest(name):
                # A counter of failures may have no sample yet.
                self.assertTrue(all(labels == one - {"le"} for one in found))

    def test_every_alert_says_how_bad_it_is_and_what_to_do(self) -> None:
        for alert in alerts():
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], ("critical", "warning"))  # type: ignore[index]
                self.assertEqual(set(alert["annotations"]), {"summary", "action"})  # type: ignore[call-overload]

    def test_no_panel_lies_over_another(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in panels():
            place: dict[str, int] = panel["gridPos"]  # type: ignore[assignment]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
        self.assertEqual(len({panel["id"] for panel in panels()}), len(panels()))

    def test_the_paths_that_are_scraped_are_those_that_are_served(self) -> None:
        jobs = {job["job_name"]: job.get("metrics_path", "/metrics") for job in self.prometheus()["scrape_configs"]}
        self.assertEqual(jobs["preprocess_service"], "/metrics")
        self.assertIn(f'path: "{jobs["model_service"]}"', MONITORING_CONFIG.read_text(encoding="utf-8"))

    def test_the_readme_names_every_alert_file(self) -> None:
        readme = (MONITORING / "README.md").read_text(encoding="utf-8")
        for file in MONITORING.iterdir():
            if file.name != "README.md":
                with self.subTest(file.name):
                    self.assertIn(file.name, readme)

    @unittest.skipUnless(find("docker-compose"), why_skipped("docker-compose"))
    def test_compose_lays_the_overlay_over_either_pair(self) -> None:
        for pair in ("docker-compose.yml", "docker-compose.embedded.yml"):
            files = ["-f", pair, "-f", "docker-compose.monitoring.yml"]
            with self.subTest(pair):
                done = subprocess.run(
                    ["docker-compose", *files, "config"], cwd=ROOT / "app", capture_output=True, text=True, check=True
                )
                services = yaml.safe_load(done.stdout)["services"]
                self.assertEqual(set(services), {"model_service", "preprocess_service", "prometheus", "grafana"})
                mounted = re.findall(r"/app/monitoring/([\w.]+)", done.stdout)
                self.assertEqual(len(mounted), 5)
                for name in mounted:
                    # If a mounted file does not exist, Docker creates an empty folder with its name.
                    self.assertTrue((MONITORING / name).is_file(), name)


@unittest.skipUnless(find("promtool"), why_skipped("promtool"))
class PromtoolTest(unittest.TestCase):
    def promtool(self, *arguments: str) -> None:
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=MONITORING, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_settings_and_the_rules_are_sound(self) -> None:
        self.promtool("check", "config", "prometheus.yml")

    def test_each_alert_fires_on_what_it_is_for_and_on_nothing_else(self) -> None:
        self.promtool("test", "rules", "alerts_test.yml")

    def test_every_panel_s_expression_is_sound(self) -> None:
        rules = [{"record": "x", "expr": t.partition(": ")[2].replace("$__rate_interval", "5m")} for t, _ in targets()]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "panels.yml")
            file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
            # Only the syntax matters: lint would reject that all files use the same names.
            self.promtool("check", "rules", "--lint=none", str(file))


if __name__ == "__main__":
    unittest.main()
