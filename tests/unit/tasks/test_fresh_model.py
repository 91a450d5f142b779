"""Fresh models: as they were built, shared with nobody, and the same in every process."""

import copy
import weakref

import pytest
import torch
from torch import nn

from tasks import fresh_model as module
from tasks.fresh_model import ModelSource, fresh_model, has_complete_copies
from tasks.settings import ModelSettings, Settings
from tests.odd_models import Counter, Hooked, LazyCache, Odd, OldWeightNorm, RandomFeatures, Running

ONE = torch.ones(1, 1, 8, 8)


class BoundHook(Odd):
    """A hook that is a method of the model goes along with a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self.hidden = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        return self.hidden


class KnowsItsParent(Odd):
    """Refers to another module without owning it."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = weakref.ref(self.linear)


@pytest.mark.parametrize("kind", [Counter, Running, LazyCache, Hooked, OldWeightNorm, BoundHook, KnowsItsParent])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_fresh_model_knows_nothing_of_the_others(kind: type[Odd]):
    def build() -> nn.Module:
        torch.manual_seed(1)
        return kind()

    source = ModelSource(build)
    expected = build().train()(ONE)
    for _ in range(2):
        model = source.fresh().train()
        assert torch.equal(model(ONE), expected)
        model(ONE).sum().backward()
    assert not any(parameter.grad is not None for parameter in source.fresh().parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_are_copied_where_a_copy_is_complete(monkeypatch: pytest.MonkeyPatch):
    complete = (Odd(), Running(), BoundHook(), nn.LSTM(2, 2), nn.TransformerEncoderLayer(4, 2))
    assert all(has_complete_copies(model) for model in complete)
    assert not any(has_complete_copies(kind()) for kind in (Hooked, OldWeightNorm, KnowsItsParent))
    model, built = Odd(), []
    source = ModelSource(lambda: built.append(1) or model)
    source.fresh()
    assert len(built) == 1
    copied: list[nn.Module] = []
    monkeypatch.setattr(copy, "deepcopy", lambda item: copied.append(item) or item)
    source.fresh()
    assert copied == [model]


def test_what_is_drawn_outside_of_the_state_dict_follows_from_the_seed():
    settings = Settings(seed=4, model=ModelSettings("tests.odd_models:RandomFeatures"))
    drawn = fresh_model(settings).features
    module._source.cache_clear()  # another process
    torch.manual_seed(5)
    assert torch.equal(fresh_model(settings).features, drawn)
    assert not torch.equal(fresh_model(Settings(seed=5, model=settings.model)).features, drawn)
    assert isinstance(fresh_model(settings), RandomFeatures)
