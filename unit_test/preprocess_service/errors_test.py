"""Tests that each error has its own status and code, and that each gRPC status becomes one of them."""

import unittest

import grpc

from preprocess_service.app import errors, model_runner


def all_errors() -> list[type]:
    return errors.ServiceError.__subclasses__()


class ErrorsTest(unittest.TestCase):
    def test_every_error_stands_in_the_tree_of_the_docstring(self) -> None:
        for error in all_errors():
            with self.subTest(error.__name__):
                row = next(line for line in errors.__doc__.splitlines() if error.__name__ in line)
                self.assertEqual(row.split()[2:4], [str(error.status), error.code])
                self.assertEqual("Retry-After" in row, error.retry_after_seconds is not None)

    def test_every_grpc_status_is_mapped(self) -> None:
        self.assertEqual(set(model_runner.ERRORS), set(grpc.StatusCode) - {grpc.StatusCode.OK})

    def test_what_grpc_raises_has_a_message_of_its_own(self) -> None:
        for error in set(model_runner.ERRORS.values()):
            with self.subTest(error.__name__):
                self.assertTrue(str(error()))
