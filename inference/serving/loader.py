"""Loading of releases: verify, rebuild the module, warm it up, check the golden batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tailrace.declaration.task import Task, base_rate_scores
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.outputs import activate
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Golden, Limits, Manifest, Refused, verify_manifest, verify_payload
from tailrace.inference.releases.registry import RawRelease
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.releases.weights import load_state

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4  # absolute, and relative for scores above 1: machines differ in the last bits
_WARM_UP_ROWS = (1, 64, 1024)  # batch sizes for which torch selects different kernels


class Serving(NamedTuple):
    """One loaded release. `score` maps n rows to scores, shape [n, outputs].

    `trained_through`: time of the newest event that the release has learned, unix seconds; 0: it has learned nothing.
    """

    release: int
    score: Callable[[Inputs], Floats]
    trained_through: float = 0.0


class Loader:
    """Loads the releases of one pipeline; refuses those that do not fit its features, task, model or trusted keys.

    `base_rate`: see `Label.base_rate`; raises DeclarationError if it does not fit the task.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        trusted: TrustedKeys,
        base_rate: float | Sequence[float] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.spec, self.limits = spec, limits or Limits()
        self.base_rate = base_rate_serving(spec.task, base_rate)
        """Release 0, which serves until there is another."""
        self._trusted = trusted

    def manifest(self, raw: RawRelease) -> Manifest:
        """Verify the manifest of a release and check that it is meant for this pipeline. Raises Refused."""
        manifest = verify_manifest(raw.signed, self._trusted, self.limits)
        if manifest.version != raw.version:
            raise Refused(
                "wrong_version", f"the manifest of release {manifest.version} is stored at release {raw.version}"
            )
        features = self.spec.features.digest
        if manifest.features != features:
            raise Refused("wrong_features", f"trained on features {manifest.features[:12]}, not {features[:12]}")
        if manifest.task != self.spec.task:
            raise Refused("wrong_task", f"trained for {manifest.task}, not for {self.spec.task}")
        return manifest

    def load(self, manifest: Manifest, payload: bytes) -> Serving:
        """Load the payload of a verified manifest and score warm-up batches with it. Raises Refused."""
        verify_payload(manifest, payload, self.limits)
        try:
            module = self.spec.build()
            module.load_state_dict(load_state(payload))
            score = scorer(module, self.spec.task)
            for rows in _WARM_UP_ROWS:
                score(self._blank(rows))
        except Exception as error:  # the module is the user's: it may raise anything
            raise Refused("wrong_model", f"{type(error).__name__}: {error}") from error
        _check(manifest.golden, score)
        return Serving(manifest.version, score, manifest.trained_through)

    def _blank(self, rows: int) -> Inputs:
        """Rows in which every value is missing."""
        features = self.spec.features
        numbers = np.full((rows, len(features.numbers)), np.nan, np.float32)
        return Inputs(numbers, np.zeros((rows, len(features.categories)), np.int64))


def scorer(module: nn.Module, task: Task) -> Callable[[Inputs], Floats]:
    """Make a function from n rows to scores, shape [n, outputs], by a module in evaluation mode; copies no arrays.

    For no rows the module is not called, because many modules do not accept an empty batch.
    """
    import torch

    if any(part.training for part in module.modules()):  # checking is faster than setting
        module.eval()

    def score(inputs: Inputs) -> Floats:
        if not inputs.rows:
            return np.empty((0, task.outputs), np.float32)
        with torch.inference_mode():
            logits = module(torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories))
            scores: Floats = activate(task, logits).float().numpy()
        return scores

    return score


def base_rate_serving(task: Task, base_rate: float | Sequence[float] | None) -> Serving:
    """Make release 0, which gives every row the base rate. Raises DeclarationError."""
    scores = np.array(base_rate_scores(task, base_rate), np.float32)
    return Serving(0, lambda inputs: np.broadcast_to(scores, (inputs.rows, len(scores))))


def _check(golden: Golden, score: Callable[[Inputs], Floats]) -> None:
    if not golden.scores:
        return
    try:
        expected, actual = np.array(golden.scores, np.float32), score(golden.inputs())
    except Exception as error:  # the module is the user's: it may raise anything
        detail = f"the golden batch does not fit the model: {type(error).__name__}: {error}"
        raise Refused("golden_mismatch", detail) from error
    if actual.shape != expected.shape or not np.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise Refused("golden_mismatch", f"scores {actual.tolist()}, expected {expected.tolist()}")
