"""Fuzzes the API by its OpenAPI document, for longer than schemathesis_test.py."""

import unittest

from unit_test.preprocess_service import schemathesis_test


class ThoroughSchemathesisTest(schemathesis_test.SchemathesisTest):
    examples = 150


if __name__ == "__main__":
    unittest.main()
