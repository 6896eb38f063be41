"""A port is claimed without being opened, and a taken one is named together with the flag that changes it."""

import socket
import unittest

from model_service import errors
from model_service import sockets
from unit_test.processes import free_port


class ClaimTest(unittest.TestCase):
    def test_a_claimed_port_takes_no_connections_yet(self) -> None:
        port = free_port()
        with sockets.claim("127.0.0.1", port, "port"), self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    def test_a_taken_port_is_refused_with_the_flag_that_changes_it(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with self.assertRaisesRegex(errors.StartError, f"127.0.0.1:{port} .*--rest_api_port="):
                sockets.claim("127.0.0.1", port, "rest_api_port")

    def test_an_address_of_another_machine_is_refused(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "192.0.2.1"):
            sockets.claim("192.0.2.1", free_port(), "port")

    def test_an_ipv6_address_is_written_in_brackets(self) -> None:
        self.assertEqual(sockets.join("::1", 8500), "[::1]:8500")
        self.assertEqual(sockets.join("0.0.0.0", 8500), "0.0.0.0:8500")


if __name__ == "__main__":
    unittest.main()
