"""Tests that settings are complete, typed and known, and that the start stops with the name of a wrong one."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml

from preprocess_service.app import config

FILE = config.CONFIG_FILE.read_text(encoding="utf-8")


def load(settings: Any, environment: dict[str, str] | None = None) -> Any:
    """Load settings from a file with the content ``settings``."""
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

    def test_a_pod_drains_unless_it_is_told_otherwise(self) -> None:
        pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        for environment, seconds in (({}, 0), (pod, 5), (pod | {"SERVICE_DRAIN_SECONDS": "0"}, 0)):
            with self.subTest(environment=environment):
                self.assertEqual(config.load_config(environment).server.drain_seconds, seconds)

    def test_settings_cant_be_changed_after_the_start(self) -> None:
        with self.assertRaises(ValueError):
            config.load_config({}).server.port = 1

    def test_every_missing_key_is_named(self) -> None:
        for key in self.settings:
            with self.subTest(key):
                rest = {name: value for name, value in self.settings.items() if name != key}
                self.check_refusal(rest, "mine.yaml", key, "missing")

    def test_an_unknown_key_is_named(self) -> None:
        self.settings["limits"]["pixles"] = 1
        self.check_refusal(self.settings, "limits.pixles", "unknown key")

    def test_a_bad_value_is_named_with_its_key(self) -> None:
        for section, key, value in (
            ("limits", "header_seconds", float("nan")),
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

    def test_a_key_of_few_characters_again_and_again_is_refused(self) -> None:
        for key in ("a" * 32, "ab" * 16, "abcd" * 8):
            with self.subTest(key), self.assertRaisesRegex(config.ConfigError, "different characters") as caught:
                load(self.settings, {"SERVICE_API_KEYS": key})
            self.assertNotIn(key, str(caught.exception))
        # openssl rand -hex 8 gives keys with more different characters.
        self.assertEqual(len(load(self.settings, {"SERVICE_API_KEYS": "00f3a0c30f3ac3fa"}).server.api_keys), 1)

    def test_a_list_that_is_set_but_has_nothing_in_it_stops_the_start(self) -> None:
        for variable in ("SERVICE_API_KEYS", "SERVICE_CORS_ORIGINS", "SERVICE_TRUSTED_PROXIES"):
            for value in (" , ", ",", "  "):
                with self.subTest(variable, value=value):
                    self.check_refusal(self.settings, variable, "only commas", environment={variable: value})

    def keys_from(self, content: bytes, **environment: str) -> list[str]:
        path = Path(self.enterContext(tempfile.TemporaryDirectory()), "keys")
        path.write_bytes(content)
        loaded = load(self.settings, {"SERVICE_API_KEYS_FILE": str(path), **environment})
        return [key.get_secret_value() for key in loaded.server.api_keys]

    def test_keys_come_from_a_file_one_a_line(self) -> None:
        text = b"# of the first client\n0123456789abcdef\r\n\n  ABCDEFGH-._~+/12==  # of another\n"
        self.assertEqual(self.keys_from(text), ["0123456789abcdef", "ABCDEFGH-._~+/12=="])

    def test_a_file_of_keys_that_is_no_good_stops_the_start_and_no_key_is_shown(self) -> None:
        for name, content, environment, words in (
            ("no key", b"# none yet\n\n", {}, "has no key"),
            ("a bad one", b"0123456789abcdef\nshort-secret\n", {}, "16 characters or more"),
            ("not text", b"secret\xff\n", {}, "is not text in UTF-8"),
            ("both", b"0123456789abcdef", {"SERVICE_API_KEYS": "secret-secret-secret-1"}, "both set"),
        ):
            with self.subTest(name), self.assertRaisesRegex(config.ConfigError, words) as caught:
                self.keys_from(content, **environment)
            self.assertIn("SERVICE_API_KEYS_FILE", str(caught.exception))
            for secret in ("secret", "0123456789abcdef"):
                self.assertNotIn(secret, str(caught.exception))
        self.check_refusal(
            self.settings,
            *("SERVICE_API_KEYS_FILE", "nowhere", "can't be read"),
            environment={"SERVICE_API_KEYS_FILE": "nowhere"},
        )
        self.settings["server"]["api_keys_file"] = "nowhere"
        self.check_refusal(self.settings, "server.api_keys_file", "nowhere", "can't be read")
        self.settings["server"]["api_keys"] = ["0123456789abcdef"]
        self.check_refusal(self.settings, "server.api_keys_file", "both set")

    def test_a_proxy_is_an_address_or_a_network(self) -> None:
        environment = {"SERVICE_TRUSTED_PROXIES": "10.0.0.0/8, ::1,192.0.2.1", "SERVICE_LOG_CLIENT_ADDRESS": "true"}
        loaded = load(self.settings, environment).server
        self.assertEqual((loaded.log_client_address, loaded.trusted_proxies[0]), (True, "10.0.0.0/8"))
        for proxy in ("proxy", "10.0.0.1/8", "10.0.0", "*"):
            with self.subTest(proxy):
                self.check_refusal(
                    self.settings, "SERVICE_TRUSTED_PROXIES", proxy, environment={"SERVICE_TRUSTED_PROXIES": proxy}
                )

    def test_no_address_is_logged_unless_asked_for(self) -> None:
        self.assertFalse(config.load_config({}).server.log_client_address)

    def test_the_second_look_can_be_switched_off(self) -> None:
        self.assertTrue(config.load_config({}).second_look)
        self.assertFalse(load(self.settings, {"SERVICE_SECOND_LOOK": "false"}).second_look)
        environment = {"SERVICE_SECOND_LOOK": "sometimes"}
        self.check_refusal(self.settings, "SERVICE_SECOND_LOOK", "sometimes", environment=environment)

    def test_an_origin_is_a_scheme_and_a_host(self) -> None:
        for origin in ("example.org", "https://example.org/", "https://example.org/page", "file://x", "https://*.org"):
            with self.subTest(origin):
                self.check_refusal(self.settings, "SERVICE_CORS_ORIGINS", environment={"SERVICE_CORS_ORIGINS": origin})

    def test_a_recipe_for_a_model_without_one_is_read_or_refused_by_name(self) -> None:
        recipe = {"preprocessor_config": {"size": {"height": 4, "width": 5}}, "labels": ["A", "B"]}
        loaded = load(self.settings | {"recipe": recipe}).recipe
        assert loaded is not None
        self.assertEqual((loaded.labels, loaded.preprocessor_config.geometry().width), (("A", "B"), 5))
        for change, words in (
            ({"labels": ["A", "A"]}, "more than once"),
            ({"labels": ["A"]}, "recipe.labels"),
            ({"preprocessor_config": {"size": {"height": 4, "widht": 5}}}, "widht"),
        ):
            with self.subTest(words):
                self.check_refusal(self.settings | {"recipe": recipe | change}, "recipe", words)

    def test_the_name_of_the_model_wins_and_names_of_another_models_tensors_are_left_out(self) -> None:
        named = self.settings | {"model_input_name": "in", "model_output_name": "out"}
        for name, expected in (("", ("CAT-DOG", "in")), ("CAT-DOG", ("CAT-DOG", "in")), ("BIRDS", ("BIRDS", None))):
            with self.subTest(name):
                loaded = load(named, {"MODEL_NAME": name})
                self.assertEqual((loaded.experiment_id, loaded.model_input_name), expected)
                self.assertEqual(loaded.model_output_name, "out" if expected[1] else None)

    def test_several_models_are_separated_by_commas_and_the_names_of_tensors_belong_to_the_first(self) -> None:
        named = self.settings | {"model_input_name": "in", "model_output_name": "out"}
        for name, models, expected in (
            ("CAT-DOG, BIRDS,", ("CAT-DOG", "BIRDS"), ["in", None]),
            ("BIRDS,CAT-DOG", ("BIRDS", "CAT-DOG"), [None, None]),
        ):
            with self.subTest(name):
                loaded = load(named, {"MODEL_NAME": name})
                self.assertEqual(loaded.models, models)
                each = [loaded.of_model(model) for model in models]
                self.assertEqual([one.models for one in each], [(model,) for model in models])
                self.assertEqual([one.model_input_name for one in each], expected)
        self.assertEqual(load(named | {"experiment_id": ["A", "B"]}).models, ("A", "B"))
        self.assertEqual(load(named | {"experiment_id": "A,B"}, {"MODEL_NAME": "A"}).model_input_name, "in")

    def test_no_model_or_one_that_is_named_twice_is_refused(self) -> None:
        self.check_refusal(self.settings, "MODEL_NAME", "once", "A,B,A", environment={"MODEL_NAME": "A,B,A"})
        self.check_refusal(self.settings, "MODEL_NAME", "commas", environment={"MODEL_NAME": ","})
        for value in ("", [], 5):
            with self.subTest(value):
                self.check_refusal(self.settings | {"experiment_id": value}, "experiment_id")

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
