"""Right arguments for what computes with numbers and arrays, and needs no model."""

from __future__ import annotations

import numpy as np
import torch
from robust_tools import B, C, H, T, V, array, none_of, right, rng, shares, tensor, whole
from torch import nn

from utils import block_numpy, layers, layers_numpy, quantise, scaling
from utils.autograd import Variable
from utils.costs import Machine


def attention_params() -> dict[str, np.ndarray]:
    return block_numpy.from_torch(layers.MultiHeadAttention(C, H))


def network_params() -> dict[str, np.ndarray]:
    return block_numpy.from_torch(layers.FeedForward(C, 6))


def block_params() -> dict[str, np.ndarray]:
    return block_numpy.from_torch(layers.TransformerBlock(C, H, 6))


def attention_cache() -> dict:
    return layers_numpy.multi_head_attention(array(B, T, C), attention_params(), H)[1]


def network_cache() -> dict:
    return layers_numpy.feed_forward(array(B, T, C), network_params())[1]


def block_cache() -> dict:
    return block_numpy.transformer_block(array(B, T, C), block_params(), H)[1]


def with_gradients() -> nn.Module:
    module = layers.LayerNorm(C)
    module(tensor(B, C)).sum().backward()
    return module


def machine() -> Machine:
    return Machine("laptop", 1e12, 0.5, 60.0, 0.1, 2)


def states() -> np.ndarray:
    return array(B, T + 1, 5)


EXPLODES = "the gradient does explode then, and numpy says so"
SIZES = dict(batch_size=2, seq_len=8, num_layers=2, d_model=16)

