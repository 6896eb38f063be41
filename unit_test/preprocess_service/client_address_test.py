"""Tests which client address is logged, with and without trusted proxies."""

import unittest

from preprocess_service.app.middleware import client_address


class ClientAddressTest(unittest.TestCase):
    def check(self, peer: str, forwarded: list[str], expected: str, proxies: tuple[str, ...] = ("10.0.0.0/8",)) -> None:
        headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
        found = client_address.ClientAddresses(proxies).of(peer, [(b"host", b"x"), *headers])
        self.assertEqual(found, expected)

    def test_nobody_is_believed_who_is_not_named(self) -> None:
        self.check("192.0.2.1", ["198.51.100.7"], "192.0.2.1")
        self.check("127.0.0.1", ["198.51.100.7"], "127.0.0.1", ())

    def test_of_a_named_proxy_the_last_address_that_is_no_proxys_counts(self) -> None:
        for forwarded, expected in (
            (["198.51.100.7"], "198.51.100.7"),
            # The client itself wrote the address at the left.
            (["203.0.113.5, 198.51.100.7"], "198.51.100.7"),
            (["203.0.113.5", "198.51.100.7"], "198.51.100.7"),
            (["198.51.100.7, 10.0.0.9"], "198.51.100.7"),
            (["2001:db8::7"], "2001:db8::7"),
            (["10.0.0.8"], "10.0.0.8"),
            ([], "10.0.0.1"),
        ):
            with self.subTest(forwarded):
                self.check("10.0.0.1", forwarded, expected)

    def test_what_is_no_address_ends_the_search(self) -> None:
        for forwarded in (["198.51.100.7, nonsense"], ["\xe9"], [""], ["unknown"]):
            with self.subTest(forwarded):
                self.check("10.0.0.1", forwarded, "10.0.0.1")

    def test_an_ipv4_address_on_a_socket_for_both_kinds_is_that_address(self) -> None:
        self.check("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7")
        self.check("::ffff:192.0.2.1", [], "192.0.2.1")


if __name__ == "__main__":
    unittest.main()
