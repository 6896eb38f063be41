"""Whom a request came from, as far as proxies that are trusted tell it."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address


class ClientAddresses:
    """Finds the address of each request's sender.

    Args:
        trusted_proxies: addresses and networks of proxies that are believed.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ip_network(proxy) for proxy in trusted_proxies]

    def of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The sender's address.

        Each proxy adds the address that it was asked from at the right. So the last one that no trusted proxy has is
        the sender's; what stands further to the left was written by the sender itself.

        Args:
            peer: the other end of the connection.
            headers: of the request, their names in lower case.
        """
        found = _parse(peer)
        if found is None or not self.trusts(peer):
            return str(found or peer)
        forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        for text in reversed(forwarded.split(",")):
            address = _parse(text.strip())
            if address is None:
                break
            found = address
            if not self._is_trusted(found):
                break
        return str(found)

    def trusts(self, peer: str) -> bool:
        """Whether the other end of a connection is one of these proxies."""
        found = _parse(peer)
        return found is not None and self._is_trusted(found)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # An IPv4 address in the form in which a socket for both kinds has it.
    return getattr(address, "ipv4_mapped", None) or address


def client_addresses(is_logged: bool, trusted_proxies: Iterable[str]) -> ClientAddresses | None:
    """What finds the addresses, where they are logged at all."""
    return ClientAddresses(trusted_proxies) if is_logged else None
