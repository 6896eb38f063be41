"""Brings a model of one's own into ``prev_trained_models/``: ``python run.py import PATH``.

Nothing that comes with a model is ever run as code: a Lambda layer, a custom object and a pickle are refused.
"""
