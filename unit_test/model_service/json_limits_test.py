"""Tests the memory estimate of JSON: parsing never takes more, and for usual JSON not much less."""

import json
import tracemalloc
import unittest

import numpy as np

from model_service import errors
from model_service.api import json_limits

COUNT = 20_000


def many(item: bytes) -> bytes:
    """Return the JSON of a long list of `item`."""
    return b"[" + b",".join([item] * COUNT) + b"]"


def taken(body: bytes) -> int:
    """Return the peak memory of parsing, including the body, in bytes."""
    tracemalloc.start()
    try:
        json.loads(body.decode())
        return tracemalloc.get_traced_memory()[1] + len(body)
    finally:
        tracemalloc.stop()


class MemoryOfTest(unittest.TestCase):
    def test_nothing_takes_more_than_is_measured(self) -> None:
        cases = {
            "lists": many(b"[]"),
            "lists_of_one": many(b"[1.5]"),
            "lists_of_five": many(b"[0.1,0.2,0.3,0.4,0.5]"),
            "objects": many(b"{}"),
            "objects_of_one": many(b'{"":1.5}'),
            "numbers": many(b"1.5"),
            "big_numbers": many(b"12345678901234567890"),
            "strings": many(b'"ab"'),
            "wide_strings": many('"é😀"'.encode()),
            "one_wide_string": b'["' + b"a" * COUNT + '😀"]'.encode(),
            "escapes": many(b'"\\n\\u0041"'),
            "keys": b"{" + b",".join(b'"%d":1.5' % number for number in range(COUNT)) + b"}",
        }
        for case, body in cases.items():
            with self.subTest(case):
                self.assertLess(taken(body), json_limits.memory_of(body))

    def test_a_picture_is_not_measured_at_much_more_than_it_takes(self) -> None:
        body = json.dumps({"instances": [np.full((100, 100, 3), 0.1234567).tolist()]}).encode()
        self.assertLess(json_limits.memory_of(body), 2 * taken(body))


class CheckSurrogatesTest(unittest.TestCase):
    def test_whole_pairs_are_taken(self) -> None:
        for body in (rb'"\ud83d\ude00"', rb'"\\ud800"', rb'"\n\u00e9"', '"😀"'.encode()):
            with self.subTest(body):
                json_limits.check_surrogates(body)

    def test_half_a_pair_is_refused_where_it_stands(self) -> None:
        cases = {
            rb'"\ud800"': 1,
            rb'"ab\udc00"': 3,
            rb'"\\\ud800"': 3,
            rb'"\ud800\u0041"': 1,
            rb'"\ud83d\ude00\ud83d"': 13,
        }
        for body, offset in cases.items():
            with self.subTest(body), self.assertRaises(errors.ServingError) as caught:
                json_limits.check_surrogates(body)
            with self.subTest(body):
                text = f"JSON Parse error: The surrogate pair in string is invalid. at offset: {offset}"
                self.assertEqual(caught.exception.message, text)


if __name__ == "__main__":
    unittest.main()
