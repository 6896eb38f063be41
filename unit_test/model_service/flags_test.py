"""Tests that the command line is TensorFlow Serving's, and that unsupported flags are never ignored silently."""

import unittest

from model_service import errors, flags

BASE = "--model_base_path=/models/CAT-DOG"


class ParseTest(unittest.TestCase):
    def test_without_other_flags_the_defaults_are_tensorflow_servings(self) -> None:
        parsed = flags.parse([BASE])
        self.assertEqual((parsed.port, parsed.rest_api_port, parsed.model_name), (8500, 0, "default"))
        self.assertEqual(parsed.rest_api_timeout_in_ms, 30_000)
        self.assertEqual(parsed.warnings, ())

    def test_the_last_one_wins(self) -> None:
        """The image's own flags come first, so the flags of `docker run` override them."""
        self.assertEqual(flags.parse([BASE, "--port=8500", "--port=9000"]).port, 9000)

    def test_a_value_may_hold_an_equals_sign(self) -> None:
        self.assertEqual(flags.parse(["--model_base_path=/a=b"]).model_base_path, "/a=b")

    def test_a_boolean_may_stand_without_a_value(self) -> None:
        cases = {"": True, "=true": True, "=TRUE": True, "=1": True, "=false": False, "=0": False}
        for text, value in cases.items():
            with self.subTest(text):
                self.assertEqual(flags.parse([BASE, f"--enable_model_warmup{text}"]).enable_model_warmup, value)

    def test_an_unknown_argument_is_named_and_passed_over(self) -> None:
        for argument in ("--prot=8500", "8500", "-port=8500", "--"):
            with self.subTest(argument):
                self.assertEqual(flags.parse([BASE, argument]).warnings, (f"unknown argument: {argument}",))

    def test_a_bad_value_is_refused(self) -> None:
        for argument in (
            *("--port=web", "--port=", "--port", "--port=0", "--port=65536", "--rest_api_port=-1"),
            *("--enable_model_warmup=maybe", "--max_message_bytes=0", "--max_message_bytes=2147483648"),
        ):
            with self.subTest(argument), self.assertRaises(flags.FlagError) as caught:
                flags.parse([BASE, argument])
            with self.subTest(argument):
                self.assertIn(argument.removeprefix("--").partition("=")[0], str(caught.exception))

    def test_there_is_memory_for_the_largest_message(self) -> None:
        self.assertEqual(flags.parse([BASE, "--max_message_bytes=1000"]).total_message_bytes, 6500)
        self.assertEqual(
            flags.parse([BASE, "--max_message_bytes=1000", "--max_total_message_bytes=7000"]).total_message_bytes, 7000
        )
        with self.assertRaisesRegex(flags.FlagError, "--max_total_message_bytes must be 6500 or more"):
            flags.parse([BASE, "--max_message_bytes=1000", "--max_total_message_bytes=6499"])

    def test_the_base_path_is_required(self) -> None:
        with self.assertRaisesRegex(flags.FlagError, "--model_base_path is required"):
            flags.parse(["--port=8500"])

    def test_a_config_file_takes_its_place(self) -> None:
        self.assertEqual(flags.parse(["--model_config_file=/models.config"]).model_config_file, "/models.config")

    def test_the_version_needs_no_base_path(self) -> None:
        self.assertTrue(flags.parse(["--version"]).version)

    def test_a_flag_that_would_change_what_is_served_is_refused(self) -> None:
        for argument in ("--ssl_config_file=/ssl.cfg", "--prefer_tflite_model", "--prefer_tflite_model=true"):
            with self.subTest(argument), self.assertRaisesRegex(errors.StartError, "is not supported"):
                flags.parse([BASE, argument])

    def test_a_refused_flag_is_harmless_at_its_default(self) -> None:
        for argument in (
            "--prefer_tflite_model=false",
            "--prefer_tflite_model=0",
            "--ssl_config_file=",
            "--saved_model_tags=serve",
        ):
            with self.subTest(argument):
                self.assertEqual(flags.parse([BASE, argument]).warnings, ())

    def test_a_flag_without_effect_is_warned_about(self) -> None:
        for argument in (
            "--num_load_threads=4",
            "--enable_batching",
            "--enable_batching=false",
            "--batching_parameters_file=/no/such/file",
        ):
            with self.subTest(argument):
                (warning,) = flags.parse([BASE, argument]).warnings
                self.assertEqual(warning, f"{argument.partition('=')[0]} has no effect on the embedded model server")


class UsageTest(unittest.TestCase):
    def test_it_names_every_flag_with_its_default(self) -> None:
        for name in flags.HELP:
            with self.subTest(name):
                self.assertIn(f"--{name}=", flags.usage())
        self.assertIn('--model_name="default"', flags.usage())


if __name__ == "__main__":
    unittest.main()
