"""Everything that quickstudy raises on purpose, in one tree.

```
QuickstudyError
├── TaskError            a task that cannot be made or learned from
│   └── TooFewExamplesError
├── DataError            data that cannot be read or found
│   ├── DataNotFoundError
│   └── UnreadablePictureError
├── ArchitectureError    a text or a choice that no architecture of a space has
│   └── NothingFitsError
├── QuantityError        a limit or a budget that is no number above 0
├── OutcomeError         trials that came to nothing, or that nothing can be learned from
├── StudyError           a record of searches that cannot be opened, or that is another search's
├── ShapeError           tensors that do not fit a learner or a network
├── DivergedError        a training or an adaptation whose numbers are no longer finite
├── DeviceLostError      a process that trained on another device, and has ended
├── ArtefactError        a saved prior that cannot be loaded
│   ├── DamagedArtefactError
│   ├── ForeignArtefactError
│   └── NewerArtefactError
├── ExportError          a network that cannot be exported, or whose export computes something else
├── OutputExistsError    a folder that would be overwritten
└── MissingExtraError    an optional dependency that is not installed
```

Every message quotes the value that is wrong and says the remedy.
"""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is full. For some devices torch has an error of its own, for others its text alone tells.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
        True
        >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        False
    """
    said = ("can't allocate memory", "not enough memory", "out of memory")  # by Linux, by Windows, by GPUs
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in said)
    )


class QuickstudyError(Exception):
    """The root of the tree: catch it to catch all that quickstudy raises on purpose."""


class TaskError(QuickstudyError):
    """A task that cannot be made or learned from."""


class TooFewExamplesError(TaskError):
    """A class, or a data set, that has fewer examples than the task needs."""


class DataError(QuickstudyError):
    """Data that cannot be read or found."""


class DataNotFoundError(DataError):
    """A data set that is neither on this machine nor within reach."""


class UnreadablePictureError(DataError):
    """Picture files that cannot be decoded."""


class ArchitectureError(QuickstudyError):
    """A text or a choice that no architecture of a space has."""


class NothingFitsError(ArchitectureError):
    """Limits that no architecture meets."""


class QuantityError(QuickstudyError):
    """A limit or a budget that is no number above 0."""


class OutcomeError(QuickstudyError):
    """Trials that came to nothing, or cannot begin, and outcomes that nothing can be learned from."""


class StudyError(QuickstudyError):
    """A record of searches that cannot be opened, or that is another search's."""


class ShapeError(QuickstudyError):
    """Tensors that do not fit a learner or a network."""


class DivergedError(QuickstudyError):
    """A training or an adaptation whose numbers are no longer finite."""


class DeviceLostError(QuickstudyError):
    """A process that trained on another device, and has ended."""


class ArtefactError(QuickstudyError):
    """A saved prior that cannot be loaded."""


class DamagedArtefactError(ArtefactError):
    """A prior whose files are incomplete or altered."""


class ForeignArtefactError(ArtefactError):
    """A folder or a prior that quickstudy did not write, or that holds something else than was asked for."""


class NewerArtefactError(ArtefactError):
    """A prior written by a newer format than this version reads."""


class ExportError(QuickstudyError):
    """A network that cannot be exported, or whose export computes something else."""


class OutputExistsError(QuickstudyError):
    """An output folder that exists and would be overwritten."""


class MissingExtraError(QuickstudyError):
    """An optional dependency that is not installed."""
