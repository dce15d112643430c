"""quickstudy learns from tasks already solved, so that the next one takes seconds."""

__version__ = "0.1.0"

from quickstudy.learners.anil import ANIL
from quickstudy.learners.catalogue import Recipe
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.from_scratch import FromScratch
from quickstudy.learners.learner import Learner, Predictor
from quickstudy.learners.maml import MAML
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.matching_network import MatchingNetwork
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.prior import Prior, load, save
from quickstudy.learners.prototypical_network import PrototypicalNetwork
from quickstudy.learners.relation_network import RelationNetwork
from quickstudy.learners.reptile import Reptile
from quickstudy.nas.across import AcrossResult, search_across
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits
from quickstudy.nas.network import Network, load_network, save_network
from quickstudy.nas.search import SearchResult, search
from quickstudy.nets.conv4 import Conv4, conv4_classifier
from quickstudy.nets.mlp import MLP
from quickstudy.nets.relation_module import relation_nets
from quickstudy.nets.resnet12 import ResNet12
from quickstudy.tasks.catalogue import load_splits
from quickstudy.tasks.cifar_fs import cifar_fs, fc100
from quickstudy.tasks.episodes import Episodes, LabelledSet, Mixture
from quickstudy.tasks.glyphs import glyphs
from quickstudy.tasks.image_folder import image_folder
from quickstudy.tasks.load_task import NamedTask, load_task
from quickstudy.tasks.omniglot import omniglot
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.split import split_classes
from quickstudy.tasks.task import Examples, Task, TaskSource
from quickstudy.training.evaluate import Evaluation, evaluate
from quickstudy.training.history import History, Progress
from quickstudy.training.meta_train import meta_train
from quickstudy.training.train_prior import Plan, train_prior

__all__ = [
    "ANIL",
    "MAML",
    "MLP",
    "AcrossResult",
    "Budget",
    "Conv4",
    "Episodes",
    "Evaluation",
    "Examples",
    "FineTune",
    "FromScratch",
    "History",
    "LabelledSet",
    "Learner",
    "Limits",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaSGD",
    "Mixture",
    "NamedTask",
    "NearestNeighbour",
    "Network",
    "PictureEncoder",
    "Plan",
    "Predictor",
    "Prior",
    "Progress",
    "PrototypicalNetwork",
    "Recipe",
    "RelationNetwork",
    "Reptile",
    "ResNet12",
    "SearchResult",
    "Sinusoid",
    "Task",
    "TaskSource",
    "cifar_fs",
    "conv4_classifier",
    "evaluate",
    "fc100",
    "glyphs",
    "image_folder",
    "load",
    "load_network",
    "load_splits",
    "load_task",
    "meta_train",
    "omniglot",
    "relation_nets",
    "save",
    "save_network",
    "search",
    "search_across",
    "split_classes",
    "train_prior",
]
