"""Ranges of numbers that built-in parts take: the last value that is allowed, and the first one that is not.

A bound that moves by one, or that takes in its end, lets a run start that means nothing, or refuses a limit case.
"""

import math
from typing import Any

import pytest

from tasks.plugins import PluginError
from tests.registries import registries

REGISTRIES = {registry.listed: registry for registry in registries()}
RUN_GIVES = {"loss": {"num_classes": 2, "class_counts": [1, 1], "reduction": "none"}}
TINY = 1e-9  # nearer to a bound than any other number in the code

FROM_0 = ((0.0,), (-TINY,))
ABOVE_0 = ((TINY,), (0.0,))
SHARE = ((0.0, 1.0), (-TINY, 1 + TINY))
BELOW_1 = ((0.0, 1 - TINY), (-TINY, 1.0))
SOME = ((TINY, 1.0), (0.0, 1 + TINY))
COUNT_FROM_0 = ((0,), (-1,))
COUNT_FROM_1 = ((1,), (0,))
FINITE = ((0.0, 1e300), (-TINY, math.inf))
Range = tuple[tuple[float, ...], tuple[float, ...]]

METHODS: dict[str, dict[str, Range]] = {
    "fedprox": {"mu": FROM_0},
    "fedcorr": {
        **dict.fromkeys(("mixup_alpha", "beta"), FROM_0),
        **dict.fromkeys(("relabel_ratio", "confidence"), SHARE),
        "neighbours": ((2,), (1,)),
    },
    "fednoro": {"weight": SHARE, "temperature": ABOVE_0, "ramp_rounds": COUNT_FROM_0},
    "masked-optim": {
        **dict.fromkeys(("alpha", "beta", "label_rate"), FROM_0),
        **dict.fromkeys(("keep", "fusion", "zeta"), SHARE),
        "label_scale": ABOVE_0,
        "network_scale": ABOVE_0,
    },
    "fedned": {"confidence": SHARE, "temperature": ABOVE_0},
    "co-teaching": {"forget_rate": BELOW_1, "ramp_rounds": COUNT_FROM_0},
    "co-teaching-plus": dict.fromkeys(("ramp_rounds", "agreement_rounds", "fallback_steps"), COUNT_FROM_0),
    "dividemix": {
        **dict.fromkeys(("warmup_rounds", "ramp_rounds"), COUNT_FROM_0),
        **dict.fromkeys(("temperature", "mixup_alpha"), ABOVE_0),
        **{"unlabelled_weight": FROM_0, "average_losses": COUNT_FROM_1, "threshold": BELOW_1},
    },
    "feddiv": {
        **dict.fromkeys(("debias", "mixup_alpha", "prior_weight"), FROM_0),
        **dict.fromkeys(("clean_threshold", "confidence", "momentum"), SHARE),
        "warmup_rounds": COUNT_FROM_0,
    },
    "fedrn": {"threshold": BELOW_1},
    "fedelr": {"weight": FROM_0, "momentum": BELOW_1, "global_share": SHARE},
    "fedlsr": {
        **dict.fromkeys(("distil_weight", "entropy_weight", "mix_alpha"), FROM_0),
        **dict.fromkeys(("temperature", "sharpness"), ABOVE_0),
        "ramp_rounds": COUNT_FROM_0,
    },
    "joint-optim": {"alpha": FROM_0, "beta": FROM_0, "history": COUNT_FROM_1, "warmup_rounds": COUNT_FROM_0},
    "rofl": {
        **dict.fromkeys(("forget_rounds", "pseudo_after"), COUNT_FROM_0),
        **dict.fromkeys(("centroid_weight", "entropy_weight"), FROM_0),
        "forget_rate": BELOW_1,
    },
    "selfie": {"noise_rate": BELOW_1, "threshold": SHARE, "history": COUNT_FROM_1, "warmup_rounds": COUNT_FROM_0},
}
LOSSES: dict[str, dict[str, Range]] = {
    "focal": {"gamma": FROM_0},
    "mae": {"scale": ABOVE_0},
    "gce": {"q": SOME},
    "phce": {"tau": ((1.0,), (1 - TINY,))},
    "tce": {"t": COUNT_FROM_1},
    "agce": {"a": ABOVE_0, "q": ABOVE_0},
    "aul": {"a": ((1 + TINY,), (1.0,)), "q": ABOVE_0},
    "ael": {"a": ABOVE_0},
    "la-ce": {"tau": FROM_0},
    "t-loss": {"nu_rate": FINITE},
}
AGGREGATORS: dict[str, dict[str, Range]] = {
    "krum": {"f": COUNT_FROM_0},
    "multi-krum": {"m": COUNT_FROM_1},
    "monna": {"trusted": COUNT_FROM_0},
    "centered-clipping": {"radius": ((0.0, math.inf), (-TINY, math.nan)), "iterations": COUNT_FROM_1},
    "geometric-median": {"tolerance": ((TINY, 1 - TINY), (0.0, 1.0)), "max_iterations": COUNT_FROM_1},
    "per-tensor-geometric-median": {"iterations": COUNT_FROM_1, "smoothing": ((TINY,), (0.0, math.nan))},
}
OTHERS: dict[tuple[str, str], dict[str, Range]] = {
    ("pre-aggregator", "bucketing"): {"size": COUNT_FROM_1},
    ("pre-aggregator", "norm-clipping"): {"limit": ((0.0, math.inf), (-TINY,)), "factor": ABOVE_0},
    ("detector", "official"): {"fits": COUNT_FROM_1},
    ("detector", "robust"): {"tolerance": SOME},
    ("detector", "groups"): {"most": ((1, 4), (0, 5)), "tolerance": SOME},
}
ALL = {
    **{("method", name): ranges for name, ranges in METHODS.items()},
    **{("loss", name): ranges for name, ranges in LOSSES.items()},
    **{("aggregator", name): ranges for name, ranges in AGGREGATORS.items()},
    **OTHERS,
}


def build(kind: str, name: str, **args: float) -> Any:
    return REGISTRIES[kind].build(name, args, **RUN_GIVES.get(kind, {}))


@pytest.mark.parametrize(
    ("kind", "name", "argument"), [(*part, argument) for part, ranges in ALL.items() for argument in ranges]
)
def test_bounds_are_where_they_are_said_to_be(kind: str, name: str, argument: str) -> None:
    allowed, refused = ALL[kind, name][argument]
    for value in allowed:
        assert build(kind, name, **{argument: value}) is not None
    for value in refused:
        with pytest.raises(PluginError, match=argument):
            build(kind, name, **{argument: value})


@pytest.mark.parametrize(
    ("kind", "name", "argument"),
    [
        ("method", "masked-optim", "objective"),
        ("method", "masked-optim", "mask"),
        ("method", "fedcorr", "ranking"),
        ("aggregator", "distance-aware", "distance"),
        ("loss", "anl-ce", "regularizer"),
        ("loss", "fsanl", "l1_mode"),
        ("loss", "t-loss", "form"),
    ],
)
def test_a_word_that_is_no_choice_is_refused(kind: str, name: str, argument: str) -> None:
    with pytest.raises(PluginError, match=f"{argument} must be .*'x'"):
        REGISTRIES[kind].build(name, {argument: "x"}, **RUN_GIVES.get(kind, {}))


def test_every_method_with_numbers_is_here() -> None:
    """A new method has a line in ``METHODS``; fedelc is masked-optim with other defaults."""
    assert {*METHODS, "sgd", "fedelc"} == {entry.name for entry in REGISTRIES["method"].entries()}
