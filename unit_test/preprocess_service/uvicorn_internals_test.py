"""Of uvicorn's inside ``http_protocol`` uses what its docstring lists, and this version of uvicorn has all of it."""

import ast
import asyncio
import inspect
import re
import unittest

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from preprocess_service.app.server import http_protocol

PROTOCOL, CYCLE = (
    set(re.findall(r"``(\w+)``", part))
    for part in re.findall(r"^- ``\w+``: (.*?)[;.]$", http_protocol.__doc__ or "", re.M | re.S)
)


async def app(scope: object, receive: object, send: object) -> None:
    """An app that is never called."""


class UvicornInternalsTest(unittest.IsolatedAsyncioTestCase):
    async def test_uvicorn_has_each_part_that_is_relied_on(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = HttpToolsProtocol(Config(app, log_config=None), ServerState(), {}, loop)
        # This one comes with a request.
        protocol.url = b""
        overridden = set(re.findall(r"super\(\)\.(\w+)\(", inspect.getsource(http_protocol)))
        self.assertIn("on_headers_complete", overridden)
        for name in sorted(PROTOCOL | overridden):
            with self.subTest(name):
                self.assertTrue(hasattr(protocol, name), f"uvicorn's HttpToolsProtocol has no {name} any more")
        source = inspect.getsource(RequestResponseCycle)
        for name in sorted(CYCLE):
            with self.subTest(name):
                self.assertIn(f"self.{name} = ", source, f"uvicorn's RequestResponseCycle has no {name} any more")
        self.assertIn("self.url = ", inspect.getsource(HttpToolsProtocol), "uvicorn keeps the target elsewhere")

    def test_the_docstring_lists_each_part_that_is_used(self) -> None:
        tree = ast.parse(inspect.getsource(http_protocol.LimitedHttpProtocol))
        owned = set(vars(http_protocol.LimitedHttpProtocol))
        used: dict[str, set[str]] = {"self": set(), "cycle": set()}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            owner = ast.unparse(node.value).removeprefix("self.")
            if owner in used:
                used[owner].add(node.attr)
            if owner == "self" and isinstance(node.ctx, ast.Store) and node.attr.startswith("_"):
                owned.add(node.attr)
        self.assertEqual(used["self"] - owned - {"buffered"}, PROTOCOL)
        self.assertEqual(used["cycle"], CYCLE)


if __name__ == "__main__":
    unittest.main()
