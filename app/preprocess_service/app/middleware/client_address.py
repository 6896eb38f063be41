"""Finds the client address of a request, also behind trusted proxies."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address


class ClientAddresses:
    """Finds the client address of each request.

    Args:
        trusted_proxies: addresses and networks of the proxies whose headers are trusted.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ip_network(proxy) for proxy in trusted_proxies]

    def of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's address.

        Each proxy appends the address of its own client to ``X-Forwarded-For``, at the right. So the client's address
        is the rightmost one that is not a trusted proxy. The client may have written the addresses left of it.

        Args:
            peer: the address at the other end of the connection.
            headers: the request's headers, with names in lower case.
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
        """Return whether the other end of a connection is a trusted proxy."""
        found = _parse(peer)
        return found is not None and self._is_trusted(found)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket for IPv4 and IPv6 gives an IPv4 address as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address


def client_addresses(is_logged: bool, trusted_proxies: Iterable[str]) -> ClientAddresses | None:
    """Return a ``ClientAddresses``, or None if client addresses are not logged."""
    return ClientAddresses(trusted_proxies) if is_logged else None
