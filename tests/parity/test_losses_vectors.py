"""Every loss against numbers made outside this project: values and gradients, both in float64 and float32."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from client_app.losses import Objective, RegularizerInput, TLoss, build
from tests.loss_members import gradient

# Name in the vectors: name here and arguments.
ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "CE": ("ce", {}),
    "FL": ("focal", {"gamma": 0.5}),
    "MAE": ("mae", {}),
    "MAE_L1": ("mae", {"scale": 2.0}),
    "GCE": ("gce", {"q": 0.7}),
    "RCE": ("rce", {}),
    "SCE_c10": ("sce", {"alpha": 0.1, "beta": 1.0}),
    "SCE_c100": ("sce", {"alpha": 6.0, "beta": 0.1}),
    "PHCE_tau2": ("phce", {"tau": 2}),
    "PHCE_tau8": ("phce", {"tau": 8}),
    "TCE_t2": ("tce", {"t": 2}),
    "TCE_t8": ("tce", {"t": 8}),
    "NCE": ("nce", {}),
    "NFL": ("nfl", {"gamma": 0.5}),
    "NMAE": ("nmae", {}),
    "NRCE": ("nrce", {}),
    "NCE+MAE": ("nce+mae", {"alpha": 1.0, "beta": 1.0}),
    "NCE+RCE": ("nce+rce", {"alpha": 1.0, "beta": 1.0}),
    "NCE+RCE_c100": ("nce+rce", {"alpha": 10.0, "beta": 0.1}),
    "NFL+RCE": ("nfl+rce", {"alpha": 1.0, "beta": 1.0, "gamma": 0.5}),
    "NFL+MAE": ("nfl+mae", {"alpha": 1.0, "beta": 1.0, "gamma": 0.5}),
    "AGCE": ("agce", {"a": 6.0, "q": 1.5}),
    "AUL": ("aul", {"a": 6.3, "q": 1.5}),
    "AEL": ("ael", {"a": 5.0}),
    "NCE+AGCE": ("nce+agce", {"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5}),
    "NCE+AGCE_c100": ("nce+agce", {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0}),
    "NCE+AUL": ("nce+aul", {"alpha": 1.0, "beta": 4.0, "a": 6.3, "q": 1.5}),
    "NCE+AEL": ("nce+ael", {"alpha": 1.0, "beta": 4.0, "a": 5.0}),
    "NNCE": ("nnce", {}),
    "NNFL": ("nnfl", {"gamma": 0.5}),
    "ANL-CE": ("anl-ce", {"alpha": 5.0, "beta": 5.0}),
    "ANL-CE_c100": ("anl-ce", {"alpha": 10.0, "beta": 1.0}),
    "ANL-FL": ("anl-fl", {"alpha": 5.0, "beta": 5.0, "gamma": 0.5}),
}
ELSEWHERE = {"ANL-CE*", "L1", "LogitAdjustedCE", "T-Loss"}
DETACHED = "grad_mean_official_detached"


@pytest.fixture(scope="module")
def numbers(vectors: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((vectors / "loss_vectors.json").read_text())
    return content


def error(found: Tensor, expected: Any) -> float:
    """Largest deviation, relative where the expected number is above 1."""
    wanted = torch.tensor(expected, dtype=torch.float64)
    assert found.shape == wanted.shape
    return ((found.detach().double() - wanted).abs() / wanted.abs().clamp_min(1)).max().item()


def deviations(numbers: dict[str, Any], name: str, dtype: torch.dtype) -> Iterator[float]:
    """Yield the deviation of every value, mean, label sum and gradient of one entry."""
    short, args = ENTRIES[name]
    for case, expected in numbers["losses"][name]["cases"].items():
        logits = torch.tensor(numbers["cases"][case]["logits"], dtype=dtype)
        labels = torch.tensor(numbers["cases"][case]["labels"])
        detaches = DETACHED in expected
        objective = build(short, logits.shape[1], {**args, "detach_modulator": False} if detaches else args)
        yield error(objective.loss(logits, labels), expected["per_sample"])
        yield error(objective.data_term(logits, labels), expected["mean"])
        every = [objective.loss(logits, torch.full_like(labels, k)) for k in range(logits.shape[1])]
        yield error(torch.stack(every).sum(0), expected["sum_over_labels"])
        yield error(slope(objective, logits, labels), expected["grad_mean_wrt_logits"])
        if detaches:
            published = build(short, logits.shape[1], args)
            yield error(slope(published, logits, labels), expected[DETACHED])


def slope(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    return gradient(lambda z: objective.data_term(z, labels), logits)


@pytest.mark.parametrize("name", ENTRIES)
def test_values_and_gradients(numbers: dict[str, Any], name: str) -> None:
    assert max(deviations(numbers, name, torch.float64)) < 1e-9
    assert max(deviations(numbers, name, torch.float32)) < 1e-5


def test_every_vector_is_matched(numbers: dict[str, Any]) -> None:
    assert set(ENTRIES) | ELSEWHERE == set(numbers["losses"])
    found = [value for name in ENTRIES for value in deviations(numbers, name, torch.float64)]
    # 33 entries x 3 cases x (values, mean, label sums, gradient), and the detached gradient of the 6 focal entries.
    assert len(found) == 33 * 3 * 4 + 6 * 3
    assert max(found) < 1e-12


def test_entropy_term(numbers: dict[str, Any]) -> None:
    cases = numbers["losses"]["ANL-CE*"]["cases"]
    assert len(cases) == 3
    for case, expected in cases.items():
        logits = torch.tensor(numbers["cases"][case]["logits"], dtype=torch.float64)
        labels = torch.tensor(numbers["cases"][case]["labels"])
        objective = build("anl-ce*", logits.shape[1])
        weight, term = objective.regularizers[0]
        assert weight == 2.0
        assert error(term(RegularizerInput(logits=logits)), expected["entropy_reg_official"]) < 1e-12
        assert error(objective.data_term(logits, labels), expected["ANL-CE*_lambda2_without_L1"]) < 1e-7
        if "grad_wrt_logits" in expected:
            found = gradient(lambda z: term(RegularizerInput(logits=z)), logits)  # noqa: B023
            assert error(found, expected["grad_wrt_logits"]) < 1e-12


def test_l1_term(numbers: dict[str, Any]) -> None:
    expected = numbers["losses"]["L1"]
    model = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(expected["parameters"][0]))
        model.bias.copy_(torch.tensor(expected["parameters"][1]))
    ((delta, penalty),) = build("anl-ce", 2, {"delta": expected["delta"]}).regularizers
    norm = penalty(RegularizerInput(model=model))
    assert error(norm, expected["l1_norm"]) < 1e-7
    assert abs((delta * norm).item() - expected["term"]) < 1e-11


def test_logit_adjusted_cross_entropy(numbers: dict[str, Any]) -> None:
    cases = numbers["losses"]["LogitAdjustedCE"]["cases"]
    assert set(cases) == {"A_K3", "B_K10", "B_K10_zero_counts"}
    for case, expected in cases.items():
        base = numbers["cases"][case.removesuffix("_zero_counts")]
        logits, labels = torch.tensor(base["logits"], dtype=torch.float64), torch.tensor(base["labels"])
        counts = expected["class_counts"]
        objective = build("la-ce", logits.shape[1], f"tau = {expected['tau']}", class_counts=counts)
        assert error(objective.loss(logits, labels), expected["per_sample"]) < 1e-12
        assert error(objective.data_term(logits, labels), expected["mean"]) < 1e-12
        if "grad_mean_wrt_logits" in expected:
            assert error(slope(objective, logits, labels), expected["grad_mean_wrt_logits"]) < 1e-12
        absent = torch.tensor(counts) == 0
        assert (slope(objective, logits, labels)[:, absent].abs() < 1e-15).all()


def test_t_loss(numbers: dict[str, Any]) -> None:
    cases = numbers["losses"]["T-Loss"]["cases"]
    assert len(cases) == 3
    for case in cases:
        foreground = torch.tensor(case["pred_prob"], dtype=torch.float64)
        logits = torch.stack([(1 - foreground).log(), foreground.log()], dim=1)
        mask = torch.tensor(case["target"]).long()
        for form, key in [("official", "official_per_image"), ("paper", "paper_per_image_Sigma=I_nu=exp(param)")]:
            values = TLoss(case["nu_param_log"], form)(logits, mask)
            assert values.shape == mask.shape
            assert error(values.flatten(1)[:, 0], case[key]) < 1e-9
            assert error(values.mean(), case[key.replace("per_image", "mean").split("_Sigma")[0]]) < 1e-9
