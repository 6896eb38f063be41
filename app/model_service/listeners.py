"""Where the server listens, and TensorFlow Serving's flags for gRPC: a Unix socket, TLS and gRPC's own arguments."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc

from model_service.errors import StartError
from serving_common import sockets
from serving_common.tensorflow_protos import ParseError, config_message, text_format

_FAILED = "Failed to BuildAndStart gRPC server"


@dataclass(frozen=True)
class Listeners:
    """Each `host:port` and URL `unix:path` of gRPC, its certificates if it uses TLS, and its own arguments."""

    addresses: Sequence[str]
    credentials: grpc.ServerCredentials | None
    arguments: Mapping[str, int | str]


def read_listeners(address: str, socket_path: str, ssl_config_file: str, arguments: str) -> Listeners:
    """Return what the flags say. `address` and `socket_path` are empty if gRPC does not listen there.

    Raises StartError.
    """
    addresses = [address] if address else []
    if socket_path:
        if reason := sockets.unusable(socket_path):
            raise StartError(f"{_FAILED}: --grpc_socket_path={socket_path}: {reason}.")
        addresses.append(f"unix:{quote(socket_path)}")
    return Listeners(addresses, _credentials(ssl_config_file) if ssl_config_file else None, _arguments(arguments))


def _arguments(text: str) -> dict[str, int | str]:
    """Return gRPC's arguments from `KEY=VALUE,KEY=VALUE`, whole numbers as int."""
    arguments: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        key, is_pair, value = part.partition("=")
        if not is_pair or not key:
            raise StartError(f"--grpc_channel_arguments={text}: {part} is not KEY=VALUE.")
        arguments[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return arguments


def _credentials(config_file: str) -> grpc.ServerCredentials:
    flag = f"--ssl_config_file={config_file}"
    empty = config_message("SSLConfig", server_key=str, server_cert=str, custom_ca=str, client_verify=bool)
    try:
        config = text_format.Parse(Path(config_file).read_text(encoding="utf-8"), empty)
    except (OSError, UnicodeDecodeError) as exc:
        raise StartError(f"{flag} can't be read: {exc}.") from exc
    except ParseError as exc:
        # The error's text quotes the line, which may be a part of a private key.
        raise StartError(f"{flag} is no SSLConfig: see line {exc.GetLine()}, column {exc.GetColumn()}.") from None
    try:
        pair = config.server_key.encode(), config.server_cert.encode()
        credentials = grpc.ssl_server_credentials([pair], config.custom_ca.encode() or None, config.client_verify)
        # A server that never starts: only a port shows whether gRPC accepts the certificates.
        grpc.server(None).add_secure_port("127.0.0.1:0", credentials)
    except (RuntimeError, ValueError) as exc:
        raise StartError(
            f"{_FAILED}: {flag}: server_key and server_cert must be a PEM key and its certificate, custom_ca PEM "
            "certificates, and client_verify needs custom_ca."
        ) from exc
    return credentials


def bind(host: str, port: int, flag: str) -> socket.socket:
    """Return a bound socket; raises StartError, which names `flag`. This runs before the model is loaded."""
    try:
        return sockets.bind(host, port)
    except OSError as exc:
        raise StartError(
            f"Can't listen on {sockets.join(host, port)} ({exc.strerror}): stop the program that holds the port, "
            f"or choose another with --{flag}=."
        ) from exc
