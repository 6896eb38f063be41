"""The fault suite: counts what happens to requests while the services and their environment fail."""
