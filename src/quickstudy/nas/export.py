"""Networks as ONNX files that are known to compute the same."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from quickstudy.artefacts import write_atomically
from quickstudy.errors import ExportError, MissingExtraError, ShapeError

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The version of ONNX's operators that exports are written in."""
TOLERANCE = 1e-4
"""The most by which outputs may differ, times the largest output where that is over 1."""
BATCHES = (1, 5)
"""Numbers of examples for which they are compared."""
BATCH = 256
"""Real examples that are looked at together."""
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def export_onnx(
    module: nn.Module,
    shape: Sequence[int],
    path: str | Path,
    class_names: Sequence[str],
    *,
    inputs: Mapping[str, object] | None = None,
    examples: Tensor | None = None,
) -> Path:
    """Writes a network in evaluation mode as ONNX, operator set 18, once it is known to compute the same.

    The file takes `input`, float32 `(batch, *shape)` with any batch, and gives `logits`, `(batch, classes)`. Its
    metadata `class_names` is a JSON list in the order of the logits, and `inputs` says in JSON how an input is made of
    what a user has. Normalisation is folded into convolutions. Nothing
    in it tells of the machine that wrote it.

    Args:
        module: Maps `(n, *shape)` to `(n, classes)`. It is left as it was.
        shape: Of one example.
        path: The file to write; folders are made, an older file is replaced.
        class_names: One a class.
        inputs: Plain values, as `NamedTask` has them.
        examples: Real inputs `(n, *shape)`, on which the logits are compared too, and the probabilities of classes.

    Returns:
        The path.

    Raises:
        ExportError: Where torch cannot export the network, or onnxruntime gives other logits than torch for random
            inputs or the examples, by more than 1e-4 (of the largest logit, where that is over 1), or other
            probabilities for the examples, by more than 1e-4. No file is written then.
        MissingExtraError: Where onnx, onnxruntime or onnxscript is not installed.
        ShapeError: Where there are more or fewer names than outputs.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from quickstudy.nas.export import export_onnx
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(net, (1, 8, 8), f"{folder}/net.onnx", ["cat", "dog"]).name
        'net.onnx'
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "exports need onnx, onnxruntime and onnxscript: pip install 'quickstudy[nas]'."
        ) from error
    module, path = copy.deepcopy(module).cpu().float().eval(), Path(path)
    asked = [torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) for n in BATCHES]
    if examples is not None:
        asked += [part.cpu().float() for part in examples.split(BATCH)]
    with torch.no_grad():
        expected = [module(x) for x in asked]
    if expected[0].shape[1:] != (len(class_names),):
        raise ShapeError(
            f"{len(class_names)} class names were given for outputs {tuple(expected[0].shape[1:])}; give one an output."
        )
    content = bare(converted(module, shape), class_names, inputs or {})
    for i, (found, wanted) in enumerate(zip(run(content, asked), expected)):
        compare("logits", found, wanted, path, allowed=TOLERANCE * max(1.0, wanted.abs().max().item()))
        if i >= len(BATCHES):
            compare("probabilities", found.softmax(1), wanted.softmax(1), path, allowed=TOLERANCE)
    write_atomically(path, content)
    return path


def compare(what: str, found: Tensor, wanted: Tensor, path: Path, *, allowed: float) -> None:
    """Raises ExportError where two outputs differ by more than is allowed, or are not finite."""
    gap = (found - wanted).abs().max().item()
    if not gap <= allowed:
        raise ExportError(
            f"exported to ONNX, the network's {what} differ by {gap:.2g} from torch's, where at most {allowed:.2g} is "
            f"allowed; {path} was not written. Look for weights that are not finite or very large, or for operations "
            "that depend on chance."
        )


def converted(module: nn.Module, shape: Sequence[int]) -> "onnx.ModelProto":
    """What torch makes of a network, without what it says on the way."""
    # Two examples: torch.export takes a size of one for a constant.
    x, batch = torch.zeros(2, *shape), torch.export.Dim("batch")
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                (x,),
                input_names=["input"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {type(module).__name__} to ONNX; the reason is above.") from error
    assert program is not None, "torch.onnx.export returns None only for dynamo=False"
    return program.model_proto


def bare(model: "onnx.ModelProto", class_names: Sequence[str], inputs: Mapping[str, object]) -> bytes:
    """A model as bytes with metadata of ours, and without torch's, which quote files and folders."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.metadata_props.add(key="class_names", value=json.dumps(list(class_names)))
    model.metadata_props.add(key="inputs", value=json.dumps(dict(inputs)))
    return bytes(model.SerializeToString(deterministic=True))


def run(content: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The logits that onnxruntime gives, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0]) for x in inputs]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of torch's exporter that concern its own insides."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