EXAMPLES = {
    # ------------------------------------------------------------------ chapters 4 and 7
    "attention.softmax": lambda: right(x=array(B, V), axis=1),
    "attention.softmax_backward": lambda: right(
        weights=shares(B, V), grad_weights=array(B, V), axis=1
    ),
    "attention.causal_mask": lambda: right(query_len=3, key_len=5),
    "attention.padding_mask": lambda: right(lengths=[2, 4, 0], max_len=5),
    "attention.scaled_dot_product_attention": lambda: right(
        queries=array(B, T, C),
        keys=array(B, 5, C),
        values=array(B, 5, 6),
        mask=none_of(T, 5),
        scale=0.3,
    ),
    "attention.scaled_dot_product_attention_backward": lambda: right(
        grad_output=array(B, T, 6),
        queries=array(B, T, C),
        keys=array(B, 5, C),
        values=array(B, 5, 6),
        weights=shares(B, T, 5),
        scale=0.3,
    ),
    "attention.torch_attention": lambda: right(
        queries=tensor(B, T, C),
        keys=tensor(B, 5, C),
        values=tensor(B, 5, 6),
        mask=torch.from_numpy(none_of(T, 5)),
        scale=0.3,
        dropout_p=0.2,
    ),
    "autograd.Variable": lambda: right(data=array(2, 3), parents=((Variable([1.0]), lambda g: g),)),
    "autograd.Variable.exp": lambda: right(on=Variable(array(2, 3))),
    "autograd.Variable.log": lambda: right(on=Variable(array(2, 3, low=0.1))),
    "autograd.Variable.tanh": lambda: right(on=Variable(array(2, 3))),
    "autograd.Variable.sum": lambda: right(on=Variable(array(2, 3)), axis=1, keepdims=False),
    "autograd.Variable.transpose": lambda: right(on=Variable(array(2, 3))),
    "autograd.Variable.backward": lambda: right(on=Variable(array(2, 3)).sum()),
    "autograd.topological_order": lambda: right(output=Variable(array(2, 3)).sum()),
    "autograd.sum_to_shape": lambda: right(gradient=array(4, 2, 3), shape=(2, 1)),
    # ------------------------------------------------------------------ chapter 6
    "layers_numpy.split_heads": lambda: right(x=array(B, T, C), num_heads=H),
    "layers_numpy.merge_heads": lambda: right(x=array(B, H, T, 4)),
    "layers_numpy.layer_norm": lambda: right(
        x=array(B, T, C), weight=array(C), bias=array(C), eps=1e-5
    ),
    "layers_numpy.layer_norm_backward": lambda: right(
        grad_output=array(B, T, C), x=array(B, T, C), weight=array(C), eps=1e-5
    ),
    "layers_numpy.gelu": lambda: right(x=array(B, C)),
    "layers_numpy.gelu_tanh": lambda: right(x=array(B, C)),
    "layers_numpy.gelu_backward": lambda: right(grad_output=array(B, C), x=array(B, C)),
    "layers_numpy.linear_backward": lambda: right(
        grad_output=array(B, T, 6), x=array(B, T, C), weight=array(C, 6)
    ),
    "layers_numpy.multi_head_attention": lambda: right(
        x=array(B, T, C), params=attention_params(), num_heads=H, mask=none_of(B, T, T)
    ),
    "layers_numpy.multi_head_attention_backward": lambda: right(
        grad_output=array(B, T, C), cache=attention_cache(), params=attention_params()
    ),
    "layers_numpy.feed_forward": lambda: right(x=array(B, T, C), params=network_params()),
    "layers_numpy.feed_forward_backward": lambda: right(
        grad_output=array(B, T, C), cache=network_cache(), params=network_params()
    ),
    "block_numpy.from_torch": lambda: right(module=with_gradients(), gradients=True),
    "block_numpy.transformer_block": lambda: right(
        x=array(B, T, C),
        params=block_params(),
        num_heads=H,
        mask=none_of(B, T, T),
        norm_first=True,
        eps=1e-5,
    ),
    "block_numpy.transformer_block_backward": lambda: right(
        grad_output=array(B, T, C), cache=block_cache(), params=block_params()
    ),
    # ------------------------------------------------------------------ chapter 3
    "recurrent.rnn_forward": lambda: right(
        x=array(B, T, C), W_x=array(C, 5), W_h=array(5, 5), b=array(5), h_0=array(B, 5)
    ),
    "recurrent.rnn_backward": lambda: right(
        grad_states=array(B, T, 5),
        x=array(B, T, C),
        states=states(),
        W_x=array(C, 5),
        W_h=array(5, 5),
        skip_kinds={
            ("states", "all huge"): EXPLODES,
            ("states", "huge inside"): EXPLODES,
            ("W_h", "all huge"): EXPLODES,
            ("W_h", "huge inside"): EXPLODES,
        },
    ),
    "recurrent.around": lambda: right(ahead=tensor(B, T, 5), back=tensor(B, T, 5)),
    # ------------------------------------------------------------------ chapter 5
    "positions.sinusoidal": lambda: right(
        seq_len=T, d_model=C, offset=2, base=100.0, dtype=np.float32
    ),
    "positions.learned": lambda: right(
        table=array(9, C), seq_len=T, offset=2, called={"seq_len": "positions"}
    ),
    "positions.rope_angles": lambda: right(positions=array(B, T), head_dim=C, base=100.0),
    "positions.rope_rotate": lambda: right(
        x=array(B, T, C), positions=array(T), base=100.0, layout="half", inverse=False
    ),
    "positions.alibi_slopes": lambda: right(num_heads=6),
    "positions.alibi_bias": lambda: right(num_heads=6, query_len=2, key_len=4, dtype=np.float32),
    "positions.torch_sinusoidal": lambda: right(
        seq_len=T, d_model=C, offset=2, base=100.0, dtype=torch.float32, device="cpu"
    ),
    "positions.torch_rope_rotate": lambda: right(
        x=tensor(B, T, C), positions=tensor(T), base=100.0, layout="half", inverse=False
    ),
    "positions.torch_alibi_bias": lambda: right(
        num_heads=6, query_len=2, key_len=4, dtype=torch.float32, device="cpu"
    ),
    # ------------------------------------------------------------------ chapters 1 and 8
    "likelihood.negative_log_likelihood": lambda: right(log_probs=array(T, low=-3, high=-0.1)),
    "likelihood.entropy": lambda: right(p=shares(B, V)),
    "likelihood.cross_entropy": lambda: right(p=shares(B, V), q=shares(B, V)),
    "likelihood.kl_divergence": lambda: right(p=shares(B, V), q=shares(B, V)),
    "likelihood.perplexity": lambda: right(nats_per_token=1.5),
    "likelihood.bits_per_character": lambda: right(total_nats=20.5, num_characters=10),
    "losses.softmax_cross_entropy": lambda: right(
        logits=array(B, T, V), targets=whole(B, T), ignore_index=-100
    ),
    "schedules.warmup_cosine": lambda: right(
        step=3, warmup_steps=2, total_steps=10, peak=1.0, floor=0.1
    ),
    "schedules.trapezoid": lambda: right(
        step=3, warmup_steps=2, cooldown_steps=4, total_steps=10, floor=0.1
    ),
    # ------------------------------------------------------------------ chapters 13, 16 and 18
    "muon.newton_schulz": lambda: right(
        matrix=tensor(2, 4, 3), steps=3, coefficients=(3.4445, -4.775, 2.0315), eps=1e-7
    ),
    "preference.dpo_loss": lambda: right(
        chosen=tensor(B, low=-5, high=-1),
        rejected=tensor(B, low=-5, high=-1),
        reference_chosen=tensor(B, low=-5, high=-1),
        reference_rejected=tensor(B, low=-5, high=-1),
        beta=0.1,
    ),
    "preference.tilted_policy": lambda: right(
        reference=torch.from_numpy(shares(B, 4)).float(), rewards=tensor(B, 4), beta=0.5
    ),
    "calibration.reliability": lambda: right(
        confidence=array(9, low=0, high=1), correct=whole(9, high=2), bins=4
    ),
    "calibration.expected_calibration_error": lambda: right(
        confidence=array(9, low=0, high=1), correct=whole(9, high=2), bins=4
    ),
    "calibration.fit_temperature": lambda: right(logits=array(9, 4), labels=whole(9, high=4)),
    "metrics.bootstrap_interval": lambda: right(
        values=array(9), statistic=lambda rows: rows.max(axis=1), level=0.9, resamples=20, seed=1
    ),
    "metrics.paired_bootstrap": lambda: right(
        ours=array(9), theirs=array(9) * 2, resamples=20, seed=1
    ),
    "privacy.plant": lambda: right(
        text="one\ntwo\n", secrets=[("the key is 7", 2), ("the door is 3", 1)], rng=rng()
    ),
    "privacy.exposure": lambda: right(secret_loss=1.5, other_losses=array(9, low=1, high=3)),
    "numerals.chinese_numeral": lambda: right(number=120),
    # ------------------------------------------------------------------ chapter 19
    "quantise.quantise": lambda: right(weights=tensor(4, C), bits=4, per="group", group_size=4),
    "quantise.Quantised.dequantise": lambda: right(on=quantise.quantise(tensor(4, C))),
    "quantise.int8_linear": lambda: right(
        x=tensor(B, T, C), weight=quantise.quantise(tensor(4, C)), bias=tensor(4)
    ),
    "quantise.round_weights": lambda: right(
        model=nn.Sequential(nn.Linear(C, 4), nn.Linear(4, 2)), bits=4, per="row", group_size=4
    ),
    "quantise.read_q8_0": lambda: right(blocks=np.ones((2, 34), dtype=np.uint8)),
    "quantise.read_q4_1": lambda: right(blocks=np.ones((2, 20), dtype=np.uint8)),
    "costs.kv_cache_bytes": lambda: right(
        num_layers=2, num_kv_heads=2, head_dim=4, seq_len=8, batch_size=1, bytes_each=2
    ),
    "costs.training_state_bytes": lambda: right(
        num_parameters=1000, precision="mixed", zero_stage=1, num_ranks=2
    ),
    "costs.block_activation_numbers": lambda: right(
        batch_size=2, seq_len=8, d_model=16, num_heads=2
    ),
    "costs.activation_bytes": lambda: right(
        **SIZES, num_heads=2, vocab_size=50, bytes_each=4, recompute=True
    ),
    "costs.forward_flops": lambda: right(**SIZES, vocab_size=50),
    "costs.training_flops": lambda: right(num_parameters=1e6, num_tokens=1e8),
    "costs.Machine": lambda: right(
        name="laptop", peak=1e12, utilisation=0.5, watts=60.0, dollars_per_hour=0.1, count=2
    ),
    "costs.Machine.bill": lambda: right(
        on=machine(), flops=1e15, overhead=1.2, dollars_per_kwh=0.3
    ),
    "measure.synchronize": lambda: right(device="cpu"),
    "measure.time_call": lambda: right(function=lambda: None, repeats=3, warmup=1, device="cpu"),
    "measure.saved_bytes": lambda: right(function=lambda: tensor(2).requires_grad_().exp()),
    "measure.matmul_cost": lambda: right(rows=2, inner=3, columns=4, bytes_each=4),
    "measure.attainable": lambda: right(
        intensity=array(4, low=1, high=9), peak=100.0, bandwidth=10.0
    ),
    "scaling.non_embedding": lambda: right(num_layers=2, d_model=16),
    "scaling.PowerLaw.__call__": lambda: right(
        on=scaling.PowerLaw(1.0, 5.0, 0.3), sizes=array(5, low=10, high=1000)
    ),
    "scaling.fit_power_law": lambda: right(
        sizes=np.array([10.0, 20, 40, 80, 160]),
        losses=np.array([3.0, 2.6, 2.3, 2.1, 2.0]),
        floor=1.0,
    ),
    "scaling.bootstrap_fits": lambda: right(
        sizes=np.array([10.0, 20, 40, 80, 160]),
        losses=np.array([3.0, 2.6, 2.3, 2.1, 2.0]),
        count=2,
        floor=1.0,
        seed=1,
    ),
    "scaling.LossSurface": lambda: right(
        E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28, then=lambda law: law(1e6, 1e8)
    ),
    "scaling.LossSurface.__call__": lambda: right(
        on=scaling.HOFFMANN_2022, parameters=array(4, low=1e6, high=1e7), tokens=1e8
    ),
    "scaling.LossSurface.optimum": lambda: right(on=scaling.HOFFMANN_2022, flops=1e18),
    "parallel.ring_all_reduce": lambda: right(vectors=array(2, 4)),
    # ------------------------------------------------------------------ chapter 15
    "spans.viterbi": lambda: right(
        scores=array(T, 3), allowed=np.ones((3, 3), dtype=bool), first=np.array([True, True, False])
    ),
    "spans.best_span": lambda: right(
        start_scores=array(T), end_scores=array(T), max_length=2, candidates=np.ones(T, dtype=bool)
    ),
}
