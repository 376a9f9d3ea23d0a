"""Releases: manifests, signatures, weights, and the model registry in the models topic."""
