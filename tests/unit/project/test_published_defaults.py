"""Published constants, each with where it stands: defaults of built-in parts, and the losses' parameters by data set.

A constant that changes silently changes what is compared with a paper. Numbers are written out here a second time; the
settings of whole experiments are those of ``tests/integration/test_published_recipes.py``.
"""

import inspect
from typing import Any

import pytest
from scipy.stats import chi2

from client_app.losses import PRESETS, base, build, distribution_losses
from client_app.methods import dividemix, fedelr, fedrn
from strategies.detection import detectors, profiles
from strategies.detection.base import FEWEST_CLIENTS
from tests.registries import registries

REGISTRIES = {registry.listed: registry for registry in registries()}
Constants = tuple[str, dict[str, Any]]

PENCIL = {
    "label_rate": 1000 / 64,
    "label_scale": 10.0,
    "fusion": 0.5,
    "network_scale": 1.0,
}  # eta = 1000 at batch size 64, K = 10
METHODS: dict[str, Constants] = {
    "sgd": ("McMahan et al., AISTATS 2017: none", {}),
    "fedprox": ("program of FNBench (Jiang et al., 2025), --mu", {"mu": 0.1}),
    "fedcorr": (
        "program of FedCorr (Xu et al., CVPR 2022) for CIFAR-10; k of the program's LID",
        {
            **{"mixup_alpha": 1.0, "beta": 5.0, "neighbours": 20, "relabel_ratio": 0.5, "confidence": 0.5},
            "ranking": "received",  # ours: its program ranks by the client's own model
        },
    ),
    "fednoro": (
        "program of FedNoRo (Wu et al., IJCAI 2023): a, teacher's temperature, rounds 10 to 49",
        {"weight": 0.8, "temperature": 0.8, "ramp_rounds": 49 - 10},
    ),
    "fedelc": (
        "program of FedELC (Jiang et al., CIKM 2024): no mask, no merging",
        {**PENCIL, "objective": "code", "alpha": 0.5, "beta": 0.2, "mask": "small-loss", "keep": 1.0, "zeta": 1.0},
    ),
    "masked-optim": (
        "arXiv 2506.02079: tau = 80 %, zeta = 0.8, eta = 1000; its program: alpha, beta, K",
        {**PENCIL, "objective": "code", "alpha": 0.5, "beta": 0.1, "mask": "small-loss", "keep": 0.8, "zeta": 0.8},
    ),
    "co-teaching": (
        "Han et al., NeurIPS 2018; program of FNBench: forget rate, ramp 0.2 T",
        {"forget_rate": 0.2, "ramp_rounds": 24},
    ),
    "co-teaching-plus": (
        "Yu et al., ICML 2019; program of FNBench: from round 10",
        {"forget_rate": 0.2, "ramp_rounds": 24, "agreement_rounds": 10, "fallback_steps": 5000},
    ),
    "dividemix": (
        "Li et al., ICLR 2020; program of FNBench: warm-up 0.2 T, ramp of 16 rounds",
        {
            **{"warmup_rounds": 24, "asymmetric": False, "threshold": 0.5, "temperature": 0.5, "mixup_alpha": 4.0},
            **{"unlabelled_weight": 25.0, "ramp_rounds": 16, "average_losses": 1},
        },
    ),
    "feddiv": (
        "Li et al., AAAI 2024",
        {
            **{"warmup_rounds": 5, "clean_threshold": 0.1, "confidence": 0.75, "debias": 0.5, "momentum": 0.2},
            **{"mixup_alpha": 1.0, "prior_weight": 1.0},
        },
    ),
    "fedrn": ("Kim et al., CIKM 2022: probability above .5", {"threshold": 0.5}),
    "fedned": (
        "program of FedNed (Lu et al., AAAI 2024): threshold .95 at T = 2",
        {"confidence": 0.95, "temperature": 2.0},
    ),
    "fedelr": ("Liu et al., NeurIPS 2020: lambda 3, beta .7", {"weight": 3.0, "momentum": 0.7, "global_share": 0.0}),
    "fedlsr": (
        "program of FedLSR (Jiang et al., CIKM 2022): gamma .4, gamma_e .6, T_d 1/3",
        {
            **{"distil_weight": 0.4, "entropy_weight": 0.6, "temperature": 1 / 3, "sharpness": 2.0, "mix_alpha": 1.0},
            "ramp_rounds": 20,
        },
    ),
    "joint-optim": (
        "Tanaka et al., CVPR 2018: 1.2, 0.8",
        {"alpha": 1.2, "beta": 0.8, "history": 10, "warmup_rounds": 24},
    ),
    "rofl": (
        "Yang et al., IEEE Intelligent Systems 2022",
        {
            **{"forget_rate": 0.2, "forget_rounds": 10, "centroid_weight": 1.0, "entropy_weight": 0.8},
            "pseudo_after": 100,
        },
    ),
    "selfie": (
        "Song et al., ICML 2019: q 15, eps .05",
        {"noise_rate": 0.2, "threshold": 0.05, "history": 15, "warmup_rounds": 24},
    ),
}
OTHERS: dict[tuple[str, str], Constants] = {
    ("strategy", "noise-partition"): (
        "arXiv 2506.02079: T_w = 30, judged once",
        {"warmup_rounds": 30, "reprofile_every": 0},
    ),
    ("strategy", "fedcorr"): (
        "program of FedCorr for CIFAR-10: T1, frac1 = 1 / N, T2, kappa",
        {"iterations": 5, "clients_per_step": 1, "finetune_rounds": 500, "clean_threshold": 0.1},
    ),
    ("strategy", "fedned"): (
        "program of FedNed: warm_round 10, lamda .12 of 10 clients, 10 passes, dropout .3, batch 128, T 2, 100 steps",
        {
            **{"warmup_rounds": 10, "threshold": 1.2, "passes": 10, "dropout": 0.3, "batch_size": 128},
            **{"temperature": 2.0, "steps": 100},
            "rate": 1e-5,  # ours: the optimizer of its program holds another network
        },
    ),
    ("detector", "official"): ("programs of FedNoRo, FedELC and MaskedOptim: random states 0 to 8", {"fits": 9}),
    ("aggregator", "per-tensor-geometric-median"): (
        "program of MaskedOptim, fed.py: at most 10 steps, distances of at least 1e-5",
        {"iterations": 10, "smoothing": 1e-5},
    ),
    ("pre-aggregator", "bucketing"): ("Karimireddy et al., ICLR 2022: s = 2", {"size": 2}),
    ("server-optimizer", "fedadagrad"): ("Flower's default: eta 0.1, tau 1e-3", {"eta": 0.1, "tau": 1e-3}),
    ("server-optimizer", "fedadam"): (
        "Reddi et al., ICLR 2021: beta_1 = 0.9, beta_2 = 0.99, tau = 1e-3",
        {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
    ),
    ("server-optimizer", "fedyogi"): (
        "Reddi et al., ICLR 2021: beta_1 = 0.9, beta_2 = 0.99, tau = 1e-3",
        {"eta": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
    ),
    ("server-optimizer", "fedavgm"): (
        "Hsu, Qi and Brown, 2019: momentum 0.9",
        {"server_learning_rate": 1.0, "server_momentum": 0.9},
    ),
    ("server-optimizer", "fedexp"): ("Jhunjhunwala et al., ICLR 2023: epsilon = 1e-3", {"epsilon": 1e-3}),
    ("noise", "instance"): ("Xia et al., NeurIPS 2020, norm_std", {"std": 0.1}),
    ("noise", "pair-flip"): ("Han et al., NeurIPS 2018: the next class", {"step": 1}),
    ("attack", "inner-product"): ("Xie, Koyejo and Gupta, UAI 2020: epsilon = 0.5", {"epsilon": 0.5}),
    ("loss", "la-ce"): ("Menon et al., ICLR 2021: tau = 1", {"tau": 1.0}),
    ("loss", "t-loss"): (
        "program of T-Loss (Gonzalez-Jimenez et al., MICCAI 2023): nu from e, learnt at 1e-3",
        {"log_nu": 1.0, "form": "official", "nu_rate": 1e-3},
    ),
    ("loss", "fsanl"): (
        "reconstructed (Ejigu et al.): those of ANL-CE and SCE on CIFAR-10, L1 to the received weights",
        {
            "nce_weight": 5.0,
            "sce_weight": 1.0,
            "nnce_weight": 5.0,
            "alpha": 0.1,
            "beta": 1.0,
            "delta": 5e-5,
            "l1_mode": "prox",
        },
    ),
}
OWN = "ours: what runs were compared with"
OURS: dict[tuple[str, str], Constants] = {
    ("aggregator", "geometric-median"): (OWN, {"tolerance": 1e-9, "max_iterations": 100}),
    ("aggregator", "per-tensor-geometric-median"): (OWN, {"fallback": False}),
    ("aggregator", "median"): (OWN, {"weighted": False}),
    ("aggregator", "trimmed-mean"): (OWN, {"weighted": False}),
    ("aggregator", "centered-clipping"): (OWN, {"radius": 0.0, "iterations": 5}),
    ("aggregator", "monna"): (OWN, {"trusted": 0}),
    ("aggregator", "distance-aware"): (OWN, {"distance": "tensors", "buffers": False}),
    ("pre-aggregator", "norm-clipping"): (OWN, {"limit": 0.0, "factor": 1.0}),
    ("detector", "robust"): (OWN, {"tolerance": 0.025}),
    ("detector", "groups"): (OWN, {"most": 4, "tolerance": 0.025}),
}
ALL = [
    *(("method", name, *found) for name, found in METHODS.items()),
    *((*part, *found) for part, found in (*OTHERS.items(), *OURS.items())),
]


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The defaults of a built-in's arguments that are plain values."""
    found = inspect.signature(REGISTRIES[kind].find(name)).parameters.values()
    return {each.name: each.default for each in found if isinstance(each.default, bool | int | float | str)}


@pytest.mark.parametrize(("kind", "name", "source", "expected"), ALL)
def test_defaults_are_the_published_constants(kind: str, name: str, source: str, expected: dict[str, Any]) -> None:
    found = defaults(kind, name)
    assert {key: found[key] for key in expected} == expected, source
    if kind == "method":
        assert found.keys() == expected.keys(), "every number of a method is pinned"


def test_every_client_method_is_pinned() -> None:
    """A new method has a line in ``METHODS`` with its source."""
    assert sorted(METHODS) == [entry.name for entry in REGISTRIES["method"].entries()]


def test_constants_that_no_argument_sets() -> None:
    """Each with the program, the text or the table that it is from."""
    assert (base.IGNORE_INDEX, base.MIN_PROB) == (-100, 1e-7)  # PyTorch; programs of SCE, GCE and ANL
    assert distribution_losses.MIN_LABEL_PROB == 1e-4  # program of SCE: log 1e-4 for log 0
    tloss = distribution_losses.TLoss()
    assert (tloss.log_nu, tloss.form, tloss.parameter_rate) == (1.0, "official", 1e-3)  # program of T-Loss
    assert fedelr.SMALLEST == 1e-4  # program of ELR
    assert (dividemix.GMM_ITERATIONS, dividemix.GMM_TOLERANCE) == (10, 1e-2)  # program of DivideMix, max_iter and tol
    assert (fedrn.GMM_ITERATIONS, fedrn.GMM_TOLERANCE) == (100, 1e-2)  # program of FedRN
    assert dividemix.GMM_VARIANCE == fedrn.GMM_VARIANCE == 5e-4  # both, reg_covar
    assert (detectors.STARTS, detectors.REACH) == (9, 1.5)  # as many as FedNoRo fits; Tukey, 1977
    assert pytest.approx(chi2.median(1), abs=5e-5) == profiles.HALF_OF_CHI2
    assert FEWEST_CLIENTS == 4  # two groups of two


# Ye et al., TPAMI text (arXiv 2412.02373) and configurations, unless noted; parameters in the order of COLUMNS.
COLUMNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ce", "nmae", "rce", "nrce", "nce", "nnce"), ()),
    **dict.fromkeys(("focal", "nfl", "nnfl"), ("gamma",)),
    "mae": ("scale",),
    "gce": ("q",),
    **dict.fromkeys(("sce", "nce+mae", "nce+rce"), ("alpha", "beta")),
    **dict.fromkeys(("nfl+mae", "nfl+rce"), ("alpha", "beta", "gamma")),
    "phce": ("tau",),
    "tce": ("t",),
    **dict.fromkeys(("agce", "aul"), ("a", "q")),
    "ael": ("a",),
    **dict.fromkeys(("nce+agce", "nce+aul"), ("alpha", "beta", "a", "q")),
    "nce+ael": ("alpha", "beta", "a"),
    "anl-ce": ("alpha", "beta", "delta"),
    "anl-fl": ("alpha", "beta", "delta", "gamma"),
    "anl-ce*": ("alpha", "beta", "delta", "entropy_weight"),
    "fsanl": ("nce_weight", "nnce_weight", "alpha", "beta"),
}
NONE: dict[str, tuple[Any, ...]] = {"ce": (), "nmae": (), "rce": (), "nrce": (), "nce": (), "nnce": (), "mae": (1.0,)}
PUBLISHED: dict[str, dict[str, tuple[Any, ...]]] = {
    "cifar-10": {
        **NONE,
        **{
            "focal": (0.5,),
            "nfl": (0.5,),
            "nnfl": (0.5,),
            "gce": (0.7,),
            "sce": (0.1, 1.0),
            "phce": (2.0,),
            "tce": (2,),
        },
        **{"nce+mae": (1.0, 1.0), "nce+rce": (1.0, 1.0), "nfl+mae": (1.0, 1.0, 0.5), "nfl+rce": (1.0, 1.0, 0.5)},
        **{"agce": (0.6, 0.6), "aul": (5.5, 3.0), "ael": (2.5,)},
        **{"nce+agce": (1.0, 4.0, 6.0, 1.5), "nce+aul": (1.0, 4.0, 6.3, 1.5), "nce+ael": (1.0, 4.0, 5.0)},
        **{"anl-ce": (5.0, 5.0, 5e-5), "anl-fl": (5.0, 5.0, 5e-5, 0.5), "anl-ce*": (5.0, 5.0, 5e-5, 2.0)},
        "fsanl": (5.0, 5.0, 0.1, 1.0),
    },
    "cifar-100": {
        **NONE,
        **{
            "focal": (0.5,),
            "nfl": (0.5,),
            "nnfl": (0.5,),
            "gce": (0.7,),
            "sce": (6.0, 0.1),
            "phce": (8.0,),
            "tce": (8,),
        },
        **{"nce+mae": (10.0, 0.1), "nce+rce": (10.0, 0.1)},
        **{"nfl+mae": (10.0, 1.0, 0.5), "nfl+rce": (10.0, 0.1, 0.5)},  # Ma et al.'s program
        **{"agce": (0.6, 0.6), "aul": (5.5, 3.0), "ael": (2.5,)},
        **{"nce+agce": (10.0, 0.1, 1.8, 3.0), "nce+aul": (10.0, 0.015, 6.0, 3.0), "nce+ael": (10.0, 0.1, 1.5)},
        **{"anl-ce": (10.0, 1.0, 5e-7), "anl-fl": (10.0, 1.0, 5e-7, 0.5), "anl-ce*": (10.0, 1.0, 5e-7, 0.01)},
        "fsanl": (10.0, 1.0, 6.0, 0.1),
    },
    "webvision": {  # delta as in the text; the configuration has 5e-6
        **{"ce": (), "gce": (0.7,), "sce": (10.0, 1.0), "nnfl": (0.5,), "nce+rce": (50.0, 0.1)},
        **{"nce+agce": (50.0, 0.1, 2.5, 3.0), "anl-ce": (20.0, 1.0, 6e-6), "anl-fl": (20.0, 1.0, 6e-6, 0.5)},
    },
    "clothing1m": {"ce": (), "gce": (0.6,), "nce+rce": (10.0, 1.0), "anl-ce": (5.0, 0.1, 1e-3)},  # delta is of L2
    "animal-10n": {"ce": (), "gce": (0.5,), "anl-ce": (0.5, 1.0, 1e-6)},
    "mnist": {
        **{
            "ce": (),
            "focal": (0.5,),
            "nfl": (0.5,),
            "sce": (0.01, 1.0),
            "nce+mae": (1.0, 10.0),
            "nce+rce": (1.0, 10.0),
        },
        **{"nfl+rce": (1.0, 10.0, 0.5), "agce": (4.0, 0.2), "aul": (3.0, 0.1), "ael": (3.5,)},
        **{"nce+agce": (0.0, 1.0, 4.0, 0.2), "nce+aul": (0.0, 1.0, 3.0, 0.1), "nce+ael": (0.0, 1.0, 3.5)},
        **{"anl-ce": (1.0, 1.0, 1e-6), "anl-fl": (1.0, 1.0, 1e-6, 0.5)},
    },
    "apl-report": dict.fromkeys(("nce+mae", "nce+rce", "nfl+mae", "nfl+rce"), (0.6, 0.4)),
}


@pytest.mark.parametrize("data", PUBLISHED)
def test_presets_are_the_published_parameters(data: str) -> None:
    expected = {name: dict(zip(COLUMNS[name], values, strict=False)) for name, values in PUBLISHED[data].items()}
    if data == "clothing1m":
        expected["anl-ce"]["regularizer"] = "l2"
    assert {name: dict(values) for name, values in PRESETS[data].items()} == expected


def test_there_is_no_other_preset() -> None:
    assert sorted(PRESETS) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED["cifar-10"])
def test_what_is_not_given_is_the_value_for_cifar_10(name: str) -> None:
    assert build(name, 10) == build(name, 10, preset="cifar-10")
