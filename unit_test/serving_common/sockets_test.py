"""Tests that a port is bound without listening, and that a taken one raises OSError."""

import socket
import unittest

from serving_common import sockets
from unit_test.processes import free_port


class ClaimTest(unittest.TestCase):
    def test_a_claimed_port_takes_no_connections_yet(self) -> None:
        port = free_port()
        with sockets.bind("127.0.0.1", port), self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    def test_a_taken_port_is_refused(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with self.assertRaises(OSError):
                sockets.bind("127.0.0.1", port)

    def test_an_address_of_another_machine_is_refused(self) -> None:
        with self.assertRaises(OSError):
            sockets.bind("192.0.2.1", free_port())

    def test_an_ipv6_address_is_written_in_brackets(self) -> None:
        self.assertEqual(sockets.join("::1", 8500), "[::1]:8500")
        self.assertEqual(sockets.join("0.0.0.0", 8500), "0.0.0.0:8500")


if __name__ == "__main__":
    unittest.main()
