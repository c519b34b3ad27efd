"""Right arguments for models: their parts, their weights, and what looks inside them."""

from __future__ import annotations

import contextlib
from functools import cache
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from robust_examples_texts import FOLDER, file
from robust_judge import Example
from robust_tools import (
    B,
    C,
    ChatTokenizer,
    H,
    T,
    V,
    bert,
    bert_config,
    bert_for_pretraining,
    flags,
    gpt,
    ids,
    llama,
    llama_config,
    none_of,
    recipe,
    right,
    seq2seq,
    seq2seq_config,
    speedrun_gpt,
    tensor,
    whole,
    word_piece,
)
from torch import nn

from utils import (
    bert_weights,
    classify,
    inside,
    layers,
    lora,
    recurrent,
    speedrun,
    speedrun_model,
    tagger,
)
from utils import (
    llama as llamas,
)
from utils.bert import Bert
from utils.cache import KVCache
from utils.gpt import GPT, GPTConfig
from utils.seq2seq import CachedDecoder, Seq2Seq

ONE = torch.zeros(1, 1, dtype=torch.int64)  # the shortest text, in every vocabulary
UNEXPECTED = {("inputs", "entry more"): "Python itself says which argument a model lacks"}
LOADED = "which weights are read is tested elsewhere"


def filled_cache() -> KVCache:
    cache = KVCache(1, 6)
    cache.update(0, tensor(B, H, 2, C // H), tensor(B, H, 2, C // H))
    return cache


def llama_cache() -> KVCache:
    cache = KVCache(1, 6)
    cache.update(0, tensor(B, 1, 2, C // H), tensor(B, 1, 2, C // H))
    return cache


def with_llama_cache(part: nn.Module) -> Example:
    """Return the example of a part of a Llama that goes on after two cached tokens."""
    return right(
        around=torch.no_grad,
        on=part,
        x=tensor(B, T, C),
        mask=causal(T, T + 2),
        cache=llama_cache(),
        layer=0,
        called={"cache": "mask"},
    )


def causal(queries: int, keys: int) -> torch.Tensor:
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return mask[None, None].expand(B, 1, -1, -1)


def pretraining_batch() -> dict[str, torch.Tensor]:
    labels = torch.full((B, T), -100)
    labels[:, 1] = 3
    return {
        "ids": ids(),
        "segment_ids": ids(high=2),
        "attention_mask": flags(),
        "labels": labels,
        "is_random": torch.tensor([0, 1, 0]),
    }


def classifier(frozen: int | None = 1) -> classify.TextClassifier:
    return classify.TextClassifier(bert(), 3, frozen=frozen).eval()


def texts() -> list[classify.TextExample]:
    return [classify.TextExample([2, 5, 3], [0, 0, 0], 1), classify.TextExample([2, 3], [0, 0], 0)]


def cached_texts() -> list[classify.CachedExample]:
    return [classify.CachedExample(tensor(3, C), 1), classify.CachedExample(tensor(2, C), 0)]


def decoder() -> CachedDecoder:
    found = seq2seq().start_decoding(ids(high=9) + 2)
    with torch.no_grad():
        found(torch.ones(B, dtype=torch.int64))
    return found


def adapted() -> GPT:
    model = gpt()
    lora.add_lora(model, 2)
    return model


def adapters() -> object:
    path = file("adapters.safetensors")
    lora.save_lora(adapted(), path)
    return path


def weights(*shape: int) -> torch.Tensor:
    return tensor(*(shape or (2, H, T, T)), low=0.1).softmax(dim=-1)


def heads() -> inside.Heads:
    return inside.record_heads(gpt(), ids())[0]


def last_logit(output: torch.Tensor) -> torch.Tensor:
    return output[0, -1, 2]


def tagged() -> list[tuple]:
    return [([2, 5, 3], [0, 0, 0], [-100, 1, -100]), ([2, 3], [0, 0], [-100, -100])]


def spanned() -> list[tuple]:
    return [
        ([2, 5, 3], [0, 0, 0], [0, 1, 0], (1, 1)),
        ([2, 5, 6, 3], [0, 0, 0, 0], [0, 1, 1, 0], (1, 2)),
    ]


def recipe_in_use() -> speedrun.Recipe:
    return recipe(positions="rope", qk_norm=True, norm="rms", activation="relu2", ngrams=(2,))


def rotation() -> tuple[torch.Tensor, torch.Tensor]:
    return speedrun_model.rotation_tables(T, C // H)


@cache
def transformers_bert() -> nn.Module:
    return bert_weights.to_transformers(bert())


@cache
def transformers_gpt() -> nn.Module:
    from utils.gpt import to_transformers

    return to_transformers(gpt())


@cache
def transformers_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=V,
        hidden_size=C,
        num_hidden_layers=1,
        num_attention_heads=H,
        num_key_value_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    return LlamaForCausalLM(config)


def their_word_piece() -> SimpleNamespace:
    text = (
        '{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}, "normalizer": {"lowercase": true}}'
    )
    return SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: text))


@contextlib.contextmanager
def nothing_read():
    """Put a stand-in in the place of reading weights: names and devices are checked as ever."""
    from utils import checkpoints
    from utils.train import get_device

    def load(kind, place, device, *_):
        get_device(str(device) if device is not None else None)
        if place.startswith("/"):
            return transformers_llama(), ChatTokenizer()
        raise OSError("no model of that name is in the cache of the hub")

    with (
        mock.patch.object(checkpoints, "_load", load),
        mock.patch.dict("os.environ", HF_HUB_OFFLINE="1"),
    ):
        yield


def module(kind, *args, **kwargs):
    return kind(*args, **kwargs).eval()


EXAMPLES = {
    # ------------------------------------------------------------------ chapter 6
    "layers.LayerNorm": lambda: right(
        d_model=C, eps=1e-5, bias=True, then=lambda m: m(torch.ones(2, m.d_model))
    ),
    "layers.LayerNorm.forward": lambda: right(on=layers.LayerNorm(C), x=tensor(B, T, C)),
    "layers.MultiHeadAttention": lambda: right(
        d_model=C,
        num_heads=H,
        dropout=0.1,
        bias=True,
        then=lambda m: m(torch.ones(1, 2, m.d_model)),
    ),
    "layers.MultiHeadAttention.forward": lambda: right(
        on=module(layers.MultiHeadAttention, C, H),
        x=tensor(B, T, C),
        context=tensor(B, 5, C),
        attention_mask=torch.from_numpy(none_of(B, T, 5)),
        is_causal=True,
        rotate=lambda x: x * 2,
        return_weights=True,
    ),
    "layers.FeedForward": lambda: right(
        d_model=C,
        d_hidden=6,
        activation="relu",
        bias=True,
        then=lambda m: m(torch.ones(2, m.d_model)),
    ),
    "layers.FeedForward.forward": lambda: right(
        on=module(layers.FeedForward, C, 6), x=tensor(B, T, C)
    ),
    "layers.TransformerBlock": lambda: right(
        called={"norm_eps": "eps"},
        d_model=C,
        num_heads=H,
        d_hidden=6,
        dropout=0.1,
        norm_first=True,
        activation="gelu",
        cross_attention=False,
        bias=True,
        norm_eps=1e-5,
        then=lambda m: m(
            torch.ones(1, 2, m.attention.d_model),
            context=torch.ones(1, 2, m.attention.d_model) if m.cross_attention else None,
        ),
    ),
    "layers.TransformerBlock.forward": lambda: right(
        on=module(layers.TransformerBlock, C, H, cross_attention=True),
        x=tensor(B, T, C),
        attention_mask=torch.from_numpy(none_of(T, T)),
        is_causal=True,
        rotate=lambda x: x * 2,
        context=tensor(B, 5, C),
        context_mask=torch.from_numpy(none_of(B, T, 5)),
    ),
    # ------------------------------------------------------------------ chapter 3
    "recurrent.NeuralNGram": lambda: right(
        vocab_size=V, order=3, d_model=C, d_hidden=8, then=lambda m: m(ONE)
    ),
    "recurrent.NeuralNGram.forward": lambda: right(on=recurrent.NeuralNGram(V, 3, C, 8), ids=ids()),
    "recurrent.RecurrentLM": lambda: right(
        vocab_size=V, d_model=C, d_hidden=8, num_layers=1, kind="gru", then=lambda m: m(ONE)
    ),
    "recurrent.RecurrentLM.forward": lambda: right(on=recurrent.RecurrentLM(V, C, 8), ids=ids()),
    "recurrent.RecurrentLM.states": lambda: right(on=recurrent.RecurrentLM(V, C, 8), ids=ids()),
    "recurrent.BidirectionalLM": lambda: right(
        vocab_size=V, d_model=C, d_hidden=8, num_layers=2, then=lambda m: m.layers(ONE)
    ),
    "recurrent.BidirectionalLM.layers": lambda: right(
        on=recurrent.BidirectionalLM(V, C, 8), ids=ids()
    ),
    "recurrent.BidirectionalLM.loss": lambda: right(
        on=recurrent.BidirectionalLM(V, C, 8), ids=ids()
    ),
    "recurrent.LayerMix": lambda: right(num_layers=2),
    "recurrent.LayerMix.forward": lambda: right(
        on=recurrent.LayerMix(2), layers=[tensor(B, T, C), tensor(B, T, C)]
    ),
    # ------------------------------------------------------------------ chapter 9
    "bert.BertConfig": lambda: right(
        vocab_size=V,
        context_length=6,
        num_layers=1,
        num_heads=H,
        d_model=C,
        d_hidden=8,
        num_segments=2,
        dropout=0.1,
        norm_eps=1e-12,
        init_std=0.02,
        then=lambda config: Bert(config).eval()(ONE),
    ),
    "bert.Bert": lambda: right(config=bert_config()),
    "bert.Bert.forward": lambda: right(
        on=bert(), ids=ids(), segment_ids=ids(high=2), attention_mask=flags()
    ),
    "bert.Bert.pool": lambda: right(on=bert(), hidden=tensor(B, T, C)),
    "bert.MaskedTokenHead": lambda: right(config=bert_config()),
    "bert.MaskedTokenHead.forward": lambda: right(
        on=bert_for_pretraining().token_head, hidden=tensor(B, T, C), token_embedding=tensor(V, C)
    ),
    "bert.BertForPreTraining": lambda: right(config=bert_config()),
    "bert.BertForPreTraining.forward": lambda: right(
        on=bert_for_pretraining(), ids=ids(), segment_ids=ids(high=2), attention_mask=flags()
    ),
    "bert.BertForPreTraining.token_logits": lambda: right(
        on=bert_for_pretraining(), hidden=tensor(B, T, C)
    ),
    "bert.BertForPreTraining.next_logits": lambda: right(
        on=bert_for_pretraining(), hidden=tensor(B, T, C)
    ),
    "bert.masked_token_loss": lambda: right(
        model=bert_for_pretraining(), batch=pretraining_batch()
    ),
    "bert.pretraining_loss": lambda: right(model=bert_for_pretraining(), batch=pretraining_batch()),
    "bert_weights.bert_name": lambda: right(name="blocks.0.attention.query_proj.weight"),
    "bert_weights.from_transformers": lambda: right(theirs=transformers_bert()),
    "bert_weights.to_transformers": lambda: right(model=bert()),
    "bert_weights.load_bert": lambda: right(
        name="minilm",
        device="cpu",
        around=nothing_read,
        skip_kinds={("device", "None"): LOADED, ("device", "empty"): LOADED},
    ),
    "bert_weights.word_piece": lambda: right(their_tokenizer=their_word_piece()),
    "checkpoints.checkpoint_path": lambda: right(name="minilm"),
    "checkpoints.load_encoder": lambda: right(name="minilm", device="cpu", around=nothing_read),
    "checkpoints.load_decoder": lambda: right(name="smollm2", device="cpu", around=nothing_read),
    # ------------------------------------------------------------------ chapter 10
    "cache.KVCache": lambda: right(
        num_layers=1,
        max_length=6,
        then=lambda c: c.update(0, tensor(1, 1, 1, 2), tensor(1, 1, 1, 2)),
    ),
    "cache.KVCache.update": lambda: right(
        on=filled_cache(), layer=0, keys=tensor(B, H, 1, C // H), values=tensor(B, H, 1, C // H)
    ),
    "cache.KVCache.select": lambda: right(on=filled_cache(), rows=torch.tensor([1, 0, 1])),
    "gpt.GPTConfig": lambda: right(
        vocab_size=V,
        context_length=6,
        num_layers=1,
        num_heads=H,
        d_model=C,
        dropout=0.1,
        bias=True,
        norm_eps=1e-5,
        then=lambda config: GPT(config).eval()(ONE),
    ),
    "gpt.GPT": lambda: right(config=GPTConfig(V, 6, 1, H, C)),
    "gpt.GPT.forward": lambda: right(
        around=torch.no_grad, on=gpt(), ids=ids(), cache=KVCache(1, 6)
    ),
    "gpt.block_with_cache": lambda: right(
        around=torch.no_grad,
        block=gpt().blocks[0],
        x=tensor(B, 1, C),
        cache=filled_cache(),
        layer=0,
    ),
    "gpt.gpt2_name": lambda: right(name="blocks.0.attention.output_proj.weight"),
    "gpt.to_transformers": lambda: right(model=gpt()),
    "gpt.from_transformers": lambda: right(theirs=transformers_gpt()),
    # ------------------------------------------------------------------ chapter 11
    "seq2seq.Seq2SeqConfig": lambda: right(
        vocab_size=V,
        num_layers=1,
        num_heads=H,
        d_model=C,
        d_hidden=8,
        dropout=0.1,
        norm_first=True,
        activation="relu",
        max_length=6,
        pad_id=0,
        start_id=1,
        stop_id=2,
        then=lambda config: Seq2Seq(config).eval()(ONE + 1 - ONE, ONE),
    ),
    "seq2seq.Seq2Seq": lambda: right(config=seq2seq_config()),
    "seq2seq.Seq2Seq.embed": lambda: right(
        on=seq2seq(), ids=ids(), offset=1, called={"offset": "sequence"}
    ),
    "seq2seq.Seq2Seq.source_mask": lambda: right(on=seq2seq(), source=ids()),
    "seq2seq.Seq2Seq.encode": lambda: right(on=seq2seq(), source=ids()),
    "seq2seq.Seq2Seq.decode": lambda: right(
        on=seq2seq(),
        target_in=ids(),
        memory=tensor(B, 5, C),
        memory_mask=flags(B, 1, 5),
        called={"memory_mask": "attention_mask"},
    ),
    "seq2seq.Seq2Seq.logits": lambda: right(on=seq2seq(), x=tensor(B, T, C)),
    "seq2seq.Seq2Seq.forward": lambda: right(on=seq2seq(), source=ids(B, 5), target_in=ids()),
    "seq2seq.Seq2Seq.cross_attention_weights": lambda: right(
        on=seq2seq(), source=ids(B, 5), target_in=ids()
    ),
    "seq2seq.Seq2Seq.start_decoding": lambda: right(on=seq2seq(), source=ids(B, 5), max_length=4),
    "seq2seq.CachedDecoder": lambda: right(
        around=torch.no_grad, model=seq2seq(), source=ids(B, 5), max_length=4
    ),
    "seq2seq.CachedDecoder.__call__": lambda: right(
        around=torch.no_grad, on=decoder(), tokens=ids(B)
    ),
    "seq2seq.CachedDecoder.select": lambda: right(on=decoder(), rows=torch.tensor([1, 0, 1])),
    "seq2seq.collate_pairs": lambda: right(
        pairs=[([3, 4], [5]), ([6], [7, 8])], config=seq2seq_config()
    ),
    "seq2seq.label_smoothed_loss": lambda: right(
        logits=tensor(B, T, V), targets=ids(), smoothing=0.1
    ),
    "seq2seq.smoothed_loss_function": lambda: right(
        smoothing=0.1, then=lambda loss: loss(gpt(), (ids(), ids()))
    ),
    "seq2seq.to_torch": lambda: right(model=seq2seq()),
    # ------------------------------------------------------------------ chapter 12
    "llama.LlamaConfig": lambda: right(
        vocab_size=V,
        d_model=C,
        num_layers=1,
        num_heads=H,
        num_kv_heads=1,
        d_hidden=8,
        head_dim=4,
        context_len=16,
        rope_base=100.0,
        norm_eps=1e-5,
        tied=True,
        then=lambda config: llamas.Llama(config)(ONE),
    ),
    "llama.LlamaConfig.from_transformers": lambda: right(config=transformers_llama().config),
    "llama.RMSNorm": lambda: right(d_model=C, eps=1e-5, then=lambda m: m(torch.ones(2, m.d_model))),
    "llama.RMSNorm.forward": lambda: right(on=llamas.RMSNorm(C), x=tensor(B, T, C)),
    "llama.SwiGLU": lambda: right(d_model=C, d_hidden=6),
    "llama.SwiGLU.forward": lambda: right(on=llamas.SwiGLU(C, 6), x=tensor(B, T, C)),
    "llama.GroupedQueryAttention": lambda: right(config=llama_config()),
    "llama.GroupedQueryAttention.forward": lambda: with_llama_cache(llama().blocks[0].attention),
    "llama.LlamaBlock": lambda: right(config=llama_config()),
    "llama.LlamaBlock.forward": lambda: with_llama_cache(llama().blocks[0]),
    "llama.Llama": lambda: right(config=llama_config()),
    "llama.Llama.forward": lambda: right(
        around=torch.no_grad,
        on=llama(),
        ids=ids(),
        cache=llama_cache(),
        attention_mask=flags(B, T + 2),
        called={"cache": "cached"},
    ),
    "llama.Llama.from_transformers": lambda: right(model=transformers_llama()),
    "llama.our_name": lambda: right(name="model.layers.0.self_attn.q_proj.weight"),
    "llama.load_llama": lambda: right(device="cpu", around=nothing_read),
    "llama.chat_prompt": lambda: right(
        messages=[{"role": "user", "content": "Who is there?"}], system="Answer."
    ),
    "llama.generate_ids": lambda: right(
        model=llama(),
        ids=[3, 4],
        max_new_tokens=3,
        temperature=0.5,
        stop_ids=(2,),
        generator=torch.Generator().manual_seed(0),
    ),
    "llama.stream": lambda: right(
        model=llama(),
        tokenizer=ChatTokenizer(),
        prompt="To be",
        max_new_tokens=3,
        temperature=0.5,
        generator=torch.Generator().manual_seed(0),
    ),
    # ------------------------------------------------------------------ chapter 13
    "speedrun_model.Attention": lambda: right(recipe=recipe()),
    "speedrun_model.Attention.forward": lambda: right(
        on=speedrun_gpt().blocks[0].attention, x=tensor(B, T, C), rotation=rotation()
    ),
    "speedrun_model.Block": lambda: right(recipe=recipe()),
    "speedrun_model.Block.forward": lambda: right(
        on=speedrun_gpt().blocks[0], x=tensor(B, T, C), rotation=rotation()
    ),
    "speedrun_model.FeedForward": lambda: right(recipe=recipe()),
    "speedrun_model.FeedForward.forward": lambda: right(
        on=speedrun_gpt().blocks[0].feed_forward, x=tensor(B, T, C)
    ),
    "speedrun_model.make_norm": lambda: right(recipe=recipe()),
    "speedrun_model.rotation_tables": lambda: right(context_length=T, head_dim=4),
    "speedrun_model.rotate": lambda: right(
        x=tensor(B, H, T, 4), cos=rotation()[0], sin=rotation()[1]
    ),
    "speedrun_model.SpeedrunGPT": lambda: right(
        recipe=recipe(), vocab_size=V, then=lambda m: m(ONE)
    ),
    "speedrun_model.SpeedrunGPT.forward": lambda: right(
        on=speedrun_model.SpeedrunGPT(recipe_in_use(), V), ids=ids()
    ),
    "speedrun_model.ngram_rows": lambda: right(ids=ids(), n=2, vocab_size=V, rows=50),
    "speedrun.Recipe": lambda: right(
        **vars(recipe_in_use()), then=lambda r: speedrun_model.SpeedrunGPT(r, V)(ONE)
    ),
    "speedrun.schedule_of": lambda: right(recipe=recipe(), then=lambda schedule: schedule(1)),
    "speedrun.make_optimizer": lambda: right(recipe=recipe(), model=speedrun_gpt()),
    "speedrun.ladder": right,
    # ------------------------------------------------------------------ chapters 14 and 15
    "classify.encode_texts": lambda: right(
        texts=["to be", ("or", "not")], tokenizer=word_piece(), labels=[1, 0], max_length=6
    ),
    "classify.collate": lambda: right(examples=texts(), rng=None, skip={"rng": "is not used"}),
    "classify.collate_cached": lambda: right(
        examples=cached_texts(), rng=None, skip={"rng": "is not used"}
    ),
    "classify.BucketedBatches": lambda: right(
        examples=texts(),
        batch_size=1,
        collate=classify.collate,
        seed=1,
        pool=2,
        length=lambda example: len(example.ids),
        then=lambda batches: batches[1],
    ),
    "classify.BucketedBatches.order": lambda: right(
        on=classify.BucketedBatches(texts(), 1, classify.collate), epoch=1
    ),
    "classify.BucketedBatches.__getitem__": lambda: right(
        on=classify.BucketedBatches(texts(), 1, classify.collate), index=3
    ),
    "classify.BucketedBatches.padding_share": lambda: right(
        on=classify.BucketedBatches(texts(), 2, classify.collate), epoch=1
    ),
    "classify.BucketedBatches.describe": lambda: right(
        on=classify.BucketedBatches(texts(), 2, classify.collate)
    ),
    "classify.masked_mean": lambda: right(hidden=tensor(B, T, C), attention_mask=flags()),
    "classify.TextClassifier": lambda: right(
        encoder=bert(),
        num_classes=3,
        pooling="cls",
        dropout=0.1,
        frozen=1,
        then=lambda m: m(ONE, ONE, ONE == 0),
    ),
    "classify.TextClassifier.train": lambda: right(on=classifier(), mode=True),
    "classify.TextClassifier.forward": lambda: right(
        on=classifier(), ids=ids(), segment_ids=ids(high=2), attention_mask=flags()
    ),
    "classify.TextClassifier.vectors": lambda: right(
        on=classifier(0), hidden=tensor(B, T, C), attention_mask=flags()
    ),
    "classify.TextClassifier.from_hidden": lambda: right(
        on=classifier(0), hidden=tensor(B, T, C), attention_mask=flags()
    ),
    "classify.upper_loss": lambda: right(
        model=classifier(), batch=(tensor(B, T, C), flags(), torch.tensor([0, 1, 2]))
    ),
    "classify.layerwise_groups": lambda: right(
        model=classifier(None), lr=1e-3, decay=0.8, weight_decay=0.1
    ),
    "classify.cache_lower": lambda: right(model=classifier(), examples=texts(), batch_size=2),
    "classify.predict": lambda: right(
        model=classifier(), examples=texts(), batch_size=2, vectors=True
    ),
    "classify.accuracy": lambda: right(
        logits=np.random.default_rng(0).normal(size=(5, 3)), labels=whole(5, high=3)
    ),
    "tagger.TokenTagger": lambda: right(
        encoder=bert(), num_labels=3, dropout=0.1, then=lambda m: m(ONE)
    ),
    "tagger.TokenTagger.forward": lambda: right(
        on=module(tagger.TokenTagger, bert(), 3),
        ids=ids(),
        segment_ids=ids(high=2),
        attention_mask=flags(),
    ),
    "tagger.SpanReader": lambda: right(
        encoder=bert(), dropout=0.1, then=lambda m: m(ONE, ONE, ONE == 0, ONE == 0)
    ),
    "tagger.SpanReader.forward": lambda: right(
        on=module(tagger.SpanReader, bert()),
        ids=ids(),
        segment_ids=ids(high=2),
        attention_mask=flags(),
        candidates=flags(),
    ),
    "tagger.span_loss": lambda: right(
        model=module(tagger.SpanReader, bert()),
        batch=(ids(), ids(high=2), flags(), flags(), torch.tensor([[0, 1], [1, 1], [1, 2]])),
    ),
    "tagger.collate_tags": lambda: right(pad_id=0, then=lambda collate: collate(tagged())),
    "tagger.collate_spans": lambda: right(pad_id=0, then=lambda collate: collate(spanned())),
    "tagger.predict": lambda: right(
        model=module(tagger.TokenTagger, bert(), 3),
        examples=tagged(),
        collate=tagger.collate_tags(0),
        batch_size=2,
    ),
    # ------------------------------------------------------------------ chapter 16
    "lora.LoRALinear": lambda: right(
        base=nn.Linear(C, 6), rank=2, alpha=4.0, then=lambda m: m(torch.ones(2, m.base.in_features))
    ),
    "lora.LoRALinear.delta": lambda: right(on=lora.LoRALinear(nn.Linear(C, 6), 2)),
    "lora.LoRALinear.forward": lambda: right(
        on=lora.LoRALinear(nn.Linear(C, 6), 2), x=tensor(B, T, C)
    ),
    "lora.LoRALinear.extra_repr": lambda: right(on=lora.LoRALinear(nn.Linear(C, 6), 2)),
    "lora.add_lora": lambda: right(
        model=gpt(),
        rank=2,
        alpha=4.0,
        targets=["query_proj"],
        blocks=[0],
        seed=1,
        changes=("model",),
    ),
    "lora.lora_layers": lambda: right(model=adapted()),
    "lora.lora_parameters": lambda: right(model=adapted()),
    "lora.lora_parameter_count": lambda: right(shapes=[(4, 8), (8, 8)], rank=2),
    "lora.scale_lora": lambda: right(model=adapted(), factor=0.5),
    "lora.merge_lora": lambda: right(model=adapted(), changes=("model",)),
    "lora.remove_lora": lambda: right(model=adapted(), changes=("model",)),
    "lora.save_lora": lambda: right(model=adapted(), path=FOLDER / "saved.safetensors"),
    "lora.load_lora": lambda: right(model=gpt(), path=adapters(), changes=("model",)),
    # ------------------------------------------------------------------ chapter 17
    "inside.Heads.contribution_norms": lambda: right(on=heads()),
    "inside.attention_modules": lambda: right(model=gpt()),
    "inside.num_heads": lambda: right(module=gpt().blocks[0].attention),
    "inside.record_heads": lambda: right(
        model=bert(), ids=ids(), inputs={"segment_ids": ids(high=2)}, skip_kinds=UNEXPECTED
    ),
    "inside.previous_token_scores": lambda: right(weights=weights()),
    "inside.induction_scores": lambda: right(weights=weights(), period=2),
    "inside.repeated_tokens": lambda: right(
        vocab_size=V, batch_size=2, period=3, first_id=1, seed=1
    ),
    "inside.ablated": lambda: right(model=gpt(), heads=[(0, 1), (0, 0)], replace="mean"),
    "inside.attention_rollout": lambda: right(weights=weights()),
    "inside.embedding_gradient": lambda: right(
        model=gpt(), ids=ids(1, T), score=last_logit, embeddings=tensor(1, T, C)
    ),
    "inside.gradient_times_input": lambda: right(model=gpt(), ids=ids(1, T), score=last_logit),
    "inside.integrated_gradients": lambda: right(
        model=gpt(), ids=ids(1, T), score=last_logit, baseline_id=3, steps=2
    ),
    "inside.hidden_states": lambda: right(
        model=bert(), ids=ids(), inputs={"segment_ids": ids(high=2)}, skip_kinds=UNEXPECTED
    ),
    "inside.probe_accuracy": lambda: right(
        train=tensor(9, 4).numpy().astype(float),
        train_labels=[0, 1, 2] * 3,
        test=tensor(6, 4).numpy().astype(float),
        test_labels=[0, 1, 2] * 2,
    ),
    "inside.control_labels": lambda: right(words=["a", "b", "c"], labels=["X", "Y"], seed=1),
    "views.head_view": lambda: right(
        weights=weights(),
        tokens=["a", "b", "c", "d"],
        about="Each line is a weight of attention.",
        layer=1,
        heads=[0, 1],
    ),
    "views.model_view": lambda: right(
        weights=weights(), tokens=["a", "b", "c", "d"], about="Each picture is one head."
    ),
    "views.neuron_view": lambda: right(
        queries=tensor(2, H, T, 4),
        keys=tensor(2, H, T, 4),
        weights=weights(),
        tokens=["a", "b", "c", "d"],
        about="Each line is a weight of attention.",
        layer=1,
        head=1,
        causal=True,
    ),
}
