"""The events: what happens to pods and nodes while requests are sent, and how many of these may be lost."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tools.kubernetes_events.cluster import NAMESPACE, Cluster, ClusterError

SERVICE = f"http://preprocess-service.{NAMESPACE}:7998"
INGRESS = f"http://ingress-of-this-node.{NAMESPACE}:80"
PREPROCESS, MODEL = "preprocess-service", "model-service"
# Longer than a node that is silent counts as ready, by Kubernetes' default.
DARK_S = 55.0
# How long the pods have to share the load evenly again, and how far their shares may be apart.
EVEN_S, EVEN = 60.0, 0.10


@dataclass(frozen=True)
class Event:
    """Something that happens under load.

    Attributes:
        act: makes it happen, and returns when all is well again.
        most_lost: how many requests may be lost; None: any number, it is only counted.
        slowest: how long the slowest answer may take, in seconds.
    """

    name: str
    act: Callable[[Cluster], None]
    url: str = SERVICE
    connections: str = "new"
    most_lost: int | None = 0
    slowest: float = 10.0


def roll(deployments: tuple[str, ...], cluster: Cluster) -> None:
    cluster.own("rollout", "restart", "deployment", *deployments)
    for name in deployments:
        cluster.own("rollout", "status", f"deployment/{name}", "--timeout=150s")
    cluster.settle(*deployments)


def delete_one(app: str, flags: tuple[str, ...], cluster: Cluster) -> None:
    cluster.own("delete", "pod", cluster.pods(app)[0]["metadata"]["name"], *flags)
    cluster.settle(app)


def kill_process(app: str, cluster: Cluster) -> None:
    pod = cluster.pods(app)[0]
    name, before = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]
    cluster.kill_process(pod)

    def is_restarted() -> bool:
        (one,) = [one for one in cluster.pods(app) if one["metadata"]["name"] == name]
        return bool(one["status"]["containerStatuses"][0]["restartCount"] > before)

    cluster.wait_for(is_restarted)
    cluster.settle(app)


def scale_by_load(cluster: Cluster) -> None:
    """From two to six pods and back, by the autoscalers; with thresholds that the load of this test reaches."""
    cluster.apply("autoscale", "ingress", "local")
    for use, pods in ((3, 6), (100_000, 2)):
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": _utilization(use)}}
        policies = [{"type": "Pods", "value": 2, "periodSeconds": 15}]
        behavior = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": policies}}
        patch = json.dumps({"spec": {"maxReplicas": 6, "metrics": [metric], "behavior": behavior}})
        for app in (PREPROCESS, MODEL):
            cluster.own("patch", "hpa", app, "--type=merge", "-p", patch)
        cluster.wait_for(partial(_have_pods, cluster, pods))
        cluster.settle(PREPROCESS, MODEL)


def _utilization(percent: int) -> dict[str, object]:
    return {"type": "Utilization", "averageUtilization": percent}


def _have_pods(cluster: Cluster, pods: int) -> bool:
    return all(len(cluster.pods(app)) == pods for app in (PREPROCESS, MODEL))


def end_scaling(cluster: Cluster) -> None:
    cluster.own("delete", "hpa", "--all")
    cluster.apply("ingress", "local")


def cut_power(cluster: Cluster) -> None:
    """End all processes of the last node at once; start it again; wait until the model servers share evenly."""
    node = cluster.nodes[-1]
    _hook("KUBERNETES_POWER_OFF", node)
    time.sleep(DARK_S)
    _hook("KUBERNETES_POWER_ON", node)
    cluster.settle()
    end = time.monotonic() + EVEN_S
    while not is_even(cluster):
        if time.monotonic() > end:
            raise ClusterError(f"{EVEN_S:.0f} s after the node's return the model servers do not share evenly")


def is_even(cluster: Cluster, seconds: float = 10.0) -> bool:
    """Whether the model servers answer equally many calls in the next seconds, within ``EVEN``."""
    before = cluster.answered()
    time.sleep(seconds)
    after = cluster.answered()
    counts = [after[pod] - before.get(pod, 0.0) for pod in after]
    mean = sum(counts) / len(counts)
    print(f"    calls in {seconds:.0f} s: {', '.join(f'{count:.0f}' for count in counts)}", flush=True)
    return all(abs(count - mean) <= EVEN * mean for count in counts)


def _hook(variable: str, node: str) -> None:
    command = [*shlex.split(os.environ[variable]), node]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{variable}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def events() -> list[Event]:
    """All events, in their order."""
    forced = ("--force", "--grace-period=0")
    rolled = {
        "preprocess service rolled": partial(roll, (PREPROCESS,)),
        "model service rolled": partial(roll, (MODEL,)),
        "both rolled": partial(roll, (PREPROCESS, MODEL)),
    }
    found = [
        Event(f"{name}, {connections} connections", act, connections=connections)
        for name, act in rolled.items()
        for connections in ("new", "kept")
    ]
    found += [
        Event("one preprocess pod deleted in order", partial(delete_one, PREPROCESS, ()), connections="kept"),
        Event("one model pod deleted in order", partial(delete_one, MODEL, ())),
        Event("one model pod deleted by force", partial(delete_one, MODEL, forced)),
        Event("a model server's process killed", partial(kill_process, MODEL)),
        Event("ingress: one preprocess pod deleted by force", partial(delete_one, PREPROCESS, forced), INGRESS),
        Event("ingress: a preprocess service's process killed", partial(kill_process, PREPROCESS), INGRESS),
        Event(
            "Service alone: one preprocess pod deleted by force",
            partial(delete_one, PREPROCESS, forced),
            most_lost=None,
        ),
        Event(
            "Service alone: a preprocess service's process killed", partial(kill_process, PREPROCESS), most_lost=None
        ),
        Event("ingress rolled", partial(roll, ("ingress",)), INGRESS),
        Event("ingress: from 2 to 6 pods and back by load", scale_by_load, INGRESS),
    ]
    if "KUBERNETES_POWER_OFF" in os.environ and "KUBERNETES_POWER_ON" in os.environ:
        found.append(Event("ingress: a node's power cut", cut_power, INGRESS, most_lost=3, slowest=3.0))
    return found
