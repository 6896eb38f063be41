"""Checks that a model server behaves as TensorFlow Serving does, seen from outside: `python -m tools.conformance`."""
