"""Stock strategies of Flower that can be chosen as ``flower-<name>``, and their papers; imports nothing."""

STOCK = {
    "FedAvg": "McMahan et al., AISTATS 2017",
    "FedAvgM": "Hsu, Qi, Brown, 2019",
    "FedAdagrad": "Reddi et al., ICLR 2021",
    "FedAdam": "Reddi et al., ICLR 2021",
    "FedYogi": "Reddi et al., ICLR 2021",
    "FedProx": "Li et al., MLSys 2020",
    "FedMedian": "Yin et al., ICML 2018",
    "FedTrimmedAvg": "Yin et al., ICML 2018",
    "Krum": "Blanchard et al., NeurIPS 2017",
    "MultiKrum": "Blanchard et al., NeurIPS 2017",
    "Bulyan": "El Mhamdi, Guerraoui, Rouault, ICML 2018",
    "QFedAvg": "Li et al., ICLR 2020",
}


def stock_name(strategy: str) -> str:
    """Return under which name a class of Flower is chosen.

    >>> stock_name("FedAvgM")
    'flower-fedavgm'
    """
    return f"flower-{strategy.lower()}"
