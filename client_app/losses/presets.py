"""Presets, the published parameters of each loss on each data set: ``PRESETS[dataset][loss]``.

Sources: the ANL paper and its configurations (Ye et al., NeurIPS 2023 and 2024 extension) for everything unless
noted. Values that only weight decay, learning rate or epochs depend on are not here: they belong to the trainer.
"""

from collections.abc import Mapping
from typing import Any

Preset = Mapping[str, Mapping[str, Any]]

WITHOUT_PARAMETERS: Preset = {name: {} for name in ("ce", "nmae", "rce", "nrce", "nce", "nnce")} | {
    "mae": {"scale": 1.0}
}

CIFAR_10: Preset = {
    **WITHOUT_PARAMETERS,
    "focal": {"gamma": 0.5},
    "gce": {"q": 0.7},
    "sce": {"alpha": 0.1, "beta": 1.0},
    "phce": {"tau": 2.0},
    "tce": {"t": 2},
    "nfl": {"gamma": 0.5},
    "nnfl": {"gamma": 0.5},
    "nce+mae": {"alpha": 1.0, "beta": 1.0},
    "nce+rce": {"alpha": 1.0, "beta": 1.0},
    "nfl+mae": {"alpha": 1.0, "beta": 1.0, "gamma": 0.5},
    "nfl+rce": {"alpha": 1.0, "beta": 1.0, "gamma": 0.5},
    "agce": {"a": 0.6, "q": 0.6},
    "aul": {"a": 5.5, "q": 3.0},
    "ael": {"a": 2.5},
    "nce+agce": {"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5},
    "nce+aul": {"alpha": 1.0, "beta": 4.0, "a": 6.3, "q": 1.5},
    "nce+ael": {"alpha": 1.0, "beta": 4.0, "a": 5.0},
    "anl-ce": {"alpha": 5.0, "beta": 5.0, "delta": 5e-5},
    "anl-fl": {"alpha": 5.0, "beta": 5.0, "delta": 5e-5, "gamma": 0.5},
    "anl-ce*": {"alpha": 5.0, "beta": 5.0, "delta": 5e-5, "entropy_weight": 2.0},
    # FSANL's own values are not public: those of ANL-CE and SCE.
    "fsanl": {"nce_weight": 5.0, "nnce_weight": 5.0, "alpha": 0.1, "beta": 1.0},
}

CIFAR_100: Preset = {
    **WITHOUT_PARAMETERS,
    "focal": {"gamma": 0.5},
    "gce": {"q": 0.7},
    "sce": {"alpha": 6.0, "beta": 0.1},
    "phce": {"tau": 8.0},
    "tce": {"t": 8},
    "nfl": {"gamma": 0.5},
    "nnfl": {"gamma": 0.5},
    # ANL's configuration; the APL code (Ma et al., ICML 2020) has beta = 1.
    "nce+mae": {"alpha": 10.0, "beta": 0.1},
    "nce+rce": {"alpha": 10.0, "beta": 0.1},
    # The APL code.
    "nfl+mae": {"alpha": 10.0, "beta": 1.0, "gamma": 0.5},
    "nfl+rce": {"alpha": 10.0, "beta": 0.1, "gamma": 0.5},
    "agce": {"a": 0.6, "q": 0.6},
    "aul": {"a": 5.5, "q": 3.0},
    "ael": {"a": 2.5},
    "nce+agce": {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0},
    "nce+aul": {"alpha": 10.0, "beta": 0.015, "a": 6.0, "q": 3.0},
    "nce+ael": {"alpha": 10.0, "beta": 0.1, "a": 1.5},
    "anl-ce": {"alpha": 10.0, "beta": 1.0, "delta": 5e-7},
    "anl-fl": {"alpha": 10.0, "beta": 1.0, "delta": 5e-7, "gamma": 0.5},
    "anl-ce*": {"alpha": 10.0, "beta": 1.0, "delta": 5e-7, "entropy_weight": 0.01},
    "fsanl": {"nce_weight": 10.0, "nnce_weight": 1.0, "alpha": 6.0, "beta": 0.1},
}

WEBVISION: Preset = {
    "ce": {},
    "gce": {"q": 0.7},
    "sce": {"alpha": 10.0, "beta": 1.0},
    "nnfl": {"gamma": 0.5},
    "nce+rce": {"alpha": 50.0, "beta": 0.1},
    "nce+agce": {"alpha": 50.0, "beta": 0.1, "a": 2.5, "q": 3.0},
    # The paper's text; the configuration of ANL-CE in the code says 5e-6.
    "anl-ce": {"alpha": 20.0, "beta": 1.0, "delta": 6e-6},
    "anl-fl": {"alpha": 20.0, "beta": 1.0, "delta": 6e-6, "gamma": 0.5},
}

CLOTHING1M: Preset = {
    "ce": {},
    "gce": {"q": 0.6},
    "nce+rce": {"alpha": 10.0, "beta": 1.0},
    # The paper's weight decay 1e-3 in place of L1; do not set the optimizer's weight decay as well.
    "anl-ce": {"alpha": 5.0, "beta": 0.1, "delta": 1e-3, "regularizer": "l2"},
}

ANIMAL_10N: Preset = {
    "ce": {},
    "gce": {"q": 0.5},
    "anl-ce": {"alpha": 0.5, "beta": 1.0, "delta": 1e-6},
}

MNIST: Preset = {
    "ce": {},
    "focal": {"gamma": 0.5},
    "nfl": {"gamma": 0.5},
    "sce": {"alpha": 0.01, "beta": 1.0},
    "nce+mae": {"alpha": 1.0, "beta": 10.0},
    "nce+rce": {"alpha": 1.0, "beta": 10.0},
    "nfl+rce": {"alpha": 1.0, "beta": 10.0, "gamma": 0.5},
    "agce": {"a": 4.0, "q": 0.2},
    "aul": {"a": 3.0, "q": 0.1},
    "ael": {"a": 3.5},
    # The active part has weight 0 on MNIST.
    "nce+agce": {"alpha": 0.0, "beta": 1.0, "a": 4.0, "q": 0.2},
    "nce+aul": {"alpha": 0.0, "beta": 1.0, "a": 3.0, "q": 0.1},
    "nce+ael": {"alpha": 0.0, "beta": 1.0, "a": 3.5},
    "anl-ce": {"alpha": 1.0, "beta": 1.0, "delta": 1e-6},
    "anl-fl": {"alpha": 1.0, "beta": 1.0, "delta": 1e-6, "gamma": 0.5},
}

APL_REPORT: Preset = {name: {"alpha": 0.6, "beta": 0.4} for name in ("nce+mae", "nce+rce", "nfl+mae", "nfl+rce")}
"""Weights of a student report on CIFAR-10: lambda active + (1 - lambda) passive with lambda = 0.6.

Its batch-level "NCE" and "NFL" are other formulas than Ma et al.'s, which are used here.
"""

PRESETS: Mapping[str, Preset] = {
    "cifar-10": CIFAR_10,
    "cifar-100": CIFAR_100,
    "webvision": WEBVISION,
    "clothing1m": CLOTHING1M,
    "animal-10n": ANIMAL_10N,
    "mnist": MNIST,
    "apl-report": APL_REPORT,
}
