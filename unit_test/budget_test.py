"""Pixels that are decoded at the same time are bounded; whoever must wait gets its turn."""

import threading
import unittest

from preprocess_service import budget


class PixelBudgetTest(unittest.TestCase):
    def test_what_fits_goes_on_at_once_and_the_rest_waits_for_it(self) -> None:
        shared = budget.PixelBudget(10)
        has_begun = threading.Event()

        def take_six() -> None:
            with shared.take(6):
                has_begun.set()

        with shared.take(3), shared.take(4):
            waiting = threading.Thread(target=take_six)
            waiting.start()
            self.assertFalse(has_begun.wait(0.1))
        self.assertTrue(has_begun.wait(10))
        waiting.join()

    def test_more_than_there_is_counts_as_all(self) -> None:
        shared = budget.PixelBudget(10)
        with shared.take(1000):
            pass
        with shared.take(10):
            pass

    def test_a_photo_that_fails_gives_its_pixels_back(self) -> None:
        shared = budget.PixelBudget(10)
        with self.assertRaises(ZeroDivisionError), shared.take(10):
            raise ZeroDivisionError
        with shared.take(10):
            pass
