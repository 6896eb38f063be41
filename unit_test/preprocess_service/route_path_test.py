"""Paths: HEAD, a slash at the end, and a prefix that a proxy puts before all, also with the real nginx and Chromium."""

import socket
import unittest
from contextlib import closing
from typing import Any

import requests
from starlette.datastructures import Headers

from preprocess_service.app import app_server, config
from preprocess_service.app.middleware.route_path import forwarded_prefix
from tools.chaos import stage
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner
from unit_test.preprocess_service.http_server import serving

KEY = "0123456789abcdef"
ROUTES = ("/", "/livez", "/model", "/metrics", "/docs")
GETS = (*ROUTES, "/openapi.json", "/static/page.js", "/samples/cat_1.jpg")
PHOTO = {"image_b64": CAT}
# In front of a service below /pets: as most set it up, with the prefix taken off, and as it comes.
NGINX = """
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 21m;
    client_body_buffer_size 1m;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location /livez {{ return 200; }}
        location /pets/ {{
            proxy_pass http://{service}/;
            proxy_set_header X-Forwarded-Prefix /pets;
        }}
        location /kept {{
            proxy_pass http://{service};
            proxy_set_header X-Forwarded-Prefix /kept;
        }}
        location /silent/ {{ proxy_pass http://{service}/; }}
    }}
}}
"""


class PathTest(unittest.TestCase):
    def serve(self, **environment: str) -> None:
        self.url = self.enterContext(serving(app_server.create_app(config.load_config(environment), FakeRunner())))

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", timeout=60, allow_redirects=False, **options)


