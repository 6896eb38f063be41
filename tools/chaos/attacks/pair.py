"""The attacked pair. It is started once, checked after each attack, and restarted if it broke a promise."""

import contextlib
import time
from io import BytesIO

from PIL import Image

from tools.chaos.attacks.attack import (
    BACK_S,
    IDLE_S,
    IDLE_SHARE,
    LIVEZ_S,
    MAY_KEEP,
    MEMORY,
    Attack,
    Case,
    Pace,
    Report,
)
from tools.chaos.attacks.watch import Photo, Seen, Target, Tree, Watcher, ask
from tools.chaos.stage import Process, Stage, answers, free_port
from tools.load import PHOTOS, Load

# The pair is killed above these limits, in MB and seconds.
ABORT_MEGABYTES = 1500.0
ABORT_S = 40.0
# CPU use is measured over this time to decide whether the pair is idle.
IDLE_WINDOW_S = 0.5
READY_S = 30.0
# Load before the first measurement of memory: as many clients as at peak times, so that batches of all sizes occur.
CLIENTS = 32
WARM_S = 2.0
SETTLE_S = 1.5
QUIET_S = 3.0


def small_photos() -> list[Photo]:
    """Return ten usual small photos. Two are not JPEG, because other formats are decoded in other processes."""
    photos = [Photo(path.name, path.read_bytes(), "image/jpeg") for path in PHOTOS]
    for name in ("png", "webp"):
        file = BytesIO()
        Image.open(PHOTOS[0]).resize((200, 200)).save(file, name)
        photos.append(Photo(name, file.getvalue(), f"image/{name}"))
    return (photos * 2)[:10]


def usual_photo() -> Photo:
    """Return a photo as large as a phone's, so that the start memory is that of normal use."""
    file = BytesIO()
    Image.effect_noise((400, 300), 60).resize((4000, 3000)).convert("RGB").save(file, "JPEG")
    return Photo("4000 x 3000", file.getvalue(), "image/jpeg")


