"""quickstudy learns from tasks already solved, so that the next one takes seconds."""

from quickstudy.learners.learner import Learner, Predictor
from quickstudy.learners.maml import MAML
from quickstudy.learners.prototypical_network import PrototypicalNetwork
from quickstudy.learners.reptile import Reptile
from quickstudy.nets.conv4 import Conv4, conv4_classifier
from quickstudy.nets.mlp import MLP
from quickstudy.tasks.episodes import Episodes, LabelledSet, Mixture
from quickstudy.tasks.task import Examples, Task, TaskSource
from quickstudy.training.evaluate import Evaluation, evaluate

__all__ = [
    "MAML",
    "MLP",
    "Conv4",
    "Episodes",
    "Evaluation",
    "Examples",
    "LabelledSet",
    "Learner",
    "Mixture",
    "Predictor",
    "PrototypicalNetwork",
    "Reptile",
    "Task",
    "TaskSource",
    "conv4_classifier",
    "evaluate",
]
__version__ = "0.1.0"
