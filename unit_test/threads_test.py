"""The machine is shared out by its cores, unless the flags say how."""

import unittest

from model_server_fixtures import threads


class ThreadsTest(unittest.TestCase):
    def test_what_is_not_given_is_chosen_from_the_cores(self) -> None:
        cores = threads.usable_cores()
        self.assertEqual(threads.Threads.sharing(), threads.Threads(cores, min(cores, 8), all_for_one=cores > 1))
        self.assertEqual(threads.Threads.sharing(2), threads.Threads(2, 2, all_for_one=True))
        self.assertEqual(threads.Threads.sharing(16), threads.Threads(16, 8, all_for_one=True))

    def test_what_is_given_is_kept_to(self) -> None:
        self.assertEqual(threads.Threads.sharing(16, 2), threads.Threads(16, 2))

    def test_one_thread_is_not_compiled_for_twice(self) -> None:
        self.assertEqual(threads.Threads.sharing(1), threads.Threads(1, 1))

    def test_a_queue_whose_length_is_not_given_grows_with_the_cores(self) -> None:
        self.assertEqual(threads.queue_length(0), 16 * threads.usable_cores())
        self.assertEqual(threads.queue_length(3), 3)


if __name__ == "__main__":
    unittest.main()
