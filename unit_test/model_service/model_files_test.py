"""Tests that a folder with unusual files is rejected before a file is opened: no hang, no memory."""

import os
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import grpc

from model_service import errors
from model_service.models import free_memory, model_files, saved_model
from unit_test.model_service.fixtures import copy_of_model

SPARSE = 10 << 30


@unittest.skipIf(os.name == "nt", "Windows has no pipes in folders")
class StrangeFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = copy_of_model("image", self.base)

    def refused(self, reason: str, refuse_unsafe: bool = False) -> errors.StartError:
        with self.assertRaisesRegex(errors.StartError, reason) as caught:
            saved_model.read_saved_model(self.folder, 1, refuse_unsafe)
        return caught.exception

    def test_a_pipe_is_never_opened(self) -> None:
        for name in (
            "saved_model.pb",
            "variables/variables.index",
            "assets/a",
            "assets.extra/tf_serving_warmup_requests",
        ):
            with self.subTest(name):
                path = self.folder / name
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
                os.mkfifo(path)
                self.refused("is neither a file nor a folder")
                path.unlink()

    def test_nor_are_sockets_and_devices(self) -> None:
        path = self.folder / "saved_model.pb"
        path.unlink()
        path.symlink_to("/dev/zero")
        self.refused("is neither a file nor a folder")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            self.refused("is neither a file nor a folder")

    def test_a_pipe_in_the_place_of_the_graph_since_the_look_does_not_hang_either(self) -> None:
        path = self.folder / "saved_model.pb"
        path.unlink()
        os.mkfifo(path)
        with self.assertRaisesRegex(errors.StartError, "is not a file"):
            saved_model.read_message(self.folder)

    def test_a_folder_in_the_place_of_the_graph_is_named(self) -> None:
        (self.folder / "saved_model.pb").unlink()
        (self.folder / "saved_model.pb").mkdir()
        self.refused("saved_model.pb can't be read")

    def test_a_graph_that_no_message_can_hold_is_not_read(self) -> None:
        path = self.folder / "saved_model.pb"
        os.truncate(path, SPARSE)
        with mock.patch.object(model_files, "free_bytes", return_value=None):
            self.refused(f"has {SPARSE} bytes; a graph can have at most {2**31 - 1}")

    def test_files_larger_than_the_memory_that_is_free_are_not_loaded(self) -> None:
        os.truncate(self.folder / "variables" / "variables.data-00000-of-00001", SPARSE)
        with mock.patch.object(model_files, "free_bytes", return_value=SPARSE - 1):
            exc = self.refused("have 10240 MiB, but only 10239 MiB of memory are free")
        self.assertEqual(exc.code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        with mock.patch.object(model_files, "free_bytes", return_value=2 * SPARSE):
            saved_model.read_saved_model(self.folder, 1)

    def test_a_folder_that_lies_in_itself_is_looked_at_once(self) -> None:
        (self.folder / "assets" / "again").symlink_to(self.folder)
        saved_model.read_saved_model(self.folder, 1)

    def test_more_files_than_a_model_has_are_refused(self) -> None:
        with mock.patch.object(model_files, "_MOST_ENTRIES", 10):
            for number in range(11):
                (self.folder / f"file {number}").touch()
            self.refused("holds more than 10 files")

    @unittest.skipIf(not hasattr(os, "getuid") or os.getuid() == 0, "root may read everything")
    def test_what_may_not_be_read_is_named(self) -> None:
        (self.folder / "variables").chmod(0)
        self.addCleanup((self.folder / "variables").chmod, 0o700)
        self.refused("variables.* can't be read")


@unittest.skipIf(os.name == "nt", "Windows lets only administrators and developers make links")
class LinksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.elsewhere = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = copy_of_model("image", self.base)

    def read(self, folder: Path) -> None:
        """Read with the check. Without it, links would be followed to any place."""
        saved_model.read_saved_model(folder, 1, refuse_unsafe=True)

    def refused(self, folder: Path) -> None:
        with self.assertRaisesRegex(errors.StartError, "is a link to a place outside of the model's base path"):
            self.read(folder)
        saved_model.read_saved_model(folder, 1)

    def test_a_base_path_that_is_a_link_is_followed(self) -> None:
        (self.elsewhere / "models").symlink_to(self.base / "image")
        self.read(self.elsewhere / "models" / "1")

    def test_links_of_a_volume_of_kubernetes_stay_within_the_base_path(self) -> None:
        """`1/saved_model.pb -> ../..data/saved_model.pb`, `..data -> ..2026_11_24`."""
        base = self.folder.parent
        (base / "..2026_11_24").mkdir()
        for part in ("saved_model.pb", "variables"):
            (self.folder / part).rename(base / "..2026_11_24" / part)
            (self.folder / part).symlink_to(Path("..", "..data", part))
        (base / "..data").symlink_to("..2026_11_24")
        self.read(self.folder)

    def test_a_version_that_is_a_link_within_the_base_path_is_followed(self) -> None:
        self.folder.rename(self.folder.with_name("model"))
        self.folder.symlink_to("model")
        self.read(self.folder)

    def test_a_version_that_is_a_link_out_of_it_is_refused(self) -> None:
        self.folder.rename(self.elsewhere / "model")
        self.folder.symlink_to(self.elsewhere / "model")
        self.refused(self.folder)

    def test_a_file_or_folder_that_is_a_link_out_of_it_is_refused(self) -> None:
        for part in ("saved_model.pb", "variables", "variables/variables.data-00000-of-00001"):
            with self.subTest(part):
                away = self.elsewhere / "part"
                (self.folder / part).rename(away)
                (self.folder / part).symlink_to(away)
                self.refused(self.folder)
                (self.folder / part).unlink()
                away.rename(self.folder / part)
        self.read(self.folder)


class FreeBytesTest(unittest.TestCase):
    def free(self, membership: str, files: dict[str, str], machine: str = "MemAvailable:  3000 kB\n") -> int | None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, text in {**files, "machine": machine, "membership": membership + "\n"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        free: int | None = free_memory.free_bytes(folder / "machine", folder / "membership", folder)
        return free

    def test_the_least_of_what_is_free_counts(self) -> None:
        stat = {"memory.stat": "anon 5\ninactive_file 300\n"}
        group = {"memory.max": "1000\n", "memory.current": "700\n", **stat}
        version_1 = {"memory.limit_in_bytes": "2000", "memory.usage_in_bytes": "900"}
        version_1["memory.stat"] = "total_inactive_file 50\n"
        for case, membership, files, expected in (
            ("a container, version 2", "0::/", group, 600),
            ("without a limit", "0::/", {**group, "memory.max": "max\n"}, 3000 << 10),
            ("the tightest around it", "0::/a/b", {f"a/{name}": text for name, text in group.items()}, 600),
            ("more used than allowed", "0::/", {**group, "memory.current": "9999\n"}, 0),
            ("version 1", "4:memory:/x", {f"memory/x/{name}": text for name, text in version_1.items()}, 1150),
            ("no group", "", {}, 3000 << 10),
        ):
            with self.subTest(case):
                self.assertEqual(self.free(membership, files), expected)

    def test_a_system_that_says_nothing_has_no_bound(self) -> None:
        self.assertIsNone(self.free("", {}, machine="MemTotal: 5 kB\n"))
        self.assertIsNone(free_memory.free_bytes(Path("none"), Path("none"), Path("none")))


if __name__ == "__main__":
    unittest.main()
