"""Tests that a made-up course of few lines is followed, and that a difference from what it says is reported."""

import contextlib
import io
import os
import shlex
import socket
import sys
import time
import unittest
import warnings
from unittest import mock

from tools.course.blocks import CourseError
from unit_test.processes import answers, free_port
from unit_test.tools.course.blocks_test import FolderCase

if os.name != "nt":
    from tools.course import follow


@unittest.skipIf(os.name == "nt", "the course is followed in bash")
class CompareTest(unittest.TestCase):
    def test_numbers_may_differ_and_dots_stand_for_any_lines(self) -> None:
        for expected, printed in (
            ("CAT 99.98 %", "CAT 3 %"),
            ("in 1.5e-3 s, 1,000 of 10", "in 20 s,  7 of 2500 \n"),
            ("one\n...\nfour", "one\ntwo\nthree\nfour\n"),
            ("one\n...\nfour", "one\nfour"),
            ("...\nfour", "four"),
            ("...", "anything\n\nat all"),
        ):
            with self.subTest(expected):
                follow.compare(expected, printed, exact=False)

    def test_other_texts_lines_and_if_exact_numbers_are_differences(self) -> None:
        for expected, printed, exact in (
            ("CAT 99 %", "DOG 99 %", False),
            ("one", "one\ntwo", False),
            ("one\n...\nfour", "one\ntwo", False),
            ("one.", "one!", False),
            ("CAT", "", False),
            ("7", "", False),
            ("7", "8", True),
            ("one\n...\n7", "one\n\n8", True),
        ):
            with self.subTest(expected), self.assertRaisesRegex(CourseError, "it printed:"):
                follow.compare(expected, printed, exact)
        follow.compare("one\n...\n7", "one\n8\n7", exact=True)


@unittest.skipIf(os.name == "nt", "the course is followed in bash")
class EnvironmentTest(unittest.TestCase):
    def test_it_is_the_one_of_a_user_who_has_just_logged_in(self) -> None:
        active = {"PATH": "/v/bin:/usr/bin:/w/bin", "VIRTUAL_ENV": "/v", "HOME": "/home/a"}
        foreign = {"SERVICE_CONFIG": "x", "MODEL_NAME": "x", "TEST_URL": "x", "PYTHONPATH": "x", "PYTHONWARNINGS": "x"}
        with mock.patch.multiple(sys, prefix="/w", base_prefix="/usr"):
            cleaned = follow.clean_environment(active | foreign)
        self.assertEqual(cleaned, {"PATH": "/usr/bin", "HOME": "/home/a"})

    def test_the_systems_own_programs_stay(self) -> None:
        with mock.patch.multiple(sys, prefix="/usr", base_prefix="/usr"):
            self.assertEqual(follow.clean_environment({"PATH": "/usr/bin"}), {"PATH": "/usr/bin"})


