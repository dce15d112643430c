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
from quickstudy.training.history import History, Progress
from quickstudy.training.meta_train import meta_train

__all__ = [
    "MAML",
    "MLP",
    "Conv4",
    "Episodes",
    "Evaluation",
    "Examples",
    "History",
    "LabelledSet",
    "Learner",
    "Mixture",
    "Predictor",
    "Progress",
    "PrototypicalNetwork",
    "Reptile",
    "Task",
    "TaskSource",
    "conv4_classifier",
    "evaluate",
    "meta_train",
]
__version__ = "0.1.0"
