"""The champion: the release that serves, as runs and updates need it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import structlog

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Manifest, Refused
from tailrace.retrain.control.publisher import Publisher

_log = structlog.get_logger("tailrace.retrainer")


class Champion(NamedTuple):
    """The release that serves, as runs and updates need it. Version 0: the base-rate model.

    `fits`: the declared module takes its weights. `seen`: partition -> offset up to which it was trained.
    `trained_through`: newest event time that it has learned, unix seconds.
    """

    version: int
    fits: bool = False
    seen: Mapping[int, int] = MappingProxyType({})
    trained_through: float = -math.inf

    @classmethod
    def of(cls, manifest: Manifest, declared: Pipeline) -> Champion:
        """The champion that a verified manifest describes."""
        seen = {part.partition: part.end for part in manifest.ranges if part.topic == declared.topics.examples}
        fits = manifest.features == ModelSpec.of(declared).features.digest and manifest.task == declared.task
        return cls(manifest.version, fits, seen, manifest.trained_through)


def load_champion(publisher: Publisher, declared: Pipeline) -> tuple[Champion, bytes | None]:
    """Read the release that serves now, which an operator may have moved, and its verified weights.

    Without weights (None) it cannot be a parent: it is the base-rate model, or its verification failed.
    """
    models = publisher.models
    models.refresh()
    version = models.champion
    if version not in models.registry.releases:
        return Champion(version), None
    try:
        manifest, payload = publisher.verified(version)
    except Refused as refused:
        _log.warning("the champion cannot be a parent", version=version, detail=str(refused))
        return Champion(version), None
    return Champion.of(manifest, declared), payload