class HeadTest(PathTest):
    def test_head_is_answered_like_get_without_the_body(self) -> None:
        self.serve()
        for path in GETS:
            with self.subTest(path):
                got, answer = self.ask("GET", path), self.ask("HEAD", path)
                self.assertEqual((got.status_code, answer.status_code, answer.content), (200, 200, b""))
                # The metrics have changed meanwhile.
                for name in ("content-type", "etag", *(() if path == "/metrics" else ("content-length",))):
                    self.assertEqual(answer.headers.get(name), got.headers.get(name), name)
        # The processes that decode may not have been started yet.
        answer = self.ask("HEAD", "/readyz")
        self.assertIn(answer.status_code, (200, 503))
        self.assertEqual((answer.headers["content-type"], answer.content), ("application/json", b""))

    def test_the_connection_goes_on_behind_it(self) -> None:
        self.serve()
        with socket.create_connection(self.url.removeprefix("http://").split(":"), timeout=60) as client:
            head = b" HTTP/1.1\r\nHost: x\r\n"
            client.sendall(b"".join(b"HEAD %b%b\r\n" % (path.encode(), head) for path in GETS))
            client.sendall(b"GET /livez" + head + b"Connection: close\r\n\r\n")
            received = b""
            while part := client.recv(65536):
                received += part
        self.assertEqual(received.count(b"HTTP/1.1 200 OK\r\n"), len(GETS) + 1)
        self.assertEqual(received.count(b"\r\n\r\n"), len(GETS) + 1)

    def test_what_is_allowed_is_told(self) -> None:
        self.serve()
        for path in (*ROUTES, "/readyz"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                with self.subTest(path, method=method):
                    answer = self.ask(method, path)
                    self.assertEqual((answer.status_code, answer.headers["allow"]), (405, "GET, HEAD"))
        for method in ("GET", "HEAD"):
            answer = self.ask(method, "/predict")
            self.assertEqual((answer.status_code, answer.headers["allow"]), (405, "POST"))
        self.assertEqual(self.ask("HEAD", "/cats").status_code, 404)
        document = self.ask("GET", "/openapi.json").json()
        self.assertEqual({method for item in document["paths"].values() for method in item}, {"get", "post"})


class SlashTest(PathTest):
    def test_each_route_may_have_a_slash_at_its_end(self) -> None:
        self.serve()
        for path in ("/predict/", "/cat-dog_classification/", "/predict%2F"):
            self.assertEqual(self.ask("POST", path, json=PHOTO).status_code, 200, path)
        self.assertEqual(self.ask("POST", "/predict/batch/", json={"images_b64": [CAT]}).status_code, 200)
        for path in ("/livez/", "/model/", "/metrics/", "/docs/", "/openapi.json/"):
            self.assertEqual(self.ask("GET", path).status_code, 200, path)
        for path in ("/static/", "/samples/", "/livez//", "//", "/cats/", "/pets/livez"):
            self.assertEqual(self.ask("GET", path).status_code, 404, path)
        self.assertEqual(self.ask("POST", "/predict//", json=PHOTO).status_code, 404)
        text = self.ask("GET", "/metrics").text
        self.assertIn('catdog_requests_total{route="/predict",status="200"} 2.0', text)

    def test_a_slash_opens_no_door(self) -> None:
        self.serve(SERVICE_API_KEYS=KEY)
        for path in ("/model/", "/metrics/"):
            self.assertEqual(self.ask("GET", path).status_code, 401, path)
        self.assertEqual(self.ask("POST", "/predict/", json=PHOTO).status_code, 401)
        for path in ("/livez/", "/docs/", "/openapi.json/"):
            self.assertEqual(self.ask("GET", path).status_code, 200, path)


class PrefixTest(PathTest):
    def servers(self, path: str = "/openapi.json", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return [server["url"] for server in self.ask("GET", path, headers=named).json().get("servers", [])]

    def test_below_the_prefix_of_the_settings_all_routes_are_there(self) -> None:
        for setting in ("/pets", "/pets/"):
            self.serve(SERVICE_ROOT_PATH=setting)
            for prefix in ("/pets", ""):
                for path in GETS:
                    with self.subTest(prefix + path):
                        self.assertEqual(self.ask("GET", prefix + path).status_code, 200)
                self.assertEqual(self.ask("POST", f"{prefix}/predict/", json=PHOTO).status_code, 200)
                self.assertEqual(self.servers(f"{prefix}/openapi.json"), ["/pets"])
            for path in ("/petstore/livez", "/pets/pets/livez", "//pets/livez"):
                self.assertEqual(self.ask("GET", path).status_code, 404)
            answer = self.ask("GET", "/pets", headers={"Host": "evil.example"})
            self.assertEqual((answer.status_code, answer.headers["location"]), (307, "/pets/"))
            self.assertIn("x-request-id", answer.headers)

    def test_a_prefix_opens_no_door(self) -> None:
        self.serve(SERVICE_ROOT_PATH="/pets", SERVICE_API_KEYS=KEY, SERVICE_TRUSTED_PROXIES="127.0.0.1")
        for headers in ({}, {"X-Forwarded-Prefix": "/static"}, {"X-Forwarded-Prefix": "/docs"}):
            for path in ("/pets/model", "/static/model", "/docs/model", "/model", "/pets/metrics/"):
                with self.subTest(path, headers=headers):
                    self.assertIn(self.ask("GET", path, headers=headers).status_code, (401, 404))
            self.assertEqual(self.ask("POST", "/pets/predict", json=PHOTO, headers=headers).status_code, 401)

    def test_only_a_trusted_proxy_tells_the_prefix(self) -> None:
        self.serve()
        self.assertEqual(self.servers(X_Forwarded_Prefix="/pets"), [])
        self.serve(SERVICE_TRUSTED_PROXIES="192.0.2.1")
        self.assertEqual(self.servers(X_Forwarded_Prefix="/pets"), [])
        self.serve(SERVICE_TRUSTED_PROXIES="192.0.2.1,127.0.0.1", SERVICE_ROOT_PATH="/cats")
        self.assertEqual(self.servers(X_Forwarded_Prefix="/pets"), ["/pets"])
        self.assertEqual(self.servers("/pets/openapi.json", X_Forwarded_Prefix="/pets/"), ["/pets"])
        self.assertEqual(self.servers(X_Forwarded_Prefix="/a, /b"), ["/a/b"])
        for hostile in (
            *("//evil.example", "https://evil.example", "/\\evil.example", "/a//b", "/../a", "/a/..", "/.", "pets"),
            *("/a?b", "/a#b", "/<script>", "/a b", "/%2e%2e", "/" + "a" * 300, "/a\tb", "/\u00e9", "/, /"),
        ):
            with self.subTest(hostile):
                sent = {"X-Forwarded-Prefix": hostile.encode("latin-1")}
                self.assertEqual(self.ask("GET", "/openapi.json", headers=sent).json()["servers"], [{"url": "/cats"}])
        self.assertEqual(forwarded_prefix(Headers({"x-forwarded-prefix": "/a\r\nb: c"})), "")

    def test_a_prefix_that_is_no_path_stops_the_start(self) -> None:
        for prefix in ("pets", "//pets", "/pets?", "/a/../b", "https://x/"):
            with self.subTest(prefix), self.assertRaisesRegex(config.ConfigError, "SERVICE_ROOT_PATH"):
                config.load_config({"SERVICE_ROOT_PATH": prefix})
        self.assertEqual(config.load_config({"SERVICE_ROOT_PATH": "/"}).server.root_path, "")


class NginxTest(PathTest):
    def setUp(self) -> None:
        self.serve(SERVICE_TRUSTED_PROXIES="127.0.0.1")
        place = self.enterContext(stage.Stage())
        port = stage.free_port()
        try:
            nginx = place.nginx(port, [port, port])
        except stage.Missing as exc:
            self.skipTest(str(exc))
        text = NGINX.format(port=port, service=self.url.removeprefix("http://"))
        (place.folder / "nginx.conf").write_text(text, encoding="utf-8")
        nginx.start()
        self.url = f"http://127.0.0.1:{port}"

    def test_behind_a_proxy_with_a_prefix_all_routes_are_there(self) -> None:
        for prefix in ("/pets", "/kept", "/silent"):
            for path in GETS:
                with self.subTest(prefix + path):
                    self.assertEqual(self.ask("GET", prefix + path).status_code, 200)
                    self.assertEqual(self.ask("HEAD", prefix + path).status_code, 200)
            self.assertEqual(self.ask("POST", f"{prefix}/predict/", json=PHOTO).status_code, 200)
            # nginx's own redirect, or ours.
            self.assertTrue(self.ask("GET", prefix).headers["location"].endswith(f"{prefix}/"))
        for prefix, expected in (("/pets", [{"url": "/pets"}]), ("/kept", [{"url": "/kept"}]), ("/silent", None)):
            self.assertEqual(self.ask("GET", f"{prefix}/openapi.json").json().get("servers"), expected)

    def test_the_page_and_the_docs_work_below_it(self) -> None:
        from unit_test.preprocess_service.page_browser import IMAGES, Visit, browser

        started = self.enterContext(browser())
        for prefix in ("/pets", "/kept", "/silent"):
            with self.subTest(prefix), closing(Visit(started, f"{self.url}{prefix}/")) as visit:
                visit.choose(IMAGES / "dog_1.jpg")
                self.assertEqual(visit.verdict("dog_1.jpg"), "Dog")
                self.assertEqual(visit.complaints, [])
        for path in ("/pets/docs", "/kept/docs/", "/silent/docs/"):
            with self.subTest(path), closing(started.new_context()) as context:
                page = context.new_page()
                page.goto(f"{self.url}{path}")
                page.locator("#operations-default-livez_livez_get").click()
                if path.startswith("/silent"):
                    continue
                page.get_by_role("button", name="Try it out").click()
                with page.expect_response(lambda response: response.url.endswith("/livez")) as answer:
                    page.get_by_role("button", name="Execute").click()
                self.assertEqual(answer.value.url, f"{self.url}{path[:5]}/livez")
                self.assertEqual(answer.value.status, 200)


if __name__ == "__main__":
    unittest.main()
