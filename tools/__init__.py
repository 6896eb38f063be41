"""Programs for the project's developers; no part of a service. A package, so that run.py finds `launcher` in it."""