class Pair:
    """Both services on one stage, and the watcher."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._photos = small_photos()
        self._usual = usual_photo()

    def __enter__(self) -> "Pair":
        self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.stage = self._stack.enter_context(Stage())
        self.ports = {name: free_port() for name in ("http", "grpc", "rest")}
        self._services: dict[str, Process] = {
            "model server": self.stage.model_server(self.ports["grpc"], rest_port=self.ports["rest"]),
            "preprocess service": self.stage.app_server("127.0.0.1", self.ports["grpc"], self.ports["http"]),
        }
        for service in self._services.values():
            service.start()
        self.trees = {name: Tree(service.pid) for name, service in self._services.items()}
        self._warm_up()
        targets = [
            Target(name, service.pid, self.ports["http" if name == "preprocess service" else "rest"], ABORT_MEGABYTES)
            for name, service in self._services.items()
        ]
        self._watcher = self._stack.enter_context(Watcher(targets, self.ports["http"], self._photos))
        self.start = self.megabytes()

    def _warm_up(self) -> None:
        """Send usual photos of all kinds. Later memory is compared with that after these."""
        end = time.monotonic() + READY_S
        while not answers(f"http://127.0.0.1:{self.ports['http']}/readyz") and time.monotonic() < end:
            time.sleep(0.05)
        for photo in (*self._photos, self._usual) * 2:
            ask(self.ports["http"], "POST", "/predict", photo.body, photo.content_type)
        load = Load(f"http://127.0.0.1:{self.ports['http']}", rate=1e6, clients=CLIENTS)
        with load.going_on():
            time.sleep(WARM_S)
        time.sleep(SETTLE_S)

    def quiet(self) -> Seen:
        """Measure other clients' answers without an attack, to know what this machine can do at present."""
        self._watcher.begin(ABORT_S)
        time.sleep(QUIET_S)
        return self._watcher.end()

    def restart(self) -> None:
        """Replace the pair by a new one."""
        self._stack.close()
        self._stack = contextlib.ExitStack()
        self._start()

    def megabytes(self) -> dict[str, float]:
        return {name: tree.megabytes() for name, tree in self.trees.items()}

    def run(self, case: Case, pace: Pace) -> Report:
        """Run an attack and return the report."""
        one = Attack(case, self.ports, pace, self._services["preprocess service"].log)
        case.prepare()
        before = {name: tree.cpu_seconds() for name, tree in self.trees.items()}
        self._watcher.begin(ABORT_S * pace.slack)
        try:
            case.run(one)
        except OSError as exc:
            one.promise(False, f"the attack broke off: {type(exc).__name__}: {exc}")
        seen = self._watcher.end()
        judge(case, one, seen)
        one.report.start = self.start
        if seen.killed:
            # All other broken promises follow from this.
            one.report.broken = [seen.killed]
        else:
            self._rest(one)
            after = {name: tree.cpu_seconds() for name, tree in self.trees.items()}
            one.report.cpu_s = {name: after[name] - before[name] for name in after}
        if one.report.broken:
            one.report.logs = self.stage.logs()
        return one.report

    def _rest(self, one: Attack) -> None:
        """Check the pair after the attack: idle in time, memory released, photos answered."""
        report, since = one.report, one.last_byte
        slack = one.pace.slack
        while self._is_busy():
            if time.monotonic() - since > IDLE_S * slack + BACK_S:
                break
        report.idle_after = time.monotonic() - since
        one.promise(report.idle_after <= IDLE_S * slack, f"idle only after {report.idle_after:.0f} s")
        limits = {name: MAY_KEEP * megabytes for name, megabytes in self.start.items()}
        # Memory that stands still is no sign that it stays: a service gives back its heap seconds after a burst.
        while True:
            report.back = self.megabytes()
            is_back = all(report.back[name] <= limit for name, limit in limits.items())
            if is_back or time.monotonic() - since > BACK_S * slack:
                break
            time.sleep(0.5)
        for name, limit in limits.items():
            megabytes = report.back[name]
            one.promise(megabytes <= limit, f"{name}: {megabytes:.0f} MB, but {self.start[name]:.0f} MB before it")
        for name, service in self._services.items():
            one.promise(not service.has_ended(), f"the {name} has ended")
        seconds, outcome = ask(self.ports["http"], "POST", "/predict", self._photos[0].body, "image/jpeg")
        one.promise(outcome == "200", f"a small photo after the attack: {outcome} after {seconds:.1f} s")

    def _is_busy(self) -> bool:
        """Return whether a service uses more CPU than when it is idle."""
        before = {name: tree.cpu_seconds() for name, tree in self.trees.items()}
        time.sleep(IDLE_WINDOW_S)
        limit = IDLE_SHARE * IDLE_WINDOW_S
        return any(tree.cpu_seconds() - before[name] > limit for name, tree in self.trees.items())


def judge(case: Case, one: Attack, seen: Seen) -> None:
    """Compare the measurements during an attack with the promises."""
    report, slack = one.report, one.pace.slack
    report.peaks, report.photos = seen.peaks, len(seen.photos)
    report.slowest_photo, report.slowest_livez = seen.slowest_photo, seen.slowest_livez
    for name, limit in MEMORY.items():
        peak = seen.peaks.get(name, 0.0)
        one.promise(peak <= limit, f"{name}: {peak:.0f} MB, more than {limit:.0f}")
    one.promise(
        seen.slowest_livez <= LIVEZ_S * slack,
        f"/livez took {seen.slowest_livez:.2f} s, more than {LIVEZ_S * slack}",
    )
    failures = seen.failures
    if case.photo_s is None:
        failures = [text for text in failures if "photo" not in text]
    else:
        limit = case.photo_s * slack
        one.promise(seen.slowest_photo <= limit, f"a small photo took {seen.slowest_photo:.2f} s, more than {limit}")
    for text in failures[:3]:
        one.promise(False, text)
