"""Tries on a Kubernetes cluster what happens to requests when pods and nodes come and go."""
