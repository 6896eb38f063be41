"""The OpenAPI document is true, tried for longer than in schemathesis_test.py."""

import unittest

from unit_test.preprocess_service import schemathesis_test


class ThoroughSchemathesisTest(schemathesis_test.SchemathesisTest):
    examples = 300


if __name__ == "__main__":
    unittest.main()
