"""Models of texts: what padding and the order of the words do, sizes, gradients, a text without any word."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.models import MODELS
from tasks.plugins import PluginError

SMALL = "vocabulary = 30, width = 8"
TRANSFORMER = "width = 8, heads = 2, vocabulary = 30"
TEXTS = torch.tensor([[3, 7, 3, 9], [5, 0, 0, 0], [4, 4, 11, 0]])


def build(name: str, args: str, words: int = 6) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(name, args, num_classes=3, input_shape=(words,)).double()
    for parameter in model.parameters():  # larger than at the start, so that nothing is small by accident
        parameter.data += 0.3 * torch.randn_like(parameter) * (parameter != 0)
    return model


def padded(texts: Tensor, more: int) -> Tensor:
    return nn.functional.pad(texts, (0, more))


@pytest.mark.parametrize(("name", "args"), [("text-bag", SMALL), ("text-transformer", TRANSFORMER)])
@pytest.mark.parametrize("training", [False, True])
def test_padding_and_the_other_texts_of_a_batch_have_no_influence(name: str, args: str, training: bool) -> None:
    model = build(name, args).train(training)
    with torch.set_grad_enabled(training):  # without gradients torch takes another path
        alone = torch.cat([model(text[text != 0][None]) for text in TEXTS])
        torch.testing.assert_close(model(TEXTS), alone, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(model(padded(TEXTS, 2)), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "args"), [("text-bag", SMALL), ("text-transformer", TRANSFORMER)])
def test_a_text_of_padding_alone_gets_the_bias_and_leaves_the_gradients_finite(name: str, args: str) -> None:
    model = build(name, args)
    logits = model(padded(TEXTS[1:2] * 0, 2))
    torch.testing.assert_close(logits, dict(model.named_parameters())["classifier.bias"][None])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(padded(TEXTS[1:2] * 0, 2)), logits)
    torch.autograd.backward(model(torch.cat([TEXTS, TEXTS[:1] * 0])).square().sum())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "args", "matters"), [("text-bag", SMALL, False), ("text-transformer", TRANSFORMER, True)]
)
def test_the_order_of_the_words_matters_to_the_transformer_alone(name: str, args: str, matters: bool) -> None:
    model = build(name, args)
    one, other = model(torch.tensor([[3, 7, 9], [9, 7, 3]]))
    assert (bool(((one - other).abs() > 1e-2).any())) is matters
    assert torch.allclose(one, other) is not matters


def test_gradients_of_the_transformer_are_those_of_finite_differences() -> None:
    model = build("text-transformer", "width = 4, heads = 2, layers = 2, vocabulary = 12", words=4)
    parameters = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
    names = [name for name in parameters if name != "words.weight"]  # its row 0 has no gradient by design

    def logits(*values: Tensor) -> Tensor:
        return functional_call(model, {**parameters, **dict(zip(names, values, strict=True))}, (TEXTS,))

    assert torch.autograd.gradcheck(logits, tuple(parameters[name] for name in names), fast_mode=True)
    model.zero_grad()
    torch.autograd.backward(model(TEXTS).square().sum())
    used = dict(model.named_parameters())["words.weight"].grad
    assert used is not None
    assert used.abs().sum(1).nonzero().flatten().tolist() == [3, 4, 5, 7, 9, 11]


def test_sizes_are_as_counted() -> None:
    def size(name: str, args: str) -> int:
        return sum(map(torch.numel, build(name, args).parameters()))

    width, layer = 8, (3 * 8 * 8 + 3 * 8) + (8 * 8 + 8) + 2 * (2 * 8 * 8) + (16 + 8) + 2 * 2 * 8
    assert size("text-transformer", TRANSFORMER) == 30 * width + 6 * width + 2 * layer + 2 * width + 3 * width + 3
    fnbench = "vocabulary = 95, width = 256, hidden = 256"
    assert size("text-bag", fnbench) == 95 * 256 + 256 * 256 + 256 + 256 * 3 + 3
    assert size("text-bag", SMALL) == 30 * 8 + 8 * 3 + 3


def test_layers_of_the_transformer_start_with_different_weights() -> None:
    first, second = (
        value for name, value in build_plain().state_dict().items() if name.endswith("self_attn.in_proj_weight")
    )
    assert not torch.equal(first, second)
    assert float(first.abs().max()) == pytest.approx(math.sqrt(6 / (4 * 64)), rel=0.01)


def build_plain() -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build("text-transformer", "vocabulary = 30", num_classes=3, input_shape=(6,))


def test_the_transformer_learns_what_only_the_order_tells() -> None:
    """Whether word 1 comes before word 2: no bag of words can know."""
    torch.manual_seed(0)
    model = build_plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    first = torch.arange(64) % 2
    fill = torch.randint(3, 30, (64, 4))
    texts = torch.stack([1 + first, fill[:, 0], 2 - first, fill[:, 1], fill[:, 2]], dim=1)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(texts), first))
        optimizer.step()
    assert float((model(texts).argmax(1) == first).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("args", "shape", "message"),
    [
        ("vocabulary = 5", (3, 8, 8), "texts of shape"),
        ("vocabulary = 1", (8,), "vocabulary = 1"),
        ("vocabulary = 5, width = 6", (8,), "a multiple of heads"),
        ("vocabulary = 5, dropout = 1.0", (8,), "a share from 0 to below 1"),
    ],
)
def test_the_transformer_says_what_it_takes(args: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        MODELS.build("text-transformer", args, num_classes=3, input_shape=shape)
    with pytest.raises(PluginError, match="at least 2, 1 and 0"):
        MODELS.build("text-bag", "vocabulary = 5, hidden = -1", num_classes=3, input_shape=(8,))
