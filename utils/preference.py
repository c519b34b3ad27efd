"""Learning from preferences without a reward model: the DPO loss; chapter 16.

Rafailov et al. (2023), arXiv:2305.18290.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.arguments import as_number, as_positive, check_shape, check_tensor

__all__ = ["dpo_loss", "tilted_policy"]


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Return the mean of -log σ(β [(chosen - reference) - (rejected - reference)]).

    Rafailov et al. (2023), equation 7.

    Parameters
    ----------
    chosen, rejected : torch.Tensor, shape (N,)
        Log-probabilities that the model gives to the preferred and to the other answer: of whole
        answers, so the sum over an answer's tokens.
    reference_chosen, reference_rejected : torch.Tensor, shape (N,)
        The same from the frozen model that training started from.
    beta : float
        Above 0: how strongly the model is held to the reference. A large one lets it move little.

    Returns
    -------
    torch.Tensor
        A scalar, in nats per pair.

    Raises
    ------
    TypeError, ValueError
        If beta is not above 0, or the four are no tensors of one shape, or there are no pairs.
    """
    beta = as_positive("beta", beta)
    check_tensor("chosen", chosen)
    check_tensor("rejected", rejected, like=chosen)
    check_tensor("reference_chosen", reference_chosen, like=chosen)
    check_tensor("reference_rejected", reference_rejected, like=chosen)
    shapes = {tuple(x.shape) for x in (chosen, rejected, reference_chosen, reference_rejected)}
    if len(shapes) > 1 or chosen.numel() == 0:
        raise ValueError(
            f"each pair needs one number from each of the four, in tensors of shape (N,): got "
            f"{sorted(shapes)}. Sum an answer's tokens first"
        )
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)  # (N,)
    return -F.logsigmoid(beta * margin).mean()


def tilted_policy(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Return the best policy for known rewards: softmax(log reference + rewards / β).

    It maximises the expected reward minus β times the KL divergence from the reference; Rafailov
    et al. (2023), equation 4.

    Parameters
    ----------
    reference : torch.Tensor, shape (..., K)
        Probabilities of K answers.
    rewards : torch.Tensor, shape (..., K)
    beta : float
        Above 0 (at least 1e-12).

    Raises
    ------
    TypeError, ValueError
        If beta is not above 0, the two are no tensors of one shape, or `reference` holds what is
        no probability.
    """
    beta = as_number("beta", beta, 1e-12)
    check_tensor("reference", reference, "(..., K)", some=True, values=True)
    check_tensor("rewards", rewards, like=reference)
    check_shape("rewards", rewards, str(tuple(reference.shape)))
    if not bool((reference >= 0).all()) or not bool((reference.sum(dim=-1) > 0).all()):
        raise ValueError("reference should hold probabilities, at least one above 0 in each row")
    return torch.softmax(reference.log() + rewards / beta, dim=-1)
