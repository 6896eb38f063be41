"""Runs the slowest cases of the fault suite in their short form."""

import os
import unittest

from unit_test.tools.chaos_test import check_case
from unit_test.tools.programs import run_tool


@unittest.skipIf(os.name == "nt", "Windows has no SIGSTOP")
class SlowChaosTest(unittest.TestCase):
    def test_nonsense_of_the_model_server_is_refused_as_its_fault(self) -> None:
        check_case(self, "nonsense for an answer")

    def test_the_loss_of_one_of_two_model_servers_loses_no_request(self) -> None:
        check_case(self, "one of two model servers killed")

    def test_the_restart_of_one_of_two_services_behind_nginx_loses_no_request(self) -> None:
        check_case(self, "proxy: one of two services restarted")

    def test_the_model_server_starts_and_ends_under_load(self) -> None:
        ended = run_tool("chaos", "--starts", 2)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertRegex(
            ended.stdout, r"2 starts and stops under load: [1-9]\d* right predictions, .* 0 stuck or failed"
        )


if __name__ == "__main__":
    unittest.main()
