"""The manifests for Kubernetes: they fit each other, the images, the settings and Docker Compose."""

import re
import subprocess
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from preprocess_service.app import app_server, config, model_runner
from tools.course.blocks import read_blocks
from tools.kubernetes_events.cluster import IMAGES
from tools.system_packages import find
from unit_test.model_service.fixtures import shared_server

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "app" / "kubernetes"
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# The names of the services in Docker Compose.
COMPOSE_NAMES = {"preprocess-service": "preprocess_service", "model-service": "model_service"}


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kustomization(folder: Path) -> Any:
    return documents(folder / "kustomization.yaml")[0]


def objects() -> Iterator[Any]:
    """Every object in a file of the base or of a component."""
    for folder in (FOLDER / "base", *(FOLDER / "components" / name for name in COMPONENTS)):
        for name in kustomization(folder).get("resources", []):
            yield from documents(folder / name)


def of_kind(*kinds: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in objects() if one["kind"] in kinds}


def pod(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


def container(deployment: Any) -> Any:
    (one,) = pod(deployment)["containers"]
    return one


def dockerfile(image: str) -> str:
    return (ROOT / IMAGES[image]).read_text(encoding="utf-8")


def mebibytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 1, "Mi": 1, "g": 1024, "Gi": 1024}[unit]


