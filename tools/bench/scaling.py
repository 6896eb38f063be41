"""How the cost grows with the number of clients, the size of a photo, and the number of photos in a request."""

import base64
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.closed_loop import closed_loop
from tools.bench.contestants import Contestant
from tools.bench.open_loop import Timings, one_by_one
from tools.bench.photos import Photo, photos_by_size, shipped_photos
from tools.bench.running import Running, running
from tools.bench.turns import WARM_UP_CLIENTS, write_bodies

CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32)
SIZE_CLIENTS = 4
STEP_CLIENTS = (1, 8, 32)
STEP_PHOTOS = 200


@dataclass
class Scaling:
    """`clients`: answers per second by clients. `sizes`: photos per second by megabytes, per contestant. `batches`:
    photos per second by photos in a request. `steps`: mean milliseconds of each stage by clients."""

    clients: dict[int, float] = field(default_factory=dict)
    sizes: dict[str, dict[float, float]] = field(default_factory=dict)
    batches: dict[int, float] = field(default_factory=dict)
    steps: dict[int, dict[str, float]] = field(default_factory=dict)


def measure(ours: Contestant, tutorial: Contestant, seconds: float, tell: Callable[[str], None]) -> Scaling:
    """Measure everything for our service, and the sizes also for the tutorial's. Raises BenchError or LoadError."""
    found, photos = Scaling(), shipped_photos()
    with running(ours, photos[0]) as service, tempfile.TemporaryDirectory() as folder:
        bodies = write_bodies(photos, Path(folder))
        closed_loop(service.url, bodies, WARM_UP_CLIENTS, seconds)
        for clients in CLIENTS:
            tell(f"{clients} clients")
            found.clients[clients] = closed_loop(service.url, bodies, clients, seconds).requests_per_second
        for batch in BATCHES:
            tell(f"{batch} photos a request")
            found.batches[batch] = batch * _batches(service, photos, batch, seconds)
        for clients in STEP_CLIENTS:
            tell(f"steps, {clients} clients")
            timings = one_by_one(service.url, [photo.body() for photo in photos], STEP_PHOTOS, clients)
            found.steps[clients] = split(timings)
        found.sizes[ours.name] = _sizes(service, seconds, tell)
    with running(tutorial, photos[0]) as service:
        found.sizes[tutorial.name] = _sizes(service, seconds, tell)
    return found


def split(timings: Timings) -> dict[str, float]:
    """Return the mean milliseconds of each stage in `Server-Timing`. `other` is the rest of the service's own time;
    `client` is the rest of the client's: the network, and the queue before the handler."""
    count = len(timings.steps)
    steps: dict[str, float] = {}
    for told in timings.steps:
        for name, milliseconds in told.items():
            steps[name] = steps.get(name, 0.0) + milliseconds / count
    total = steps.pop("total", 0.0)
    steps["other"] = max(0.0, total - sum(steps.values()))
    steps["client"] = max(0.0, sum(timings.latencies) / count - total)
    return steps


def _batches(service: Running, photos: Sequence[Photo], batch: int, seconds: float) -> float:
    images = [base64.b64encode(photos[number % len(photos)].data).decode("ascii") for number in range(batch)]
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_text(json.dumps({"images_b64": images}), encoding="ascii")
        return closed_loop(f"{service.url}/batch", [body], 1, seconds).requests_per_second


def _sizes(service: Running, seconds: float, tell: Callable[[str], None]) -> dict[float, float]:
    found = {}
    for photo in photos_by_size():
        tell(photo.name)
        with tempfile.TemporaryDirectory() as folder:
            bodies = write_bodies([photo], Path(folder))
            sample = closed_loop(service.url, bodies, SIZE_CLIENTS, seconds)
        found[len(photo.data) / 1e6] = sample.requests_per_second
    return found
