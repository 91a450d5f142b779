"""Attacks by name; one of your own is named by its import path."""

from client_app.attacks.backdoor import Backdoor
from client_app.attacks.base import Attack
from client_app.attacks.collusion import Alie, InnerProduct
from client_app.attacks.labels import LabelFlip
from client_app.attacks.small_loss import SmallLoss
from client_app.attacks.updates import Gaussian, Scaling, SignFlip
from tasks.plugin import Registry

ATTACKS = Registry("attack", Attack)
ATTACKS.register("label-flip", "Biggio, Nelson, Laskov, ICML 2012; Tolpeygin et al., ESORICS 2020")(LabelFlip)
ATTACKS.register("backdoor", "Gu et al., 2017; Bagdasaryan et al., AISTATS 2020")(Backdoor)
ATTACKS.register("sign-flip", "Li et al., AAAI 2019")(SignFlip)
ATTACKS.register("gaussian", "Blanchard et al., NeurIPS 2017")(Gaussian)
ATTACKS.register("scaling", "Bagdasaryan et al., AISTATS 2020")(Scaling)
ATTACKS.register("alie", "Baruch, Baruch, Goldberg, NeurIPS 2019")(Alie)
ATTACKS.register("inner-product", "Xie, Koyejo, Gupta, UAI 2020")(InnerProduct)
ATTACKS.register("small-loss")(SmallLoss)
