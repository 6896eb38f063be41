"""Tests the course as web pages at `/course/`: with a small course of the test's own, and with the real one."""

import http.client
import re
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urljoin, urlsplit

import requests

from preprocess_service.app import app_server, config
from preprocess_service.app.api.course import site
from unit_test.preprocess_service.app_server_test import FakeRunner
from unit_test.preprocess_service.http_server import serving

APP = Path(__file__).parents[2] / "app"
KEY = "0123456789abcdef"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 1"><rect width="4" height="1" fill="#12857c"/></svg>'
CHAPTER = """# 1. {title}

[{contents}](README.md) · [{language}](../{other}/01_a.md)

![A diagram](../pictures/way.svg) ![Lost](../pictures/lost.svg)

## A *heading*: `serve`, twice

<!-- block: serve -->
```sh
python run.py serve <now> & a line that is much wider than any phone, so that it must be scrolled to be read to its end
```

## A *heading*: `serve`, twice

| line | what it does | {long} |
| --- | ---: | :-: |
| `a_name_that_is_rather_long(argument, another=1)` | one | two |

See [the routes](../../../app/preprocess_service/app/api/routes.py), [`docs/api.md`](../../api.md#errors),
[Python](https://www.python.org/), <http://localhost:7998/> and [a heading](#a-heading-serve-twice-1).

1. one
2. two

<details><summary>1. Why &lt;so&gt;?</summary>

Because **so**.

</details>
"""


def write_course(folder: Path) -> None:
    """Write a small course with all that the real one may have."""
    (folder / "pictures").mkdir()
    (folder / "pictures" / "way.svg").write_text(SVG, encoding="utf-8")
    (folder / "pictures" / "way.mmd").write_text("flowchart LR", encoding="utf-8")
    (folder / "blocks").mkdir()
    (folder / "blocks" / "01.yaml").write_text("secret: 1", encoding="utf-8")
    for name, title, contents, language, other in (
        ("pt", "O microsserviço", "Sumário", "English", "en"),
        ("en", "The microservice", "Contents", "Português", "pt"),
    ):
        (folder / name).mkdir()
        text = CHAPTER.format(title=title, contents=contents, language=language, other=other, long="a long head")
        (folder / name / "01_a.md").write_text(text, encoding="utf-8")
        (folder / name / "README.md").write_text(
            f"# {contents}\n\n[{language}](../{other}/README.md)\n\n- [{title}](01_a.md)\n", encoding="utf-8"
        )


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(name)) is not None]


