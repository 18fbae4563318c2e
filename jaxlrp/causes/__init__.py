"""Which combinations of exposures cause an outcome? Causes of outcome learning (CoOL).

`fit` trains a network in which exposures can only raise a risk, LRP says what each of them adds to the risk
of each person, and `groups` finds people with the same causes. `figures` draws all of it.
"""

from jaxlrp.causes import figures
from jaxlrp.causes.exposures import Exposures, one_hot
from jaxlrp.causes.groups import Group, Groups, Merge, groups
from jaxlrp.causes.network import RiskNetwork, fit

__all__ = [
    "Exposures",
    "Group",
    "Groups",
    "Merge",
    "RiskNetwork",
    "figures",
    "fit",
    "groups",
    "one_hot",
]
