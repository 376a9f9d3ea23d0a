"""Releases: signed manifests, safetensors weights, and the registry in the models topic."""
