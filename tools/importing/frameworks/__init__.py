"""One module for each way in which a model comes; each returns a ``network.Network``."""
