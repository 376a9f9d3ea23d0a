"""From a raw release to something that scores: verify, rebuild, warm up, check the golden batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tailrace.declaration.task import Task, base_rate_scores
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec, activate
from tailrace.inference.releases.manifest import Golden, Limits, Manifest, Refused, verify_manifest, verify_payload
from tailrace.inference.releases.registry import RawRelease
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.releases.weights import load_state

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4  # of a score, or of its size where that is above 1: machines differ in the last bits
_WARM_UP_ROWS = (1, 64, 1024)  # sizes for which torch chooses other kernels


class Serving(NamedTuple):
    """One release at work: `score` takes n rows and gives their scores [n, outputs].

    `trained_through`: the time of the newest event that it has learned, unix seconds; 0: it has learned nothing.
    """

    release: int
    score: Callable[[Inputs], Floats]
    trained_through: float = 0.0


class Loader:
    """Knows what a release must fit: the pipeline's features, task, model and trusted keys."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        trusted: TrustedKeys,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._spec, self._trusted = spec, trusted

    def manifest(self, raw: RawRelease) -> Manifest:
        """The verified manifest of a release that is meant for this pipeline. Raises Refused."""
        manifest = verify_manifest(raw.signed, self._trusted, self.limits)
        if manifest.version != raw.version:
            raise Refused(
                "wrong_version", f"the manifest of release {manifest.version} stands at release {raw.version}"
            )
        if manifest.features != self._spec.features.digest:
            raise Refused(
                "wrong_features", f"trained on features {manifest.features[:12]}, not {self._spec.features.digest[:12]}"
            )
        if manifest.task != self._spec.task:
            raise Refused("wrong_task", f"trained for {manifest.task}, not for {self._spec.task}")
        return manifest

    def load(self, manifest: Manifest, payload: bytes) -> Serving:
        """Load the payload of a verified manifest; what is returned has scored already. Raises Refused."""
        verify_payload(manifest, payload, self.limits)
        try:
            module = self._spec.build()
            module.load_state_dict(load_state(payload))
            score = scorer(module, self._spec.task)
            for rows in _WARM_UP_ROWS:
                score(self._blank(rows))
        except Exception as error:  # the module is the user's: it may raise anything
            raise Refused("wrong_model", f"{type(error).__name__}: {error}") from error
        _check(manifest.golden, score)
        return Serving(manifest.version, score, manifest.trained_through)

    def _blank(self, rows: int) -> Inputs:
        numbers = np.full((rows, len(self._spec.features.numbers)), np.nan, np.float32)
        return Inputs(numbers, np.zeros((rows, len(self._spec.features.categories)), np.int64))


def scorer(module: nn.Module, task: Task) -> Callable[[Inputs], Floats]:
    """Scores [n, outputs] of n rows by a module, in eval mode; arrays go in and out without a copy.

    No rows give no scores, and the module is not asked: many a user's cannot take nothing.
    """
    import torch

    if any(part.training for part in module.modules()):  # to ask is quicker than to set
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
    """Release 0: every row gets the base rate. Raises DeclarationError."""
    scores = np.array(base_rate_scores(task, base_rate), np.float32)
    return Serving(0, lambda inputs: np.broadcast_to(scores, (inputs.rows, len(scores))))


def _check(golden: Golden, score: Callable[[Inputs], Floats]) -> None:
    if not golden.scores:
        return
    try:
        due, got = np.array(golden.scores, np.float32), score(golden.inputs())
    except Exception as error:  # the module is the user's: it may raise anything
        detail = f"the golden batch does not fit the model: {type(error).__name__}: {error}"
        raise Refused("golden_mismatch", detail) from error
    if got.shape != due.shape or not np.allclose(got, due, rtol=TOLERANCE, atol=TOLERANCE):
        raise Refused("golden_mismatch", f"scores {got.tolist()}, {due.tolist()} are due")
