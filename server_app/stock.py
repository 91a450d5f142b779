"""Stock strategies of Flower that can be chosen as ``flower-<name>``, with paper and link; imports nothing."""

STOCK = {
    "FedAvg": ("McMahan et al., AISTATS 2017", "https://arxiv.org/abs/1602.05629"),
    "FedAvgM": ("Hsu, Qi, Brown, 2019", "https://arxiv.org/abs/1909.06335"),
    "FedAdagrad": ("Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295"),
    "FedAdam": ("Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295"),
    "FedYogi": ("Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295"),
    "FedProx": ("Li et al., MLSys 2020", "https://arxiv.org/abs/1812.06127"),
    "FedMedian": ("Yin et al., ICML 2018", "https://arxiv.org/abs/1803.01498"),
    "FedTrimmedAvg": ("Yin et al., ICML 2018", "https://arxiv.org/abs/1803.01498"),
    "Krum": ("Blanchard et al., NeurIPS 2017", "https://arxiv.org/abs/1703.02757"),
    "MultiKrum": ("Blanchard et al., NeurIPS 2017", "https://arxiv.org/abs/1703.02757"),
    "Bulyan": ("El Mhamdi, Guerraoui, Rouault, ICML 2018", "https://arxiv.org/abs/1802.07927"),
    "QFedAvg": ("Li et al., ICLR 2020", "https://arxiv.org/abs/1905.10497"),
}


def stock_name(strategy: str) -> str:
    """Return under which name a class of Flower is chosen.

    >>> stock_name("FedAvgM")
    'flower-fedavgm'
    """
    return f"flower-{strategy.lower()}"
