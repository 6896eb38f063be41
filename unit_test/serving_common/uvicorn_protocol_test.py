"""Tests that ``uvicorn_protocol`` lists all private parts of uvicorn that are used, and that uvicorn has them."""

import ast
import asyncio
import inspect
import re
import unittest
from types import ModuleType

from uvicorn import Config
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import ServerState

import model_service.api.http_protocol
import preprocess_service.app.server.http_protocol
from serving_common import uvicorn_protocol

SERVICES = (preprocess_service.app.server.http_protocol, model_service.api.http_protocol)
ATTRIBUTES, METHODS, CYCLE, FLOW = (
    set(re.findall(r"``(\w+)``", part))
    for part in re.findall(r"^- .*?:\n? (.*?)[;.]$", uvicorn_protocol.__doc__ or "", re.M | re.S)
)
# asyncio documents these, so they are not private.
PUBLIC = set(dir(asyncio.Protocol))


async def app(scope: object, receive: object, send: object) -> None:
    """Do nothing: this app is never called."""


def assigned(function: object) -> set[str]:
    """Return the attributes of ``self`` that a method, or a method of a class, sets."""
    return set(re.findall(r"^ +self\.(\w+)(?:: [^=\n]+)? =", inspect.getsource(function), re.M))  # type: ignore[arg-type]


def used(module: ModuleType, *owners: str) -> set[str]:
    """Return the attributes of these objects that a module uses, and the names that its classes define."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in owners:
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef) and "self" in owners:
            names.add(node.name)
    return names


class UvicornProtocolTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        protocol = httptools_impl.HttpToolsProtocol(
            Config(app, log_config=None), ServerState(), {}, asyncio.get_running_loop()
        )
        self.protocol = set(dir(protocol)) | assigned(httptools_impl.HttpToolsProtocol.on_message_begin)
        self.flow = set(dir(flow_control.FlowControl)) | assigned(flow_control.FlowControl)

    async def test_uvicorn_has_each_part_that_is_listed(self) -> None:
        for owner, listed, there in (
            ("HttpToolsProtocol", ATTRIBUTES | METHODS, self.protocol),
            ("RequestResponseCycle", CYCLE, assigned(httptools_impl.RequestResponseCycle)),
            ("FlowControl", FLOW, self.flow),
        ):
            self.assertTrue(listed)
            for name in sorted(listed - there):
                self.fail(f"uvicorn's {owner} has no {name} any more: serving_common/uvicorn_protocol.py relies on it")

    async def test_each_part_of_uvicorn_that_is_used_is_listed(self) -> None:
        ours = set().union(*(used(module, "self", "super()") for module in (uvicorn_protocol, *SERVICES)))
        theirs = {name for name in self.protocol | self.flow if not name.startswith("__")} - PUBLIC
        self.assertEqual(ours & theirs, ATTRIBUTES | METHODS | FLOW)
        self.assertEqual(used(uvicorn_protocol, "cycle", "self.cycle"), CYCLE)
        for module in SERVICES:
            with self.subTest(module.__name__):
                self.assertFalse(used(module, "cycle", "self.cycle"), "only uvicorn_protocol.py looks into a request")


if __name__ == "__main__":
    unittest.main()
