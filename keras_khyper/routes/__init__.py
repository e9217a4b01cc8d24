"""Routes: how one forward pass of a supernet runs, as teacher, subnet or fair set.

A supernet's body is written once against a route. The route says which candidates
run at each decision, which kernels and which BatchNorm statistics they use, and
carries one activation or those of K subnets.
"""

from keras_khyper.routes.deploy import DeployRoute
from keras_khyper.routes.fair import CandidateRoute, FairRoute
from keras_khyper.routes.mixture import MixtureRoute
from keras_khyper.routes.path import PathRoute
from keras_khyper.routes.route import NodeOutput, Route
from keras_khyper.routes.routed_layer import RoutedLayer
from keras_khyper.routes.statistics import (
    BatchStatistics,
    GivenStatistics,
    Statistics,
    TeacherStatistics,
)
from keras_khyper.routes.switch import SwitchRoute

__all__ = [
    "BatchStatistics",
    "CandidateRoute",
    "DeployRoute",
    "FairRoute",
    "GivenStatistics",
    "MixtureRoute",
    "NodeOutput",
    "PathRoute",
    "Route",
    "RoutedLayer",
    "Statistics",
    "SwitchRoute",
    "TeacherStatistics",
]
