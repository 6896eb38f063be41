"""Each error has a status and a code of its own, and every answer of gRPC becomes one of them."""

import unittest
from pathlib import Path

import grpc

from preprocess_service.app import errors, model_runner

README = Path(__file__).parents[2] / "README.md"


def all_errors() -> list[type]:
    return errors.ServiceError.__subclasses__()


class ErrorsTest(unittest.TestCase):
    def test_every_error_stands_in_the_tree_of_the_docstring(self) -> None:
        for error in all_errors():
            with self.subTest(error.__name__):
                row = next(line for line in errors.__doc__.splitlines() if error.__name__ in line)
                self.assertEqual(row.split()[2:4], [str(error.status), error.code])
                self.assertEqual("Retry-After" in row, error.retry_after_seconds is not None)

    def test_every_error_has_a_row_in_the_readme(self) -> None:
        readme = README.read_text(encoding="utf-8")
        for error in all_errors():
            with self.subTest(error.__name__):
                self.assertIn(f"| {error.status} | `{error.code}` |", readme)

    def test_every_grpc_status_is_mapped(self) -> None:
        self.assertEqual(set(model_runner.ERRORS), set(grpc.StatusCode) - {grpc.StatusCode.OK})

    def test_what_grpc_raises_has_a_message_of_its_own(self) -> None:
        for error in set(model_runner.ERRORS.values()):
            with self.subTest(error.__name__):
                self.assertTrue(str(error()))
