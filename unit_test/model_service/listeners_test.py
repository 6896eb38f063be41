"""Tests where gRPC listens: a Unix socket, TLS with and without client certificates, and gRPC's own arguments."""

import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service import errors
from model_service.listeners import read_listeners
from serving_common import tensorflow_protos as protos
from tools import system_packages
from unit_test import processes
from unit_test.model_service.fixtures import expected, predict_request, saved_models

TIMEOUT_S = 60
OPENSSL = system_packages.find("openssl")


def certificate() -> tuple[str, str]:
    """Return a new key and its own certificate for localhost, in PEM."""
    with tempfile.TemporaryDirectory() as folder:
        key, cert = Path(folder, "key"), Path(folder, "cert")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key)]
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        command = [OPENSSL or "", "req", "-x509", *new_key, *subject, "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
        return key.read_text(encoding="utf-8"), cert.read_text(encoding="utf-8")


def config(folder: Path, **values: Any) -> str:
    """Write an SSLConfig in text form; return its path."""
    message = protos.config_message("SSLConfig", server_key=str, server_cert=str, custom_ca=str, client_verify=bool)
    for name, value in values.items():
        setattr(message, name, value)
    path = folder / "ssl.config"
    path.write_text(protos.text_format.MessageToString(message), encoding="utf-8")
    return str(path)


class ListenersTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def assert_refused(self, text: str, socket_path: str = "", ssl: str = "", arguments: str = "") -> str:
        with self.assertRaisesRegex(errors.StartError, text) as caught:
            read_listeners("127.0.0.1:1", socket_path, ssl, arguments)
        return str(caught.exception)


@unittest.skipUnless(hasattr(socket, "AF_UNIX"), "Unix sockets")
class SocketTest(ListenersTestCase):
    def test_predictions_and_health_are_answered_on_a_socket_which_is_gone_at_the_end(self) -> None:
        path = self.folder / "grpc sock%20"
        inputs, outputs = expected("image")
        with (
            processes.model_server(saved_models() / "image", "CAT-DOG", f"--grpc_socket_path={path}") as server,
            grpc.insecure_channel(f"unix:{quote(str(path))}") as channel,
        ):
            stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(predict_request(inputs), timeout=TIMEOUT_S)
            self.assertEqual(len(response.outputs["probabilities"].float_val), outputs["probabilities"].size)
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
            self.assertEqual(health.status, health_pb2.HealthCheckResponse.SERVING)
            self.assertIn(f"Running gRPC ModelServer at UNIX socket {path} ...", server.output())
            self.assertTrue(path.is_socket())
            self.assert_refused("Failed to BuildAndStart gRPC server: .*another program listens on it", str(path))
        self.assertFalse(path.exists())

    def test_a_path_that_cannot_be_a_socket_is_refused(self) -> None:
        (self.folder / "file").write_text("mine", encoding="utf-8")
        cases = {
            "file": "it exists and is not a socket",
            "s" * 120: "a path may have 107 bytes",
            "none/socket": "No such file or directory",
            "file/socket": "Not a directory",
        }
        for name, text in cases.items():
            with self.subTest(name):
                self.assert_refused(f"Failed to BuildAndStart gRPC server: .*{text}", str(self.folder / name))
        self.assertEqual((self.folder / "file").read_text(encoding="utf-8"), "mine")

    def test_a_socket_that_a_killed_server_has_left_is_taken(self) -> None:
        path = str(self.folder / "left")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
        self.assertEqual(read_listeners("", path, "", "").addresses, [f"unix:{path}"])

    def test_a_refusal_ends_the_start_before_the_model_is_read(self) -> None:
        command = [
            sys.executable,
            str(processes.MODEL_SERVER),
            "--model_base_path=/none",
            f"--grpc_socket_path={self.folder}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 255)
        self.assertIn("it exists and is not a socket", done.stderr)


@unittest.skipUnless(OPENSSL, system_packages.why_skipped("openssl"))
class TlsTest(ListenersTestCase):
    def test_a_client_needs_the_servers_certificate_and_with_client_verify_its_own(self) -> None:
        (key, cert), (client_key, client_cert), (other_key, other_cert) = certificate(), certificate(), certificate()
        path = config(self.folder, server_key=key, server_cert=cert, custom_ca=client_cert, client_verify=True)
        with processes.model_server(saved_models() / "image", "CAT-DOG", f"--ssl_config_file={path}") as server:
            address = f"localhost:{server.grpc_port}"
            clients = {
                "right": grpc.ssl_channel_credentials(cert.encode(), client_key.encode(), client_cert.encode()),
                "other": grpc.ssl_channel_credentials(cert.encode(), other_key.encode(), other_cert.encode()),
                "without": grpc.ssl_channel_credentials(cert.encode()),
            }
            for name, credentials in clients.items():
                with self.subTest(name), grpc.secure_channel(address, credentials) as channel:
                    self.assertEqual(self.is_answered(channel), name == "right")
            with grpc.insecure_channel(address) as channel:
                self.assertFalse(self.is_answered(channel))

    def is_answered(self, channel: grpc.Channel) -> bool:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as exc:
            self.assertEqual(exc.code(), grpc.StatusCode.UNAVAILABLE)
            return False
        return True

    def test_a_broken_file_or_certificate_is_refused_and_never_quoted(self) -> None:
        (key, cert), (other_key, _) = certificate(), certificate()
        cases = {
            "other_key": (config, {"server_key": other_key, "server_cert": cert}),
            "no_key": (config, {"server_cert": cert}),
            "broken_certificate": (config, {"server_key": key, "server_cert": cert[:-200]}),
            "broken_ca": (config, {"server_key": key, "server_cert": cert, "custom_ca": "x"}),
            "no_ca": (config, {"server_key": key, "server_cert": cert, "client_verify": True}),
        }
        for case, (write, values) in cases.items():
            with self.subTest(case):
                self.assert_refused("Failed to BuildAndStart gRPC server: ", ssl=write(self.folder, **values))
        path = self.folder / "key.pem"
        path.write_text(key, encoding="utf-8")
        told = self.assert_refused("is no SSLConfig: see line 1, column 1", ssl=str(path))
        self.assertNotIn("PRIVATE", told)
        self.assert_refused("can't be read", ssl=str(self.folder / "none"))


class ArgumentsTest(ListenersTestCase):
    def test_whole_numbers_are_numbers_and_all_else_is_text(self) -> None:
        text = "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb,grpc.x=-1"
        expected_arguments = {"grpc.max_connection_age_ms": 2000, "grpc.lb_policy_name": "grpclb", "grpc.x": -1}
        self.assertEqual(read_listeners("", "", "", text).arguments, expected_arguments)
        self.assertEqual(read_listeners("", "", "", "").arguments, {})

    def test_what_is_no_pair_is_refused(self) -> None:
        for text in ("grpc.x", "=1", "grpc.x=1,y"):
            with self.subTest(text):
                self.assert_refused("is not KEY=VALUE", arguments=text)

    def test_they_take_the_place_of_the_servers_own(self) -> None:
        arguments = "--grpc_channel_arguments=grpc.max_receive_message_length=100"
        with (
            processes.model_server(saved_models() / "image", "CAT-DOG", arguments) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
            self.assertRaises(grpc.RpcError) as caught,
        ):
            stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(predict_request(expected("image")[0]), timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)


if __name__ == "__main__":
    unittest.main()
