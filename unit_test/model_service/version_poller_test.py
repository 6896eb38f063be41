"""Tests that the highest version is served, and that no version is unloaded before the next one is ready."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import grpc

from model_service import errors
from model_service.lifecycle import model_config, version_poller
from model_service.models import saved_model, servables
from serving_common import tensorflow_protos

POLL_S, RETRY_S = 1, 10
OK = grpc.StatusCode.OK


def spec(version: int | None = None) -> Any:
    """Return a ModelSpec for the model M."""
    spec = tensorflow_protos.model_pb2.ModelSpec(name="M")
    if version is not None:
        spec.version.value = version
    return spec


def servable(version: int) -> Any:
    """Return a version of the model M that computes nothing."""
    definitions = tensorflow_protos.get_model_metadata_pb2.SignatureDefMap()
    return servables.Servable("M", saved_model.SavedModel(Path(), version, {}, definitions), {})


class Loader:
    """Loads versions. The versions in `broken` fail with the error given."""

    def __init__(self) -> None:
        self.broken: dict[int, Exception] = {}
        self.loaded: list[int] = []

    def __call__(self, version: int, folder: Path) -> Any:
        self.loaded.append(version)
        if version in self.broken:
            raise self.broken[version]
        return servable(version)


class PollerTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.base_path = Path(self.enterContext(tempfile.TemporaryDirectory()), "M")
        self.folder(1)
        self.load = Loader()
        self.servables = servables.Servables(servable(1))
        self.now = 0.0
        self.watch = self.watch_with(retries=2)

    def watch_with(self, retries: int, keep_s: float = 0, poll_s: float = POLL_S, policy: str = "") -> Any:
        schedule = version_poller.Schedule(poll_s, retries, RETRY_S, keep_s)
        return version_poller.VersionPoller(self.servables, self.config(policy), self.load, schedule)

    def config(self, policy: str = "") -> Any:
        """Return a ModelConfig with this version policy in text form."""
        (config,) = model_config.one_model("M", str(self.base_path)).model_config_list.config
        return tensorflow_protos.text_format.Parse(f"model_version_policy {{ {policy} }}", config)

    def folder(self, version: int) -> Path:
        """Make the folder of a version."""
        folder = self.base_path / str(version)
        folder.mkdir(parents=True)
        return folder

    def step(self, seconds: float = POLL_S) -> None:
        self.now += seconds
        self.watch.step(self.now)

    def states(self) -> dict[int, str]:
        return {one.version: servables.State.Name(one.state) for one in self.servables.statuses(spec())}

    def served(self) -> int:
        version: int = self.servables.find(spec()).version
        return version


class VersionPollerTest(PollerTestCase):
    def test_nothing_is_loaded_twice(self) -> None:
        for _ in range(3):
            self.step()
        self.assertEqual(self.load.loaded, [])
        self.assertEqual(self.states(), {1: "AVAILABLE"})

    def test_a_new_version_takes_the_place_of_the_old_one(self) -> None:
        self.folder(2)
        self.step()
        self.assertEqual(self.served(), 2)
        self.assertEqual(list(self.states().items()), [(2, "AVAILABLE"), (1, "END")])

    def test_a_version_between_two_looks_waits_for_the_next(self) -> None:
        self.step()
        self.folder(2)
        self.step(POLL_S / 2)
        self.assertEqual(self.served(), 1)
        self.step(POLL_S / 2)
        self.assertEqual(self.served(), 2)

    def test_a_lower_version_changes_nothing(self) -> None:
        self.folder(0)
        self.step()
        self.assertEqual(self.load.loaded, [])

    def test_what_goes_by_another_name_is_no_version(self) -> None:
        """So a folder can be filled under such a name and then be renamed."""
        self.folder(2).rename(self.base_path / "2.tmp")
        self.step()
        self.assertEqual(self.load.loaded, [])

    def test_the_old_version_serves_while_the_new_one_loads(self) -> None:
        seen: list[Any] = []
        load = self.load

        def slow(version: int, folder: Path) -> Any:
            seen.append((self.served(), self.states()[2], self.watch.is_loading))
            return load(version, folder)

        self.load = slow  # type: ignore[assignment]
        self.watch = self.watch_with(retries=0)
        self.folder(2)
        self.step()
        self.assertEqual(seen, [(1, "LOADING", True)])
        self.assertFalse(self.watch.is_loading)

    def test_the_old_version_stays_for_a_while_and_for_as_long_as_it_is_asked_for_by_its_number(self) -> None:
        clock = self.enterContext(mock.patch.object(version_poller.time, "monotonic", return_value=1000.0))
        self.watch = self.watch_with(retries=0, keep_s=10)
        self.folder(2)
        self.step()
        self.assertEqual((self.served(), self.states()), (2, {2: "AVAILABLE", 1: "AVAILABLE"}))
        clock.return_value += 9
        with self.servables.use(spec(1)):
            self.step()
        # A call that names no version is the new one's.
        with self.servables.use(spec()) as used:
            self.assertEqual(used.version, 2)
        clock.return_value += 9
        self.step()
        self.assertEqual(self.states()[1], "AVAILABLE")
        clock.return_value += 1
        self.step()
        self.assertEqual(self.states(), {2: "AVAILABLE", 1: "END"})

    def test_a_version_whose_folder_is_gone_is_unloaded_though_the_old_one_is_still_there(self) -> None:
        self.watch = self.watch_with(retries=0, keep_s=1e9)
        folder = self.folder(2)
        self.step()
        folder.rmdir()
        self.step()
        self.assertEqual((self.served(), self.states()), (1, {2: "END", 1: "AVAILABLE"}))
        self.assertEqual(self.load.loaded, [2])

    def test_the_old_version_ends_when_its_last_call_does(self) -> None:
        self.folder(2)
        with self.servables.use(spec(1)) as first, self.servables.use(spec()) as second:
            self.assertIs(first, second)
            self.step()
            self.assertEqual(self.served(), 2)
            self.assertEqual(self.states()[1], "UNLOADING")
            with self.assertRaisesRegex(errors.ServingError, r"Specific\(M, 1\)"), self.servables.use(spec(1)):
                self.fail("a version that is being unloaded takes no more calls")
        self.assertEqual(self.states()[1], "END")

    def test_one_call_of_two_that_ends_does_not_end_the_version(self) -> None:
        self.folder(2)
        with self.servables.use(spec()):
            with self.servables.use(spec()):
                self.step()
            self.assertEqual(self.states()[1], "UNLOADING")

    def test_a_version_that_is_back_is_not_ended_by_a_call_of_its_first_life(self) -> None:
        with self.servables.use(spec()):
            (self.base_path / "1").rmdir()
            self.step()
            self.folder(1)
            self.step()
        self.assertEqual(self.states(), {1: "AVAILABLE"})

    def test_a_broken_version_leaves_the_old_one_serving(self) -> None:
        self.load.broken[2] = errors.StartError("it is broken", grpc.StatusCode.DATA_LOSS)
        self.watch = self.watch_with(retries=0)
        self.folder(2)
        for _ in range(3):
            self.step()
        self.assertEqual(self.served(), 1)
        self.assertEqual(self.load.loaded, [2])
        (status,) = self.servables.statuses(spec(2))
        self.assertEqual(
            (status.state, status.code, status.message),
            (servables.END, grpc.StatusCode.DATA_LOSS, "it is broken"),
        )

    def test_whatever_a_load_raises_the_old_version_serves_on(self) -> None:
        self.load.broken[2] = MemoryError("too\nlarge")
        self.watch = self.watch_with(retries=0)
        self.folder(2)
        with self.assertLogs(version_poller.logger):
            self.step()
        (status,) = self.servables.statuses(spec(2))
        self.assertEqual((status.code, status.message), (grpc.StatusCode.INTERNAL, "MemoryError: too large"))
        self.assertEqual(self.served(), 1)

    def test_a_broken_version_is_tried_again_and_is_loading_meanwhile(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.folder(2)
        tries = []
        for _ in range(3):
            self.step(1e6)
            tries.append((len(self.load.loaded), self.states()[2]))
        self.assertEqual(tries, [(1, "LOADING"), (2, "LOADING"), (3, "END")])

    def test_a_version_that_loads_in_the_end_is_served(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.folder(2)
        self.step()
        del self.load.broken[2]
        self.step(1e6)
        self.assertEqual((self.served(), self.load.loaded), (2, [2, 2]))
        self.assertEqual(self.servables.statuses(spec(2))[0].code, OK)

    def test_no_try_comes_before_its_time(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.folder(2)
        self.step()
        self.watch.step(self.now)
        self.assertEqual(self.load.loaded, [2])

    def test_a_version_that_is_gone_is_not_tried_again(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        folder = self.folder(2)
        self.step()
        folder.rmdir()
        self.step(1e6)
        self.assertEqual((self.served(), self.load.loaded, self.states()[2]), (1, [2], "END"))

    def test_a_version_that_comes_back_mended_is_served(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.watch = self.watch_with(retries=0)
        folder = self.folder(2)
        self.step()
        folder.rmdir()
        self.step()
        del self.load.broken[2]
        folder.mkdir()
        self.step()
        self.assertEqual(self.served(), 2)

    def test_a_higher_version_replaces_one_that_fails(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.folder(2)
        self.step()
        self.folder(3)
        self.step()
        self.assertEqual(self.served(), 3)
        self.assertEqual(self.states(), {3: "AVAILABLE", 2: "END", 1: "END"})

    def test_without_the_newest_the_highest_that_remains_is_served_again(self) -> None:
        folder = self.folder(2)
        self.step()
        folder.rmdir()
        self.step()
        self.assertEqual(self.served(), 1)
        self.assertEqual(self.states(), {2: "END", 1: "AVAILABLE"})

    def test_without_any_version_the_model_is_unloaded_until_one_returns(self) -> None:
        (self.base_path / "1").rmdir()
        with self.assertLogs(version_poller.logger, "WARNING") as logs:
            self.step()
        self.assertIn("No versions of servable M found under base path", logs.output[0])
        with self.assertRaisesRegex(errors.ServingError, r"Servable not found for request: Latest\(M\)"):
            self.served()
        self.assertEqual(self.states(), {1: "END"})
        self.folder(1)
        self.step()
        self.assertEqual(self.served(), 1)

    def test_a_base_path_that_is_away_unloads_nothing(self) -> None:
        """It may be a network file system that comes back."""
        self.base_path.rename(self.base_path.with_name("away"))
        with self.assertLogs(version_poller.logger, "ERROR") as logs:
            self.step()
        self.assertIn("Could not find base path", logs.output[0])
        self.assertEqual(self.served(), 1)

    def test_of_two_folders_with_one_number_the_shorter_name_counts_and_both_are_named_once(self) -> None:
        for name in ("0002", "2", "02"):
            (self.base_path / name).mkdir()
        folders = []
        load = self.load

        def remember(version: int, folder: Path) -> Any:
            folders.append(folder.name)
            return load(version, folder)

        self.load = remember  # type: ignore[assignment]
        self.watch = self.watch_with(retries=0)
        with self.assertLogs(version_poller.logger, "WARNING") as logs:
            for _ in range(3):
                self.step()
        self.assertEqual(folders, ["2"])
        (line,) = logs.output
        self.assertRegex(
            line, r"Duplicate version directories detected\. Version 2 .* from .*/2, and not from .*/02, .*/0002"
        )

    def test_one_that_takes_the_place_of_another_with_its_number_is_tried(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        (self.base_path / "002").mkdir()
        self.step()
        (self.base_path / "2").mkdir()
        (self.base_path / "002").rmdir()
        folders = []
        self.watch._load = lambda version, folder: folders.append(folder.name) or servable(version)
        self.step(1e6)
        self.assertEqual(folders, ["2"])

    def test_a_client_reads_no_folder_of_the_server_and_the_log_has_it(self) -> None:
        other = Path(tempfile.gettempdir(), "model_x", "variables", "variables.index")
        for exc in (errors.StartError, ValueError):
            self.load.broken[2] = exc(f"{self.base_path / '2' / 'saved_model.pb'} is broken: no '{other}' at a/b:0")
            self.watch = self.watch_with(retries=0)
            folder = self.folder(2)
            with self.subTest(exc.__name__), self.assertLogs(version_poller.logger, "ERROR") as logs:
                self.step()
                (status,) = self.servables.statuses(spec(2))
                self.assertIn("saved_model.pb is broken: no 'variables.index' at a/b:0", status.message)
                self.assertNotIn(str(self.base_path), status.message)
                self.assertIn(str(self.base_path), logs.output[-1])
            folder.rmdir()
            self.step()

    def test_a_schedule_that_never_looks_looks_at_the_start_and_when_the_config_changes(self) -> None:
        for poll_s in (0, -1):
            with self.subTest(poll_s):
                self.watch = self.watch_with(0, poll_s=poll_s)
                self.watch.load_first()
                self.folder(2 - poll_s)
                self.step(1e6)
                self.watch.configure(self.config())
                self.step(1e6)
                self.assertNotIn(2 - poll_s, self.load.loaded)
                self.watch.configure(self.config("latest { num_versions: 9 }"))
                self.step()
                self.assertIn(2 - poll_s, self.load.loaded)


class PolicyTest(PollerTestCase):
    """Which versions are served, by the policy of the config."""

    def served_by(self, policy: str, *folders: int) -> dict[int, str]:
        for version in folders:
            self.folder(version)
        self.watch.configure(self.config(policy))
        self.step()
        return self.states()

    def test_the_latest_n(self) -> None:
        states = self.served_by("latest { num_versions: 2 }", 2, 3, 4)
        self.assertEqual(states, {4: "AVAILABLE", 3: "AVAILABLE", 1: "END"})
        self.assertEqual(self.load.loaded, [4, 3])
        self.folder(5)
        self.step()
        self.assertEqual(self.states(), {5: "AVAILABLE", 4: "AVAILABLE", 3: "END", 1: "END"})

    def test_the_latest_0_is_the_latest_one(self) -> None:
        self.assertEqual(self.served_by("latest {}", 2), {2: "AVAILABLE", 1: "END"})

    def test_all(self) -> None:
        self.assertEqual(self.served_by("all {}", 2, 7), dict.fromkeys((7, 2, 1), "AVAILABLE"))
        self.assertEqual((self.served(), self.load.loaded), (7, [7, 2]))
        (self.base_path / "7").rmdir()
        self.step()
        self.assertEqual((self.served(), self.states()), (2, {7: "END", 2: "AVAILABLE", 1: "AVAILABLE"}))

    def test_chosen_ones_also_below_the_one_that_is_served(self) -> None:
        self.served_by("latest { num_versions: 1 }", 2, 3)
        with self.assertLogs(version_poller.logger, "WARNING") as logs:
            states = self.served_by("specific { versions: 1 versions: 2 versions: 9 }")
            self.step()
        self.assertEqual((self.served(), states), (2, {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"}))
        (line,) = logs.output
        self.assertIn("Version 9 of servable M, which was requested to be served as a 'specific' version", line)

    def test_what_is_served_stays_until_a_chosen_one_is_loaded(self) -> None:
        self.served_by("all {}", 2)
        self.load.broken[3] = errors.StartError("half a copy")
        states = self.served_by("specific { versions: 3 }", 3)
        self.assertEqual((self.served(), states), (2, {3: "LOADING", 2: "AVAILABLE", 1: "END"}))

    def test_without_a_chosen_one_the_model_is_unloaded(self) -> None:
        self.assertEqual(self.served_by("specific { versions: 9 }"), {1: "END"})
        self.assertRegex(self.watch.problem, "name: M.* NOT_FOUND: No versions of servable M found")

    def test_one_of_several_that_is_broken_is_tried_again_on_its_own(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.assertEqual(self.served_by("all {}", 2, 3), {3: "AVAILABLE", 2: "LOADING", 1: "AVAILABLE"})
        del self.load.broken[2]
        self.step(1e6)
        self.assertEqual((self.states(), self.load.loaded), (dict.fromkeys((3, 2, 1), "AVAILABLE"), [3, 2, 2]))


class FirstTest(PollerTestCase):
    """What is loaded before the ports open."""

    def setUp(self) -> None:
        super().setUp()
        self.servables = servables.Servables()

    def first(self, policy: str = "", *folders: int) -> dict[int, str]:
        for version in folders:
            self.folder(version)
        self.watch = self.watch_with(2, policy=policy)
        self.watch.load_first()
        return self.states()

    def test_the_newest(self) -> None:
        self.assertEqual(self.first("", 2), {2: "AVAILABLE"})

    def test_all_and_the_broken_ones_later(self) -> None:
        self.load.broken[2] = errors.StartError("half a copy")
        self.assertEqual(self.first("all {}", 2), {1: "AVAILABLE"})
        del self.load.broken[2]
        self.watch.step(1e9)
        self.assertEqual(self.states(), {2: "AVAILABLE", 1: "AVAILABLE"})

    def test_nothing_but_broken_ones_is_an_error(self) -> None:
        for version in (1, 2):
            self.load.broken[version] = errors.StartError(f"{version} is broken")
        with self.assertRaisesRegex(errors.StartError, "2 is broken"):
            self.first("all {}", 2)

    def test_no_version_is_an_error(self) -> None:
        (self.base_path / "1").rmdir()
        with self.assertRaisesRegex(errors.StartError, "No versions of servable M found under base path"):
            self.first()
        self.base_path.rmdir()
        with self.assertRaisesRegex(errors.StartError, "Could not find base path"):
            self.first()


if __name__ == "__main__":
    unittest.main()
