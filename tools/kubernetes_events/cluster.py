"""A Kubernetes cluster with the pair on it: kubectl, the pods, and the load that a pod sends."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.service import PROJECT

NAMESPACE = "cat-dog"
# Of the pods that send the load and kill processes.
OWN_NAMESPACE = "cat-dog-events"
MANIFESTS = PROJECT / "app" / "kubernetes"
IMAGES = {
    "cat-dog-preprocess-service:0.1.0": "app/preprocess_service/Dockerfile",
    "cat-dog-model-service:0.1.0": "app/model_service/Dockerfile.embedded",
    "cat-dog-ingress:0.1.0": "app/proxy/Dockerfile",
}
# Files of this project that the pod with the load needs beside the service's own packages.
LOAD_FILES = ("tools/__init__.py", "tools/service.py", "tools/load.py", "tools/kubernetes_events/pod_load.py")
WAIT_S = 180.0

# Ends the first process of a container, whose id is the argument, from outside: no signal from inside ends it.
KILL = """
import os, pathlib, signal, sys
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if sys.argv[1] in (folder / "cgroup").read_text():
            found.append(int(folder.name))
    except OSError:
        pass
os.kill(min(found), signal.SIGKILL)
"""


class ClusterError(Exception):
    """Something on the cluster did not work; the message says what in one line."""


@dataclass(frozen=True)
class Summary:
    """What became of the requests of one run: how many were not answered rightly, and the slowest right answer."""

    sent: int
    lost: int
    slowest: float
    examples: Sequence[str]


class Cluster:
    """What ``kubectl`` reaches with the settings of this shell (KUBECONFIG)."""

    def __init__(self) -> None:
        if not shutil.which("kubectl"):
            raise ClusterError("there is no kubectl; install it: https://kubernetes.io/docs/tasks/tools/")
        self.kubectl("get", "--raw", "/readyz", "--request-timeout=5s", why="no cluster answers")
        self.nodes = sorted(node["metadata"]["name"] for node in self.get("nodes") if _is_ready(node))

    def kubectl(self, *arguments: str, given: str | None = None, why: str = "") -> str:
        """Run kubectl and return its output; raises ClusterError with its last line."""
        done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ClusterError(f"{why or 'kubectl ' + arguments[0]}: {last}")
        return done.stdout

    def own(self, *arguments: str) -> str:
        """Run kubectl in the namespace of the pair."""
        return self.kubectl("-n", NAMESPACE, *arguments)

    def get(self, kind: str, *arguments: str) -> list[Any]:
        items: list[Any] = json.loads(self.own("get", kind, "-o", "json", *arguments))["items"]
        return items

    def pods(self, app: str) -> list[Any]:
        return self.get("pods", "-l", f"app={app}")

    def build_images(self) -> None:
        """Build the images, and run the command in KUBERNETES_LOAD_IMAGES, which hands them to the nodes."""
        for image, dockerfile in IMAGES.items():
            self._run("docker", "build", "--quiet", "--tag", image, "--file", dockerfile, ".")
        if command := os.environ.get("KUBERNETES_LOAD_IMAGES"):
            self._run(*shlex.split(command), *IMAGES)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            last = ((done.stderr + done.stdout).strip().splitlines() or ["no output"])[-1]
            raise ClusterError(f"{command[0]} {command[1]}: {last}")

    def apply(self, *components: str) -> None:
        """Apply the base with these components, and wait until all pods are ready."""
        with tempfile.TemporaryDirectory() as folder:
            place = os.path.relpath(MANIFESTS, Path(folder).resolve())
            settings = {
                "namespace": NAMESPACE,
                "resources": [f"{place}/base"],
                "components": [f"{place}/components/{name}" for name in components],
            }
            Path(folder, "kustomization.yaml").write_text(json.dumps(settings), encoding="utf-8")
            self.kubectl("apply", "-k", folder)
        self.settle()

    def check_overlays(self) -> int:
        """Have the API server check every overlay without applying it; return how many there are."""
        overlays = sorted((MANIFESTS / "overlays").iterdir())
        for overlay in overlays:
            self.kubectl("apply", "-k", str(overlay), "--dry-run=server", why=f"overlay {overlay.name}")
        return len(overlays)

    def settle(self, *apps: str) -> None:
        """Wait until the pods of these Deployments, or of all, are ready and none is ending; raises ClusterError."""
        self.wait_for(lambda: all(self._is_settled(one) for one in self.get("deployments") if _named(one, apps)))

    def _is_settled(self, deployment: Any) -> bool:
        app, status = deployment["metadata"]["name"], deployment.get("status", {})
        if status.get("observedGeneration") != deployment["metadata"]["generation"]:
            return False
        pods = self.pods(app)
        wanted = deployment["spec"]["replicas"]
        return len(pods) == wanted == status.get("updatedReplicas") and all(map(_is_ready, pods))

    def wait_for(self, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Wait until this is true; raises ClusterError, with what the pods wait for, after ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                waits = [reason for pod in self.get("pods") for reason in _reasons(pod)]
                raise ClusterError(f"after {seconds:.0f} s: {'; '.join(waits) or 'it is not as expected'}")
            time.sleep(0.5)

    def answered(self) -> dict[str, float]:
        """How many calls each model server has answered, by the name of its pod."""
        return {pod["metadata"]["name"]: self._calls(pod["metadata"]["name"]) for pod in self.pods("model-service")}

    def _calls(self, pod: str) -> float:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8501/proxy/monitoring/prometheus/metrics"
        page = self.kubectl("get", "--raw", path)
        lines = [line for line in page.splitlines() if ":request_count{" in line and '"OK"' in line]
        return sum(float(line.split()[-1]) for line in lines)

    def prepare_load(self) -> None:
        """Start the pod that sends the load, on the first node, and on each node one that can kill processes."""
        with contextlib.suppress(ClusterError):
            self.kubectl("create", "namespace", OWN_NAMESPACE)
        files = {Path(name).name: (PROJECT / name).read_text(encoding="utf-8") for name in LOAD_FILES}
        objects = [_config_map(files), _load_pod(self.nodes[0]), *map(_helper_pod, self.nodes)]
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        # A Service as a client outside meets it: the node that it asks gives the connection to its own pods.
        self.kubectl("apply", "-f", "-", given=json.dumps(_local_ingress()))
        self.kubectl("-n", OWN_NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")

    def kill_process(self, pod: Any) -> None:
        """Send SIGKILL to the first process of a pod's container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        helper = f"helper-{pod['spec']['nodeName']}"
        self.kubectl("-n", OWN_NAMESPACE, "exec", helper, "--", "python", "-c", KILL, container)

    @contextlib.contextmanager
    def load(self, url: str, rate: float, connections: str) -> Iterator[list[Summary]]:
        """Send load while the block runs; the list has the summary afterwards."""
        program = ["python", "-m", "tools.pod_load", url, str(rate), str(int(rate / 2)), connections]
        command = ["kubectl", "-n", OWN_NAMESPACE, "exec", "-i", "load", "--", *program]
        found: list[Summary] = []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield found
            finally:
                output, _ = process.communicate()
        if process.returncode:
            raise ClusterError("the pod with the load has ended; see its output above")
        found.append(Summary(**json.loads(output)))

    def remove(self) -> None:
        """Remove everything that was applied."""
        self.kubectl("delete", "namespace", NAMESPACE, OWN_NAMESPACE, "--ignore-not-found")


