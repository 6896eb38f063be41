"""Ways to get predictions: from a running service, or from a version folder without a service."""
