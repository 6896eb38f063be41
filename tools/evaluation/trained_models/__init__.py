"""Measures what `run.py train` makes, on fixed lists of photos; see __main__.py."""
