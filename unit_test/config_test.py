"""The settings are complete, typed and known, or the start stops and says which is not."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml
from preprocess_service import config

FILE = config.CONFIG_FILE.read_text(encoding="utf-8")


def load(settings: Any, environment: dict[str, str] | None = None) -> Any:
    """Load settings from a file that holds ``settings``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.yaml")
        path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
        return config.load_config({"SERVICE_CONFIG": str(path), **(environment or {})})


class ConfigTest(unittest.TestCase):
    def setUp(self) -> None:
        self.settings = yaml.safe_load(FILE)

    def check_refusal(self, settings: Any, *words: str, environment: dict[str, str] | None = None) -> None:
        with self.assertRaises(config.ConfigError) as caught:
            load(settings, environment)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)

    def test_the_shipped_file_is_valid_and_listens_on_this_machine_only(self) -> None:
        loaded = config.load_config({})
        self.assertEqual((loaded.server.host, loaded.server.port), ("127.0.0.1", 7998))
        self.assertEqual((loaded.model_server.host, loaded.model_server.port), ("localhost", 8500))

    def test_the_environment_wins_over_the_file(self) -> None:
        environment = {
            "SERVICE_MODEL_HOST": "model",
            "SERVICE_MODEL_PORT": "9",
            "SERVICE_HOST": "::",
            "SERVICE_PORT": "80",
        }
        loaded = config.load_config(environment)
        self.assertEqual((loaded.model_server.host, loaded.model_server.port), ("model", 9))
        self.assertEqual((loaded.server.host, loaded.server.port), ("::", 80))

    def test_an_empty_variable_counts_as_unset(self) -> None:
        self.assertEqual(config.load_config({"SERVICE_PORT": ""}).server.port, 7998)

    def test_settings_cant_be_changed_after_the_start(self) -> None:
        with self.assertRaises(ValueError):
            config.load_config({}).server.port = 1

    def test_every_missing_key_is_named(self) -> None:
        for key in self.settings:
            with self.subTest(key):
                rest = {name: value for name, value in self.settings.items() if name != key}
                self.check_refusal(rest, "mine.yaml", key, "missing")

    def test_an_unknown_key_is_named(self) -> None:
        self.settings["picture"]["widht"] = 1
        self.check_refusal(self.settings, "picture.widht", "no known key")

    def test_a_bad_value_is_named_with_its_key(self) -> None:
        for section, key, value in (
            ("picture", "width", 0),
            ("picture", "crop", 1.5),
            ("picture", "resampling", "best"),
            ("picture", "scale", float("nan")),
            ("model_server", "port", 65536),
            ("server", "host", ""),
            ("limits", "deadline_seconds", 0),
        ):
            with self.subTest(key):
                settings = yaml.safe_load(FILE)
                settings[section][key] = value
                self.check_refusal(settings, f"{section}.{key}", repr(value))

    def test_keys_and_origins_come_with_commas_between(self) -> None:
        environment = {
            "SERVICE_API_KEYS": "0123456789abcdef, ABCDEFGH-._~+/12==,",
            "SERVICE_CORS_ORIGINS": "https://example.org,http://localhost:3000",
        }
        loaded = config.load_config(environment).server
        keys = [key.get_secret_value() for key in loaded.api_keys]
        self.assertEqual(keys, ["0123456789abcdef", "ABCDEFGH-._~+/12=="])
        self.assertEqual(loaded.cors_origins, ("https://example.org", "http://localhost:3000"))
        self.assertNotIn(keys[0], repr(loaded))

    def test_a_key_that_is_no_good_is_refused_and_never_shown(self) -> None:
        for key in ("short-secret", "with secret blanks in it", "secret=in=the=middle", "sécret-secret-secret"):
            for name, arguments in (
                ("variable", (self.settings, {"SERVICE_API_KEYS": f"0123456789abcdef,{key}"})),
                ("file", (self.settings | {"server": self.settings["server"] | {"api_keys": [key]}}, None)),
            ):
                with self.subTest(key, name=name), self.assertRaises(config.ConfigError) as caught:
                    load(*arguments)
                self.assertIn("16 characters or more", str(caught.exception))
                self.assertRegex(str(caught.exception), "SERVICE_API_KEYS|api_keys")
                self.assertNotIn("cret", str(caught.exception))

    def test_an_origin_is_a_scheme_and_a_host(self) -> None:
        for origin in ("example.org", "https://example.org/", "https://example.org/page", "file://x", "https://*.org"):
            with self.subTest(origin):
                self.check_refusal(self.settings, "SERVICE_CORS_ORIGINS", environment={"SERVICE_CORS_ORIGINS": origin})

    def test_labels_that_repeat_are_refused(self) -> None:
        self.check_refusal(self.settings | {"labels": ["CAT", "CAT"]}, "labels", "differ")

    def test_a_bad_variable_is_named(self) -> None:
        self.check_refusal(self.settings, "SERVICE_PORT", "'http'", environment={"SERVICE_PORT": "http"})

    def test_a_misspelt_variable_is_refused(self) -> None:
        self.check_refusal(self.settings, "SERVICE_MODEL_HSOT", environment={"SERVICE_MODEL_HSOT": "model"})

    def test_a_file_that_is_no_yaml_or_no_mapping_is_refused_in_one_line(self) -> None:
        for name, text in (("broken", "a: [1\nb: 2"), ("a list", "- 1"), ("empty", "")):
            with self.subTest(name):
                self.check_refusal(text, "mine.yaml")

    def test_a_missing_file_is_refused(self) -> None:
        with self.assertRaisesRegex(config.ConfigError, "nowhere.yaml"):
            config.load_config({"SERVICE_CONFIG": "nowhere.yaml"})

    def test_labels_are_those_of_the_model_folder(self) -> None:
        models = Path(__file__).parent.parent / "prev_trained_models"
        loaded = config.load_config({})
        lines = (models / loaded.experiment_id / "labels.txt").read_text(encoding="utf-8").split("\n")
        self.assertEqual([line.split()[1].upper() for line in lines if line], list(loaded.labels))
