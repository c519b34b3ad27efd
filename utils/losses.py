"""The loss of a language model and its gradient, in numpy; derived in chapter 8."""

from __future__ import annotations

import numpy as np

from utils.arguments import as_array, as_whole_number, shown

IGNORE = -100  # the target of a position that does not count, as in torch's cross_entropy


def softmax_cross_entropy(
    logits: np.ndarray, targets: np.ndarray, ignore_index: int = IGNORE
) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax(logits), and its gradient, in numpy.

    For one position with target y the loss is `logsumexp(z) - z[y]`, and its gradient with
    respect to the logits z is `softmax(z) - onehot(y)` (Goodfellow, Bengio and Courville 2016,
    section 6.2.2.3); both are then averaged over the positions that count.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Unnormalised log-probabilities.
    targets : array_like of int, shape (...)
        The right class of each position, from 0 to V - 1, or `ignore_index`.
    ignore_index : int
        Positions with this target add nothing to the loss and get a gradient of zero.

    Returns
    -------
    loss : float
        In nats per counted position.
    grad : numpy.ndarray, shape (..., V)
        Of the floating-point type of `logits`.

    Raises
    ------
    TypeError
        If `targets` are not integers.
    ValueError
        If the shapes do not fit, a target is not a class, or every target is ignored.
    """
    ignore_index = as_whole_number("ignore_index", ignore_index, -(2**63))
    given, targets = as_array("logits", logits), as_array("targets", targets)
    if given.dtype.kind not in "iufb":
        raise TypeError(f"logits must be real numbers, not {shown(logits)}")
    if given.ndim == 0 or targets.shape != given.shape[:-1]:
        raise ValueError(
            f"logits of shape {given.shape} and targets of shape {targets.shape} do not fit: "
            "targets need the shape of the logits without their last axis, the classes"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers (class numbers), not {targets.dtype}")
    counted = targets != ignore_index
    vocabulary = given.shape[-1]
    bad = targets[counted & ((targets < 0) | (targets >= vocabulary))]
    if bad.size:
        raise ValueError(
            f"target {bad[0]} is not one of the {vocabulary} classes 0 to {vocabulary - 1}; "
            f"mark positions to skip with {ignore_index}"
        )
    if not counted.any():
        raise ValueError("every target is ignored, so there is nothing to average")
    if not (given[counted] < np.inf).all():  # NaN fails this too
        raise ValueError("logits hold NaN or plus infinity: find out where it comes from first")

    z = given.astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)  # the largest exponent is 0: nothing overflows
    log_probs = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    chosen = np.where(counted, targets, 0)[..., None]
    losses = -np.take_along_axis(log_probs, chosen, axis=-1)[..., 0]
    grad = np.exp(log_probs)
    np.put_along_axis(grad, chosen, np.take_along_axis(grad, chosen, -1) - 1, axis=-1)
    grad = np.where(counted[..., None], grad, 0) / counted.sum()
    return float(losses[counted].mean()), grad.astype(np.result_type(given.dtype, np.float16))
