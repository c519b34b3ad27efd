"""utils.preference against the Bradley-Terry likelihood, autograd and the closed-form optimum."""

import pytest
import torch
from torch.nn import functional as F

from utils import preference


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_is_the_cross_entropy_of_implied_rewards(beta):
    """Two classes with the implied rewards as logits; the first is preferred."""
    chosen, rejected, ref_chosen, ref_rejected = -5 * torch.rand(4, 7)
    rewards = beta * torch.stack([chosen - ref_chosen, rejected - ref_rejected], dim=1)
    want = F.cross_entropy(rewards, torch.zeros(7, dtype=torch.long))
    got = preference.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    torch.testing.assert_close(got, want)


def test_gradient_is_that_of_equation_7():
    """-β σ(-β margin) in the chosen's log-probability, and its opposite in the rejected's."""
    parts = (-5 * torch.rand(4, 6, dtype=torch.double)).requires_grad_()
    preference.dpo_loss(*parts, beta=0.7).backward()
    c, r, rc, rr = parts.detach()
    pull = 0.7 * torch.sigmoid(-0.7 * ((c - rc) - (r - rr))) / 6
    torch.testing.assert_close(parts.grad[0], -pull)
    torch.testing.assert_close(parts.grad[1], pull)


def test_no_overflow_and_log_two_at_the_reference():
    far = torch.tensor([-5000.0])
    assert preference.dpo_loss(far, -far, -far, far, 1.0).item() == 20000
    same = torch.randn(5)
    loss = preference.dpo_loss(same, same + 1, same, same + 1)
    torch.testing.assert_close(loss, torch.tensor(2.0).log())


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_minimised_over_all_pairs_it_gives_the_tilted_policy(beta):
    """Exact preferences (Bradley-Terry) of all pairs: the optimum is known in closed form."""
    rewards = torch.randn(4, dtype=torch.double)
    reference = torch.rand(4, dtype=torch.double).softmax(0)
    logits = reference.log().clone().requires_grad_()
    first, second = (i.flatten() for i in torch.meshgrid(*2 * [torch.arange(4)], indexing="ij"))
    weight = torch.sigmoid(rewards[first] - rewards[second])
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10)

    def loss():
        optimizer.zero_grad()
        policy = logits.log_softmax(0)
        gap = (policy - reference.log())[first] - (policy - reference.log())[second]
        value = -(weight * F.logsigmoid(beta * gap)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    want = preference.tilted_policy(reference, rewards, beta)
    torch.testing.assert_close(logits.softmax(0).detach(), want, atol=1e-4, rtol=1e-3)


def test_tilted_policy_maximises_reward_minus_divergence():
    rewards, reference = torch.randn(5), torch.rand(5).softmax(0)

    def value(policy):
        return (policy * rewards).sum() - 0.5 * (policy * (policy / reference).log()).sum()

    best = preference.tilted_policy(reference, rewards, 0.5)
    for _ in range(50):
        other = (best.log() + 0.1 * torch.randn(5)).softmax(0)
        assert value(other) <= value(best) + 1e-6
    torch.testing.assert_close(preference.tilted_policy(reference, rewards, 1e6), reference)


def test_bad_arguments():
    x = torch.zeros(3)
    for beta in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="beta"):
            preference.dpo_loss(x, x, x, x, beta)
        with pytest.raises(ValueError, match="beta"):
            preference.tilted_policy(x + 1, x, beta)
    with pytest.raises(ValueError, match="one number"):
        preference.dpo_loss(x, x, x, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="one number"):
        preference.dpo_loss(x[:0], x[:0], x[:0], x[:0])