def _is_ready(one: Any) -> bool:
    conditions = one["status"].get("conditions", [])
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_ready and "deletionTimestamp" not in one["metadata"]


def _named(one: Any, names: Sequence[str]) -> bool:
    return not names or one["metadata"]["name"] in names


def _reasons(pod: Any) -> Iterator[str]:
    """Why a pod is not ready, in a few words each."""
    states = [container["state"].get("waiting") for container in pod["status"].get("containerStatuses", [])]
    found = [f"{state['reason']}: {state.get('message', '')}" for state in states if state]
    found += [c["message"] for c in pod["status"].get("conditions", []) if c["status"] == "False" and "message" in c]
    return (f"{pod['metadata']['name']}: {reason}" for reason in found[:1])


def _config_map(files: dict[str, str]) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "load", "namespace": OWN_NAMESPACE},
        "data": files,
    }


def _pod(name: str, node: str, **spec: Any) -> Any:
    container = {"name": name, "image": next(iter(IMAGES)), "imagePullPolicy": "Never", "workingDir": "/project"}
    container["command"] = ["python", "-c", "import time; time.sleep(1e9)"]  # type: ignore[assignment]
    container |= spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": OWN_NAMESPACE},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def _load_pod(node: str) -> Any:
    names = [Path(file).name for file in LOAD_FILES]
    container = {
        "env": [{"name": "PYTHONPATH", "value": "/packages:/project/app:/project"}],
        # Each file on its own: in the whole volume they are links to another folder, which has no photos beside it.
        "volumeMounts": [{"name": "load", "mountPath": f"/project/tools/{name}", "subPath": name} for name in names],
    }
    return _pod("load", node, container=container, volumes=[{"name": "load", "configMap": {"name": "load"}}])


def _helper_pod(node: str) -> Any:
    return _pod(f"helper-{node}", node, hostPID=True, container={"securityContext": {"runAsUser": 0}})


def _local_ingress() -> Any:
    spec = {
        "selector": {"app": "ingress"},
        "ports": [{"port": 80, "targetPort": "http"}],
        "internalTrafficPolicy": "Local",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ingress-of-this-node", "namespace": NAMESPACE},
        "spec": spec,
    }
