"""The fault suite: what becomes of requests while everything around the services breaks."""
