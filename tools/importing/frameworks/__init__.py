"""One module for each kind of model file. Each returns a ``network.Network``."""