class CourseTest(unittest.TestCase):
    def serve(self, folder: Path | None = None, **environment: str) -> None:
        """Serve with the course in ``folder``, by default a small one."""
        if folder is None:
            folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
            write_course(folder)
        with mock.patch.object(site, "FOLDER", folder):
            app = app_server.create_app(config.load_config(environment), FakeRunner())
        self.url = self.enterContext(serving(app))

    def ask(self, path: str, method: str = "GET", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, f"{self.url}{path}", headers=named, timeout=60, allow_redirects=False)

    def status_of(self, path: str) -> int:
        """Return the status of a path that is sent as it is, without the client's corrections."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        connection.putrequest("GET", path)
        connection.endheaders()
        try:
            return connection.getresponse().status
        finally:
            connection.close()


class RoutesTest(CourseTest):
    def test_the_readers_language_decides_where_the_course_is(self) -> None:
        self.serve()
        for sent, language in (("pt-BR,pt;q=0.9,en;q=0.8", "pt"), ("de,en;q=0.5", "en"), ("de", "en")):
            for path in ("/course", "/course/"):
                with self.subTest(sent, path=path):
                    answer = self.ask(path, Accept_Language=sent)
                    self.assertEqual((answer.status_code, answer.headers["vary"]), (307, "Accept-Language"))
                    self.assertEqual(urljoin(path, answer.headers["location"]), f"/course/{language}/")
        answer = self.ask("/course/en")
        self.assertEqual(urljoin("/course/en", answer.headers["location"]), "/course/en/")

    def test_each_language_has_its_pages(self) -> None:
        self.serve()
        for path, lang, title in (
            ("/course/pt/", "pt-BR", "Sumário · Curso"),
            ("/course/pt/README.md", "pt-BR", "Sumário · Curso"),
            ("/course/pt/01_a.md", "pt-BR", "1. O microsserviço · Curso"),
            ("/course/en/01_a.md", "en", "1. The microservice · Course"),
        ):
            with self.subTest(path):
                for _ in range(2):
                    answer = self.ask(path)
                    self.assertEqual((answer.status_code, answer.headers["content-language"]), (200, lang))
                    self.assertIn(f'<html lang="{lang}">', answer.text)
                    self.assertIn(f"<title>{title}</title>", answer.text)
                head = self.ask(path, "HEAD")
                self.assertEqual((head.status_code, head.content), (200, b""))
                self.assertEqual(head.headers["content-length"], answer.headers["content-length"])
                self.assertEqual(self.ask(path, "POST").status_code, 405)

    def test_pages_and_pictures_run_nothing_but_the_services_own_script(self) -> None:
        self.serve()
        page, course = self.ask("/"), self.ask("/course/en/01_a.md")
        for name in ("content-security-policy", "cache-control", "x-content-type-options"):
            self.assertEqual(course.headers[name], page.headers[name])
        self.assertNotRegex(course.text, r"<script(?! type=\"module\" src=)|<style|style=|\son\w+=")
        picture = self.ask("/course/pictures/way.svg")
        self.assertEqual((picture.text, picture.headers["content-type"]), (SVG, "image/svg+xml"))
        self.assertRegex(picture.headers["content-security-policy"], r"^default-src 'none'; .*sandbox$")
        unchanged = self.ask("/course/pictures/way.svg", If_None_Match=picture.headers["etag"])
        self.assertEqual(unchanged.status_code, 304)

    def test_nothing_else_is_served(self) -> None:
        self.serve()
        for path in (
            *("/course/de/", "/course/pt/02_b.md", "/course/pt/01_a.md/", "/course/pt/01_a", "/course//pt/"),
            *("/course/README.md", "/course/blocks/01.yaml", "/course/pictures/way.mmd", "/course/pictures/"),
            *("/course/pictures", "/course/pictures/none.png", "/course/pt/../en/"),
            *("/course/pt/../../../etc/passwd", "/course/pt/..%2f..%2f..%2fetc%2fpasswd", "/course/pt/%2e%2e/en/"),
            *("/course/pt/..%5c..%5cREADME.md", "/course/pt/01_a.md%00", "/course/pt/%00", "/course/%00/"),
            *("/course//etc/passwd", "/course/pt//etc/passwd", "/course/%2fetc%2fpasswd", "/course/C:%5cx.md"),
            *("/course/pictures/../../../../images/page.png", "/course/pictures/..%2fpt%2f01_a.md"),
            *(
                "/course/pictures/%2e%2e/%2e%2e/page.png",
                "/course/pictures/..%5c..%5cx.png",
                "/course/pictures/%00.svg",
            ),
            *("/course/pictures//etc/x.png", "/course/pictures/%2fetc%2fx.png", "/course/pictures/C:%5cx.png"),
            f"/course/pictures/{'a' * 5000}.png",
        ):
            with self.subTest(path):
                self.assertEqual(self.status_of(path), 404)
        answer = self.ask("/course/pt/02_b.md", Accept_Language="pt")
        self.assertEqual(answer.json()["code"], "not_found")
        self.assertIn("/course/pt/02_b.md", answer.json()["msg"])

    def test_a_link_to_a_file_elsewhere_serves_nothing(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_course(folder)
        try:
            (folder / "pictures" / "secret.png").symlink_to(Path(__file__))
        except OSError:
            self.skipTest("this system makes no links")
        self.serve(folder)
        self.assertEqual(self.ask("/course/pictures/secret.png").status_code, 404)

    def test_it_works_below_a_prefix(self) -> None:
        self.serve(SERVICE_ROOT_PATH="/pets")
        for path in ("/pets/course", "/pets/course/"):
            location = urljoin(path, self.ask(path, Accept_Language="pt").headers["location"])
            self.assertEqual(location, "/pets/course/pt/")
        answer = self.ask("/pets/course/pt/")
        links = {
            urljoin("/pets/course/pt/", link) for name in ("href", "src") for link in Elements(answer.text).values(name)
        }
        self.assertEqual({link for link in links if not link.startswith("/pets/")}, set())
        for link in links:
            with self.subTest(link):
                self.assertEqual(self.ask(link).status_code, 200)

    def test_it_needs_no_key_and_opens_no_other_route(self) -> None:
        self.serve(SERVICE_API_KEYS=KEY)
        for path in ("/course/en/", "/course/en/01_a.md", "/course/pictures/way.svg", "/static/course.js"):
            self.assertEqual(self.ask(path).status_code, 200)
        self.assertEqual([self.ask(path).status_code for path in ("/course", "/course/")], [307, 307])
        for path in ("/courses", "/model", "/pets/course/"):
            self.assertEqual(self.ask(path).status_code, 401)
        self.assertEqual(self.status_of("/course/../model"), 404)

    def test_the_metrics_have_no_label_of_a_page(self) -> None:
        self.serve()
        for path in ("/course/", "/course/en/", "/course/en/01_a.md", "/course/pictures/way.svg", "/course/de/x"):
            self.ask(path)
        text = self.ask("/metrics").text
        routes = set(re.findall(r'catdog_requests_total\{route="(/course[^"]*)"', text))
        self.assertLessEqual(routes, {"/course", "/course/", "/course/pictures"})

    def test_without_its_files_there_is_no_route_and_no_link_to_it(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.serve(folder)
        for path in ("/course", "/course/", "/course/pt/", "/course/pictures/way.svg"):
            self.assertEqual((self.ask(path).status_code, self.ask(path).json()["code"]), (404, "not_found"))
        page = self.ask("/").text
        self.assertNotIn("course", page)
        self.assertIn("data-sample", page)

    def test_a_course_without_pictures_is_served(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_course(folder)
        (folder / "pictures" / "way.svg").unlink()
        (folder / "pictures" / "way.mmd").unlink()
        (folder / "pictures").rmdir()
        self.serve(folder)
        self.assertEqual(self.ask("/course/en/01_a.md").status_code, 200)
        self.assertEqual(self.ask("/course/pictures/way.svg").status_code, 404)

    def test_only_the_page_of_cat_dog_links_it(self) -> None:
        self.serve()
        self.assertEqual(Elements(self.ask("/").text).values("href").count("course/"), 1)
        self.serve(MODEL_NAME="FLOWERS")
        self.assertNotIn("course", self.ask("/").text)

    def test_a_service_whose_course_nobody_reads_does_not_load_the_parser(self) -> None:
        program = (
            "import sys; from preprocess_service.app import app_server, config, model_runner; "
            "settings = config.load_config({}); app_server.create_app(settings, model_runner.ModelRunner(settings)); "
            "assert 'preprocess_service.app.api.course.site' in sys.modules; print('markdown_it' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=APP, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "False")


class RealCourseTest(CourseTest):
    def test_every_page_is_served_and_every_link_within_it_works(self) -> None:
        self.serve(site.FOLDER)
        pages = {f"/course/{file.relative_to(site.FOLDER).as_posix()}" for file in site.FOLDER.glob("*/*.md")}
        self.assertLessEqual({"/course/pt/README.md", "/course/en/README.md"}, pages)
        found = {path: self.ask(path) for path in [*pages, "/course/pt/", "/course/en/"]}
        ids = {path: set(Elements(answer.text).values("id")) for path, answer in found.items()}
        for path, answer in found.items():
            self.assertEqual(answer.status_code, 200, path)
            elements = Elements(answer.text)
            self.assertNotRegex(answer.text, r"\]\(\.\./\.\.|<[^>]*\sstyle=", path)
            for link in (*elements.values("href"), *elements.values("src")):
                parts = urlsplit(urljoin(path, link))
                if not parts.netloc:
                    with self.subTest(path, link=link):
                        status = 200 if parts.path in found else self.ask(parts.path).status_code
                        self.assertEqual(status, 200)
                        if parts.fragment:
                            self.assertIn(unquote(parts.fragment), ids[parts.path])


if __name__ == "__main__":
    unittest.main()