@unittest.skipIf(os.name == "nt", "the course is followed in bash")
class FollowTest(FolderCase):
    def setUp(self) -> None:
        super().setUp()
        # A system may call its Python something else, and in an environment it is not on the path that is left.
        programs = self.project.parent / "bin"
        programs.mkdir()
        (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
        (programs / "python").chmod(0o755)
        self.enterContext(mock.patch.dict(os.environ, {"PATH": f"{programs}:{os.environ['PATH']}"}))
        # From Python 3.12 on, a terminal that is opened while threads run is such a warning.
        self.enterContext(warnings.catch_warnings(action="ignore", category=DeprecationWarning))

    def follow(self, text: str) -> str:
        """Do the blocks of this text in their order; return what the follower prints."""
        names = self.read(text)
        chapter = "\n\n".join(f"<!-- block: {name} -->" for name in names)
        (self.course / "pt" / "03_nome.md").write_text(chapter, encoding="utf-8")
        follower = follow.Follower("pt", self.course)
        follower.folder = self.project
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            follower.do(3)
        return printed.getvalue()

    def assert_stops(self, text: str, *messages: str) -> None:
        """Check that the follower stops with these texts in its message."""
        with self.assertRaises(CourseError) as caught:
            self.follow(text)
        for message in messages:
            self.assertIn(message, str(caught.exception))

    def test_it_does_what_each_kind_of_block_says(self) -> None:
        printed = self.follow(
            "notes: {file: notes/a.txt, content: hello}\n"
            "change: {replace: code.py, symbol: last, with: 'def last(): return 42'}\n"
            "ask:\n  python: |\n    import code\n    from pathlib import Path\n    Path('made.txt').write_text('x')\n"
            "answer: {output: '5', exact: false}\n"
            "use:\n  run: |\n    python -c \"from code import last; print('last', last())\"\n    cat notes/a.txt\n"
            'used: {output: "last 42\\nhello", exact: true}\n'
            "elsewhere: {run: no-such-command, on: windows}\n"
            "elsewhere-says: {output: nothing, on: windows}\n"
            "expensive: {run: no-such-command, untried: it takes a day}\n"
            "expensive-says: {output: done}\n"
            "here: {run: echo again}\n"
            "here-says: {output: again}\n"
        )
        self.assertEqual((self.project / "notes" / "a.txt").read_text(encoding="utf-8"), "hello\n")
        self.assertEqual((self.project / "made.txt").read_text(encoding="utf-8"), "x")
        self.assertRegex(printed, r"03_nome\.md\n    notes \(file\): \d+\.\d s\n")
        self.assertIn("##  SKIPPED: expensive: it takes a day  ##", printed)
        self.assertIn("##  SKIPPED: expensive-says: ", printed)
        self.assertNotIn("elsewhere", printed)

    def test_a_python_block_shows_what_pythons_prompt_shows(self) -> None:
        self.follow(
            "ask:\n  python: |\n    answer = {'a': 1}\n    answer\n\n    for n in (1, 2):\n        n\n\n    None\n"
            "answer: {output: \"{'a': 1}\\n1\\n2\", exact: true}\n"
            "wrong:\n  python: |\n    print('before')\n    answer\n  fails: true\n"
            'why: {output: "before\\nTraceback (most recent call last):\\n  File \\"<stdin>\\", line 2, in <module>\\n'
            "NameError: name 'answer' is not defined\"}\n"
        )

    def test_a_block_that_does_something_else_is_named(self) -> None:
        for text, message in {
            "go: {run: 'echo oops; false'}": "it ended with status 1 and printed:\noops",
            'go: {run: "false\\necho never"}': "it ended with status 1 and printed:\n",
            "go: {python: '1/0'}": "ZeroDivisionError",
            "go: {run: echo fine, fails: true}": "it ended with status 0 and printed:\nfine",
            "say: {run: echo CAT}\ngo: {output: DOG}": "it printed:\nCAT",
            "go: {output: DOG}": "it printed:\n",
            "go: {replace: code.py, symbol: none, with: x}": "0 functions or classes are called none",
            "go: {stop: main}": "nothing runs in this terminal",
            "go: {run: exit}": "it closed the terminal",
        }.items():
            with self.subTest(text):
                self.assert_stops(text, "03_nome.md: block go:\n", message)

    def test_a_chapter_or_a_block_that_is_not_there_is_named(self) -> None:
        with self.assertRaisesRegex(CourseError, "there is no chapter 3"):
            follow.Follower("pt", self.course).do(3)
        (self.course / "pt" / "03_nome.md").write_text("<!-- block: gone -->", encoding="utf-8")
        silent = contextlib.redirect_stdout(io.StringIO())
        with silent, self.assertRaisesRegex(CourseError, "03_nome.md: there is no block gone"):
            follow.Follower("pt", self.course).do(3)

    def test_a_server_is_awaited_and_stopped(self) -> None:
        port = free_port()
        self.follow(
            f"serve: {{run: python -u -m http.server {port} --bind 127.0.0.1, terminal: web, "
            f"ready: 'http://127.0.0.1:{port}/'}}\n"
            "ask:\n  python: |\n    from urllib.request import urlopen\n\n"
            f"    with urlopen('http://127.0.0.1:{port}/code.py') as answer: print(answer.status)\n\n"
            "answer: {output: '200', exact: true}\n"
            "stop: {stop: web}\n"
            f'says: {{output: "Serving HTTP on 127.0.0.1 port 1 (http://127.0.0.1:1/) ...\\n...\\n'
            'Keyboard interrupt received, exiting."}\n'
            "again: {run: echo free, terminal: web}\n"
            "free: {output: free}\n"
        )
        self.assertFalse(answers(f"http://127.0.0.1:{port}/"))

    def test_a_server_that_the_chapter_leaves_running_ends_with_it(self) -> None:
        port = free_port()
        serve = f"serve: {{run: python -m http.server {port} --bind 127.0.0.1, ready: 'http://127.0.0.1:{port}/'}}\n"
        ask = f"go: {{terminal: other, python: \"from urllib.request import urlopen\\nurlopen('http://127.0.0.1:{port}/none').read()\"}}\n"
        # What the server has printed is part of the message.
        self.assert_stops(serve + ask, "block go", "The terminal main shows:\n", "code 404, message File not found")
        self.assertFalse(answers(f"http://127.0.0.1:{port}/"))

    def test_a_server_that_ends_at_once_or_runs_already_is_reported(self) -> None:
        port = free_port()
        ready = f"ready: 'http://127.0.0.1:{port}/'"
        serve = f"serve: {{run: python -m http.server {port} --bind 127.0.0.1, {ready}}}\n"
        for text, message in {
            f"go: {{run: python -c 'exit(\"no model\")', {ready}}}": "it ended with status 1:\nno model",
            f"{serve}go: {{run: python -m http.server {port}, terminal: b, {ready}}}": "is answered before the command",
        }.items():
            with self.subTest(text):
                begin = time.monotonic()
                self.assert_stops(text, "03_nome.md: block go:\n", message)
                self.assertLess(time.monotonic() - begin, 20)

    def test_a_server_that_is_ended_from_elsewhere_frees_its_terminal(self) -> None:
        port = free_port()
        code = "import http.server, os, signal, time; print(os.getpid(), file=open('pid', 'w', encoding='utf-8')); "
        serve = f"http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
        self.follow(
            f'serve:\n  run: python -c "{code}{serve}"\n  terminal: web\n  ready: http://127.0.0.1:{port}/\n'
            "kill:\n  python: |\n    import os, signal\n    os.kill(int(open('pid').read()), signal.SIGTERM)\n"
            "go: {run: echo free, terminal: web}\n"
            "free: {output: free}\n"
        )

    def test_a_port_that_is_taken_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            message = f"port {port} is used by another program"
            with mock.patch.object(follow, "PORTS", (free_port(), port)), self.assertRaisesRegex(CourseError, message):
                follow.refuse_taken_ports()
        with mock.patch.object(follow, "PORTS", (port,)):
            follow.refuse_taken_ports()

    def test_it_begins_with_a_clone_of_the_present_state_in_an_empty_folder(self) -> None:
        def git(*arguments: str) -> None:
            follow._git(self.project, *arguments)

        git("init", "--quiet")
        (self.project / ".gitignore").write_text(".venv\n", encoding="utf-8")
        (self.project / ".venv").mkdir()
        (self.project / ".venv" / "large").write_text("x", encoding="utf-8")
        (self.course / "blocks" / "01.yaml").write_text(
            "clone: {run: git clone ADDRESS cat-dog}\nlook: {run: ls cat-dog}\nfiles: {output: code.py, exact: true}\n",
            encoding="utf-8",
        )
        (self.course / "pt" / "01_um.md").write_text(
            "<!-- block: clone -->\n<!-- block: look -->\n<!-- block: files -->\n", encoding="utf-8"
        )
        follower = follow.Follower("pt", self.course)
        empty = self.project.parent / "empty"
        empty.mkdir()
        with mock.patch.object(follow, "PROJECT", self.project), contextlib.redirect_stdout(io.StringIO()):
            follower.begin_in(empty)
            follower.do(1)
        self.assertEqual(follower.folder, empty / "work" / "cat-dog")
        self.assertTrue((follower.folder / ".gitignore").is_file())


@unittest.skipIf(os.name == "nt", "the course is followed in bash")
class CommandTest(unittest.TestCase):
    def test_chapters_that_it_cannot_do_are_refused(self) -> None:
        for arguments, message in {
            ("pt", "--chapters", "3"): "chapter 1 comes first",
            ("pt", "--chapters", "5-3"): "not in order",
            ("pt", "--chapters", "1-3,2"): "not in order",
            ("pt", "--chapters", "all"): "--chapters",
            ("fr",): "invalid choice",
        }.items():
            with self.subTest(arguments):
                error = io.StringIO()
                with (
                    mock.patch.object(sys, "argv", ["follow", *arguments]),
                    contextlib.redirect_stderr(error),
                    self.assertRaises(SystemExit),
                ):
                    follow.main()
                self.assertIn(message, error.getvalue())


if __name__ == "__main__":
    unittest.main()
