"""Tests how cores are divided among threads and streams, by default and by flags."""

import unittest

from model_service.engines import parallelism


class ThreadsTest(unittest.TestCase):
    def test_what_is_not_given_is_chosen_from_the_cores(self) -> None:
        cores = parallelism.usable_cores()
        self.assertEqual(
            parallelism.Threads.sharing(), parallelism.Threads(cores, min(cores, 8), has_latency_model=cores > 1)
        )
        self.assertEqual(parallelism.Threads.sharing(2), parallelism.Threads(2, 2, has_latency_model=True))
        self.assertEqual(parallelism.Threads.sharing(16), parallelism.Threads(16, 8, has_latency_model=True))

    def test_what_is_given_is_kept_to(self) -> None:
        self.assertEqual(parallelism.Threads.sharing(16, 2), parallelism.Threads(16, 2))

    def test_one_thread_is_not_compiled_for_twice(self) -> None:
        self.assertEqual(parallelism.Threads.sharing(1), parallelism.Threads(1, 1))

    def test_a_queue_whose_length_is_not_given_grows_with_the_cores(self) -> None:
        self.assertEqual(parallelism.queue_length(0), 16 * parallelism.usable_cores())
        self.assertEqual(parallelism.queue_length(3), 3)


if __name__ == "__main__":
    unittest.main()
