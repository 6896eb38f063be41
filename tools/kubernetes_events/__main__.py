"""Builds the images, starts the pair on a Kubernetes cluster, and tries what is lost when pods and nodes come and go.

    python run.py e2e --kubernetes            all events, once
    python -m tools.kubernetes_events --runs 10 "process killed"

It uses the cluster that kubectl reaches (KUBECONFIG), in the namespaces cat-dog and cat-dog-events, and removes both at
its end. Commands for what Kubernetes itself does not offer are in the environment:

    KUBERNETES_LOAD_IMAGES  hands the images of the local Docker engine to the nodes, e.g. "kind load docker-image"
    KUBERNETES_POWER_OFF    ends all processes of the node that is its last argument
    KUBERNETES_POWER_ON     starts the node again

Each event is a line: how many requests were sent, how many of them were not answered rightly, and the slowest answer.
The exit status is 1 if more were lost than the event allows, or if something did not work.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from tools.kubernetes_events.cluster import Cluster, ClusterError, Summary
from tools.kubernetes_events.events import Event, end_scaling, events, scale_by_load

RATE = 40.0
# At least so long, so that a run has 600 requests; and so long before and after the event.
SECONDS, QUIET_SECONDS = 16.0, 2.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only events whose name contains one of these")
    parser.add_argument("--runs", type=int, default=1, help="how often each event happens (default 1)")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second (default 40)")
    parser.add_argument("--list", action="store_true", help="list the events")
    parser.add_argument("--no-build", action="store_true", help="the nodes have the images already")
    parser.add_argument("--keep", action="store_true", help="remove nothing at the end")
    options = parser.parse_args(arguments)
    chosen = [event for event in events() if not options.words or any(word in event.name for word in options.words)]
    if options.list:
        print("\n".join(event.name for event in chosen))
        return 0
    try:
        cluster = Cluster()
        try:
            return _run(cluster, chosen, options)
        finally:
            if not options.keep:
                cluster.remove()
    except ClusterError as exc:
        print(f"kubernetes_events: {exc}", file=sys.stderr)
        return 1


def _run(cluster: Cluster, chosen: Sequence[Event], options: argparse.Namespace) -> int:
    if not options.no_build:
        cluster.build_images()
    began = time.monotonic()
    cluster.apply("ingress", "local")
    print(f"all pods ready after {time.monotonic() - began:.1f} s", flush=True)
    print(f"the API server accepts all {cluster.check_overlays()} overlays", flush=True)
    cluster.prepare_load()
    failed = 0
    for event in chosen:
        for _ in range(options.runs):
            failed |= _try(cluster, event, options.rate)
    return failed


def _try(cluster: Cluster, event: Event, rate: float) -> int:
    problem = ""
    with cluster.load(event.url, rate, event.connections) as summaries:
        began = time.monotonic()
        time.sleep(QUIET_SECONDS)
        try:
            event.act(cluster)
        except ClusterError as exc:
            problem = str(exc)
        time.sleep(max(QUIET_SECONDS, SECONDS - (time.monotonic() - began)))
    if event.act is scale_by_load:
        end_scaling(cluster)
    (summary,) = summaries
    is_too_slow = event.most_lost is not None and summary.slowest > event.slowest
    is_broken = (
        bool(problem)
        or not summary.sent
        or is_too_slow
        or (event.most_lost is not None and summary.lost > event.most_lost)
    )
    print(_line(event, summary, is_broken), flush=True)
    for line in [*filter(None, [problem]), *summary.examples]:
        print(f"    {line}", flush=True)
    return int(is_broken)


def _line(event: Event, summary: Summary, is_broken: bool) -> str:
    verdict = "FAILED" if is_broken else "ok" if event.most_lost is not None else "counted"
    figures = f"{summary.sent:6} sent {summary.lost:4} lost, slowest {summary.slowest:5.2f} s"
    return f"{event.name:56}{figures}  {verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
