"""utils.instruct: labels, batches, cached states and answers, against the plain model."""

import pytest
import torch
from torch.nn import functional as F

from utils import data, instruct, llama
from utils.data import DataUnavailable

START, END = "<|im_start|>", "<|im_end|>"


class Words:
    """A tokenizer of characters with the two marks, called as those of transformers are."""

    marks = (START, END)

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens  # the template has all the marks that are wanted
        ids = []
        while text:
            mark = next((i for i, mark in enumerate(self.marks) if text.startswith(mark)), None)
            ids.append(mark if mark is not None else 2 + ord(text[0]) % 90)
            text = text[len(self.marks[mark]) if mark is not None else 1 :]
        return {"input_ids": ids}

    def convert_tokens_to_ids(self, token):
        return self.marks.index(token)

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def model():
    config = llama.LlamaConfig(
        vocab_size=92, d_model=24, num_layers=3, num_heads=4, num_kv_heads=2, d_hidden=32
    )
    model = llama.Llama(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)  # so that the likeliest token is clear
    return model


def test_only_the_reply_and_its_end_have_labels():
    tokenizer = Words()
    example = instruct.encode_chat(tokenizer, "hi", "well", system="s")
    text = f"{START}system\ns{END}\n{START}user\nhi{END}\n{START}assistant\nwell{END}"
    assert example.ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = tokenizer(f"well{END}", add_special_tokens=False)["input_ids"]
    assert example.labels == [-100] * (len(example.ids) - 5) + reply
    untrained = instruct.encode_chat(tokenizer, "hi", "well", system="s", train_end=False)
    assert untrained.ids == example.ids and untrained.labels[-1] == -100
    assert untrained.labels[:-1] == example.labels[:-1]
    turns = [{"role": "user", "content": "hi"}]
    assert instruct.encode_chat(tokenizer, turns, "well", system="s") == example


def test_batches_are_shifted_and_padded_on_the_right():
    a = instruct.ChatExample([5, 6, 7, 8], [-100, -100, 7, 8])
    b = instruct.ChatExample([5, 9, 1], [-100, 9, 1])
    inputs, targets = instruct.collate_chat([a, b])
    assert inputs.tolist() == [[5, 6, 7], [5, 9, 1]]
    assert targets.tolist() == [[-100, 7, 8], [9, 1, -100]]
    assert instruct.plain_text([5, 6, 7], given=2) == ([5, 6, 7], [-100, -100, 7])
    with pytest.raises(ValueError, match="one token"):
        instruct.collate_chat([instruct.ChatExample([5], [5])])


@pytest.mark.parametrize("first_block", [0, 2, 3])
def test_cached_states_give_the_loss_and_gradients_of_the_whole_model(model, first_block):
    examples = [
        instruct.encode_chat(Words(), q, a) for q, a in (("hi", "well"), ("why?", "so"), ("", "x"))
    ]
    inputs, targets = instruct.collate_chat(examples)
    whole = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    upper = [p for block in model.blocks[first_block:] for p in block.parameters()]
    upper.append(model.norm.weight)
    want = torch.autograd.grad(whole, upper)
    cached = instruct.cache_states(model, examples, first_block, batch_size=2)
    batch = instruct.collate_cached(cached)
    assert torch.equal(batch[1], targets)
    loss = instruct.upper_loss(model, batch, first_block)
    torch.testing.assert_close(loss, whole, rtol=1e-4, atol=1e-5)
    losses = instruct.token_losses(model, batch, first_block)
    assert losses.shape == targets.shape and (losses[targets == -100] == 0).all()
    torch.testing.assert_close(losses.sum() / (targets != -100).sum(), whole, rtol=1e-4, atol=1e-5)
    for got, expected in zip(torch.autograd.grad(loss, upper), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="must be at most 3"):
        instruct.cache_states(model, examples, 4)


def test_answers_together_are_the_answers_alone(model):
    tokenizer, prompts = Words(), ["hi", "a longer question", "why"]
    together = instruct.replies(model, tokenizer, prompts, 12, system="s")
    for prompt, answer in zip(prompts, together, strict=True):
        ids = tokenizer(
            llama.chat_prompt([{"role": "user", "content": prompt}], "s"), add_special_tokens=False
        )["input_ids"]
        new = list(llama.generate_ids(model, ids, 12, stop_ids=(1,)))
        assert answer == tokenizer.decode(new) + (" …" if len(new) == 12 else "")
        assert instruct.replies(model, tokenizer, [prompt], 12, system="s") == [answer]


def test_an_answer_ends_with_the_turn_and_others_go_on(model):
    """Whatever the model says, no end mark is in an answer, and a cut-off one is marked."""
    with torch.no_grad():
        model.embedding.weight[1] *= 1.5  # ends turns more often (weights are tied)
    options = {"temperature": 1.5, "seed": 3}
    answers = instruct.replies(model, Words(), ["a", "bb", "ccc", "d"] * 4, 8, **options)
    ended = [a for a in answers if not a.endswith(" …")]
    assert 0 < len(ended) < len(answers)
    for answer in answers:
        tokens = answer.removesuffix(" …").split()
        assert "1" not in tokens and (len(tokens) == 8) == answer.endswith(" …")
    assert answers == instruct.replies(model, Words(), ["a", "bb", "ccc", "d"] * 4, 8, **options)


def test_prompts_must_be_a_list(model):
    for prompts in ("hi", []):
        with pytest.raises(TypeError, match="list of prompts"):
            instruct.replies(model, Words(), prompts)


def test_our_instructions():
    """The sets are disjoint, in the manner, and the summarised plots exist."""
    ours = instruct.instructions()
    questions = [question for question, _ in ours["train"] + ours["test"]]
    assert len(questions) == len(set(questions)) > 70
    for _, answer in ours["train"] + ours["test"]:
        assert answer.startswith("Roger, ") and answer.endswith(" Over.")
        assert instruct.in_manner(answer)
    assert all(len(fact) == 3 and fact[1] != fact[2] for fact in ours["facts"])
    assert all(end.startswith(" ") for fact in ours["facts"] for end in fact[1:])
    try:
        plots = data.film_plots()
    except DataUnavailable:
        pytest.skip("no film plots")
    for film, summary in ours["summaries"].items():
        assert len(summary.split()) < len(plots[film].split()) / 1.8


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Roger, it is blue. Over.", True),
        ("Roger, yes, it is. It is blue. Over.", True),
        ("Roger, it is blue.", False),
        ("It is blue. Over.", False),
        ("Roger, Over.", False),
        ("Roger, over. Over.", False),
        ("Roger, it changes over time. Over.", True),
        ("Roger. It is blue. Over.", False),
        ("Roger, it is blue. Over. Over.", False),
        ("Roger, it is blue. Over. And so on.", False),
        ("Roger, it is blue. Over. …", False),
        ("roger, it is blue. over.", False),
        ("Roger, " + "word " * 25 + "x. Over.", False),
        ("Roger,\nit is blue.\nOver.", False),
    ],
)
def test_in_manner(answer, right):
    assert instruct.in_manner(answer) == right