class ManifestsTest(unittest.TestCase):
    def test_every_selector_finds_the_pods_of_a_deployment(self) -> None:
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind("Deployment").values()]
        for one in objects():
            spec = one.get("spec", {})
            if one["kind"] == "Service":
                selector = spec["selector"]
            elif one["kind"] in ("Deployment", "PodDisruptionBudget"):
                selector = spec["selector"]["matchLabels"]
            elif one["kind"] == "NetworkPolicy" and spec["podSelector"]:
                selector = spec["podSelector"]["matchLabels"]
            else:
                continue
            with self.subTest(f"{one['kind']} {one['metadata']['name']}"):
                self.assertIn(selector, labels)

    def test_the_pods_of_a_deployment_go_to_different_nodes(self) -> None:
        for name, deployment in of_kind("Deployment").items():
            (spread,) = pod(deployment)["topologySpreadConstraints"]
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            self.assertEqual(spread["labelSelector"]["matchLabels"], labels, name)

    def test_ports_are_those_of_the_images_and_have_the_names_that_are_used(self) -> None:
        for name, deployment in of_kind("Deployment").items():
            one = container(deployment)
            ports = {port["name"]: port["containerPort"] for port in one["ports"]}
            (exposed,) = re.findall(r"^EXPOSE (.*)$", dockerfile(one["image"]), re.MULTILINE)
            with self.subTest(name):
                self.assertEqual(set(ports.values()), set(map(int, exposed.split())))
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    self.assertIn(one[probe]["httpGet"]["port"], ports)
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                for service in of_kind("Service").values():
                    if service["spec"]["selector"] == labels:
                        self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, set(ports))

    def test_probes_ask_for_what_there_is(self) -> None:
        settings = config.load_config({})
        app = app_server.create_app(settings, model_runner.ModelRunner(settings))
        server = shared_server("slow")
        deployments = of_kind("Deployment")
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            with self.subTest(name):
                self.assertIn(
                    container(deployments["preprocess-service"])[name]["httpGet"]["path"], app.openapi()["paths"]
                )
                path = container(deployments["model-service"])[name]["httpGet"]["path"]
                self.assertEqual(requests.get(server.url + path, timeout=60).status_code, 200)
                path = container(deployments["ingress"])[name]["httpGet"]["path"]
                self.assertIn(f"monitor-uri {path}\n", (ROOT / "app/proxy/haproxy.cfg").read_text(encoding="utf-8"))
        (patch,) = kustomization(FOLDER / "components" / "tensorflow-serving")["patches"]
        serving = container(yaml.safe_load(patch["patch"]))
        path = serving["readinessProbe"]["httpGet"]["path"]
        self.assertEqual(requests.get(server.url + path, timeout=60).status_code, 200)

    def test_variables_are_settings(self) -> None:
        environment = {
            one["name"]: one["value"] for one in container(of_kind("Deployment")["preprocess-service"])["env"]
        }
        settings = config.load_config(environment)
        self.assertEqual(settings.model_server.host, of_kind("Service")["model-service"]["metadata"]["name"])
        self.assertEqual(settings.server.drain_seconds, config.KUBERNETES_DRAIN_SECONDS)

    def test_limits_are_those_of_docker_compose(self) -> None:
        services = documents(ROOT / "app" / "docker-compose.embedded.yml")[0]["services"]
        for name, compose_name in COMPOSE_NAMES.items():
            limits = container(of_kind("Deployment")[name])["resources"]["limits"]
            with self.subTest(name):
                self.assertEqual(mebibytes(limits["memory"]), mebibytes(services[compose_name]["mem_limit"]))
                self.assertEqual(int(limits["cpu"]), services[compose_name]["cpu_quota"] / 100_000)

    def test_every_pod_is_closed(self) -> None:
        for name, deployment in of_kind("Deployment").items():
            spec, one = pod(deployment), container(deployment)
            with self.subTest(name):
                self.assertFalse(spec["automountServiceAccountToken"])
                self.assertFalse(spec["enableServiceLinks"])
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertEqual(
                    (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]), (True, 1000)
                )
                expected = {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                self.assertEqual(one["securityContext"], expected)
                self.assertLessEqual({"cpu", "memory"}, set(one["resources"]["requests"]))
                for volume in spec.get("volumes", []):
                    self.assertIn("sizeLimit", volume["emptyDir"])
        self.assertEqual(
            of_kind("NetworkPolicy")["default-deny"]["spec"], {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        )
        self.assertNotIn("egress", of_kind("NetworkPolicy")["model-service"]["spec"])

    def test_a_pod_that_ends_has_time_to_answer(self) -> None:
        seconds = {name: pod(one)["terminationGracePeriodSeconds"] for name, one in of_kind("Deployment").items()}
        settings = config.load_config({})
        self.assertGreater(
            seconds["preprocess-service"], config.KUBERNETES_DRAIN_SECONDS + settings.limits.deadline_seconds + 1
        )
        for name, own in (("model-service", 8), ("ingress", 25)):
            waits = container(of_kind("Deployment")[name])["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreater(seconds[name], waits + own)

    def test_no_pod_ends_before_another_is_ready(self) -> None:
        for name, deployment in of_kind("Deployment").items():
            with self.subTest(name):
                self.assertEqual(deployment["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
                self.assertEqual(deployment["spec"]["replicas"], 2)
                self.assertEqual(of_kind("PodDisruptionBudget")[name]["spec"]["maxUnavailable"], 1)

    def test_autoscalers_have_a_deployment_and_no_fewer_pods_than_it(self) -> None:
        found = of_kind("HorizontalPodAutoscaler")
        self.assertEqual(set(found), set(COMPOSE_NAMES))
        for name, one in found.items():
            self.assertEqual(one["spec"]["scaleTargetRef"]["name"], name)
            self.assertEqual(one["spec"]["minReplicas"], of_kind("Deployment")[name]["spec"]["replicas"])

    def test_images_have_the_version_of_the_project(self) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        used = {container(one)["image"] for one in of_kind("Deployment").values()}
        self.assertEqual(used, set(IMAGES))
        self.assertEqual({image.partition(":")[2] for image in used}, {version})

    def test_the_course_builds_the_images_of_the_pods_and_sends_photos_to_their_service(self) -> None:
        commands = read_blocks(9)["build"].code()
        images = (container(of_kind("Deployment")[name])["image"] for name in COMPOSE_NAMES)
        built = {image: IMAGES[image] for image in images}
        self.assertEqual(dict(re.findall(r"-t (\S+) -f (\S+) \.$", commands, re.MULTILINE)), built)
        folder = ROOT / "course" / "cluster"
        visitor = container(documents(folder / "visitor.yaml")[0])
        self.assertEqual(visitor["image"], container(of_kind("Deployment")["preprocess-service"])["image"])
        address = f"preprocess-service.{kustomization(FOLDER / 'base')['namespace']}"
        (port,) = of_kind("Service")["preprocess-service"]["spec"]["ports"]
        program = (folder / "send_photos.py").read_text(encoding="utf-8")
        self.assertIn(f'URL = "http://{address}:{port["port"]}/predict"', program)

    def test_the_copies_for_monitoring_are_the_same(self) -> None:
        for name in ("dashboard.json", "alerts.yml"):
            copy = FOLDER / "components" / "monitoring" / name
            self.assertEqual(copy.read_bytes(), (ROOT / "app" / "monitoring" / name).read_bytes(), name)


class KustomizeTest(unittest.TestCase):
    def test_every_file_belongs_to_a_kustomization(self) -> None:
        for folder in (FOLDER / "base", *(FOLDER / "components" / name for name in COMPONENTS)):
            settings = kustomization(folder)
            named = {"kustomization.yaml", *settings.get("resources", [])}
            named |= {file for one in settings.get("configMapGenerator", []) for file in one["files"]}
            self.assertEqual({path.name for path in folder.iterdir()}, named, folder)

    def test_every_component_has_an_overlay_and_a_line_in_the_readme(self) -> None:
        self.assertEqual(set(OVERLAYS), {*COMPONENTS, "all"})
        readme = (FOLDER / "README.md").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE)), set(COMPONENTS))
        for name in COMPONENTS:
            settings = kustomization(FOLDER / "overlays" / name)
            self.assertEqual(settings["resources"], ["../../base"])
            self.assertEqual(settings["components"], [f"../../components/{name}"])

    @unittest.skipUnless(find("kubectl"), "kubectl is not installed")
    def test_kustomize_builds_the_base_and_every_overlay(self) -> None:
        for folder in (FOLDER / "base", *(FOLDER / "overlays" / name for name in OVERLAYS)):
            done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
            with self.subTest(folder.name):
                self.assertEqual(done.returncode, 0, done.stderr)
                built = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "Deployment"]
                self.assertLessEqual(set(COMPOSE_NAMES), {one["metadata"]["name"] for one in built})
                if folder.name in ("local", "all"):
                    self.assertEqual({container(one)["imagePullPolicy"] for one in built}, {"Never"})


if __name__ == "__main__":
    unittest.main()
