"""Imports a model into ``prev_trained_models/``: ``python run.py import PATH``.

No code that comes with a model is ever run: Lambda layers, custom objects and pickles are rejected.
"""
