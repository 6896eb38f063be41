"""Imports the flat modules of the preprocess service, for tests that look inside it.

The service and these tests each have a ``utils``, as in the tutorial; so the tests' own is set aside meanwhile.
"""

import logging
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "app" / "preprocess_service" / "app"

_own_utils = sys.modules.pop("utils", None)
sys.path.insert(0, str(FOLDER))
try:
    import app_server
    import batcher
    import bodies
    import client_address
    import config
    import connection
    import connections
    import decoder_pool
    import downscale
    import envelope
    import errors
    import gate
    import image_cost
    import job
    import keys
    import listener
    import logs
    import memory_budget
    import messages
    import metrics
    import model_runner
    import pipeline
    import predict
    import predictions
    import probe
    import received
    import refusal
    import server
    import serving_messages
    import signature
    import utils as service_utils
finally:
    sys.path.remove(str(FOLDER))
    sys.modules.pop("utils", None)
    if _own_utils is not None:
        sys.modules["utils"] = _own_utils

# What it tells the operator is not for whoever runs the tests; those that look for it find it all the same.
logging.getLogger("probe").addHandler(logging.NullHandler())

__all__ = [
    "FOLDER",
    "app_server",
    "batcher",
    "bodies",
    "client_address",
    "config",
    "connection",
    "connections",
    "decoder_pool",
    "downscale",
    "envelope",
    "errors",
    "gate",
    "image_cost",
    "job",
    "keys",
    "listener",
    "logs",
    "memory_budget",
    "messages",
    "metrics",
    "model_runner",
    "pipeline",
    "predict",
    "predictions",
    "probe",
    "received",
    "refusal",
    "server",
    "service_utils",
    "serving_messages",
    "signature",
]
