"""Quantization of an ONNX graph to int8, with ONNX Runtime's quantizer."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from detkit.errors import ExportError
from detkit.exporting.converter_logs import silenced
from detkit.exporting.formats.onnx_layers import Layers, with_names
from detkit.exporting.int8.layer_loss import rank_layers

Int8Runtime = Literal["onnxruntime", "openvino"]
LAYERS = ("Conv", "Gemm", "MatMul")
# Operators that run in int8. ONNX Runtime is fast if chains of operators stay int8, with the activation functions
# (Sigmoid, Mul). OpenVINO fuses activation functions into the float output of an int8 convolution, and is fast if only
# the inputs of layers are int8.
OPERATORS: dict[Int8Runtime, tuple[str, ...]] = {
    "onnxruntime": (*LAYERS, "Add", "Concat", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"),
    "openvino": LAYERS,
}
ALREADY_PREPARED = "onnx.quant.pre_process"  # tells ONNX Runtime to skip its preparation, which torch's exporter does
RANKING_BATCHES = 4  # that the errors of layers are measured on
FIRST_SHARE = 1 / 32  # of the layers that return to float in the first round; doubled each round


class QuantizedModel(NamedTuple):
    """A quantized graph."""

    model: onnx.ModelProto
    in_float: tuple[str, ...]  # layers that returned to float because of their errors
    good_enough: bool  # by the caller's measure


def quantize(
    model: onnx.ModelProto,
    batches: Iterable[np.ndarray],
    is_good_enough: Callable[[onnx.ModelProto], bool],
    runtime: Int8Runtime = "onnxruntime",
    max_rounds: int = 5,
) -> QuantizedModel:
    """Quantize layers to int8: 7 bits for weights, per channel, and 8 bits for activations.

    Layers that give logits and box parameters, the arithmetic after them, and products of two activations stay float.
    If the result is not good enough, the layers with the largest errors return to float, and so on. Only the smallest
    and largest value of each activation are kept of a batch, so memory does not grow with the number of batches.

    Args:
        model: with one input, of images.
        batches: for that input, of images such as the detector will see; 100 images are enough. The first four rank
            the layers.
        is_good_enough: measures a quantized graph, e.g. its AP.
        runtime: that runs the result. The other runtime is slower with it or cannot read it: OpenVINO fails on the
            int8 sums and matrix products of a DETR that ONNX Runtime prefers.
        max_rounds: largest number of graphs that are measured; the last one is returned if none is good enough.

    Raises:
        ExportError: if there is no batch.
        ValueError: if a batch does not fit the input or is not finite, or max_rounds is less than 1.
    """
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1; got {max_rounds}")
    ranking_batches: list[np.ndarray] = []
    in_float: list[str] = []
    with _quantizer(model, _keep_first(batches, ranking_batches), runtime) as quantizer:
        rounds = 0
        while True:
            int8 = quantizer(in_float)
            rounds += 1
            good_enough = is_good_enough(int8)
            worst_first = [] if good_enough or rounds == max_rounds else rank_layers(model, int8, ranking_batches)
            candidates = [name for name, _ in worst_first if name not in in_float]
            if not candidates:
                return QuantizedModel(int8, tuple(in_float), good_enough)
            number = max(1, round(len(quantizer.layers.names) * FIRST_SHARE * 2 ** (rounds - 1)))
            in_float += candidates[:number]


class _Quantizer:
    """Quantizes a graph repeatedly; the ranges of activations are measured at the first call."""

    def __init__(self, model: onnx.ModelProto, reader: "_Reader", runtime: Int8Runtime, folder: Path) -> None:
        self.model = with_names(model)
        self.layers = Layers(self.model)
        self.reader = reader
        self.runtime: Int8Runtime = runtime
        self.folder = folder
        self.metadata = [(entry.key, entry.value) for entry in model.metadata_props]
        onnx.helper.set_model_props(self.model, {**dict(self.metadata), ALREADY_PREPARED: "onnxruntime.quant"})

    def __call__(self, in_float: Sequence[str]) -> onnx.ModelProto:
        layers = self.layers
        excluded = {*layers.last, *layers.arithmetic, *layers.products, *layers.nodes_of(in_float)}
        path = self.folder / "int8.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        extra_options: dict[str, object] = {}
        if self.runtime == "openvino":
            extra_options = {
                "OpTypesToExcludeOutputQuantization": list(LAYERS),
                "TensorQuantOverrides": self._symmetric(),
            }
        with silenced():
            quantize_static(
                copy,
                path,
                self.reader,
                op_types_to_quantize=list(OPERATORS[self.runtime]),
                nodes_to_exclude=sorted(excluded),
                per_channel=True,
                activation_type=QuantType.QUInt8,  # symmetric int8 has slow kernels on x86
                weight_type=QuantType.QInt8,
                # Weights have 7 bits because CPUs without VNNI add two products of an activation and a weight in
                # 16 bits: 2 * 255 * 127 exceeds 32767, 2 * 255 * 64 does not. So all CPUs compute the same.
                reduce_range=True,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=self.folder / "ranges.json",
                extra_options=extra_options,
            )
        int8 = onnx.load(path)
        del int8.metadata_props[:]
        onnx.helper.set_model_props(int8, dict(self.metadata))
        return int8

    def _symmetric(self) -> dict[str, list[dict[str, object]]]:
        """Int8 without offset for inputs of matrix products: OpenVINO fails on a concatenation with offsets."""
        inputs = [node.input[0] for node in self.model.graph.node if node.op_type in ("Gemm", "MatMul")]
        return {name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in inputs}


@contextlib.contextmanager
def _quantizer(model: onnx.ModelProto, batches: Iterable[np.ndarray], runtime: Int8Runtime) -> Iterator[_Quantizer]:
    if runtime not in OPERATORS:
        raise ValueError(f"runtime must be one of {', '.join(OPERATORS)}; got {runtime!r}")
    if len(model.graph.input) != 1:
        names = ", ".join(value.name for value in model.graph.input)
        raise ValueError(f"the graph must have one input, of images; got {len(model.graph.input)}: {names}")
    checked = _checked(model.graph.input[0], batches)
    first = next(checked, None)
    if first is None:
        raise ExportError("int8 needs images to measure the ranges of activations on; there is no batch")
    reader = _Reader(model.graph.input[0].name, itertools.chain([first], checked))
    with tempfile.TemporaryDirectory(prefix="detkit_int8_") as folder:
        yield _Quantizer(model, reader, runtime, Path(folder))


class _Reader(CalibrationDataReader):
    """An iterator of batches in the form that ONNX Runtime wants."""

    def __init__(self, name: str, batches: Iterator[np.ndarray]) -> None:
        self.name = name
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next batch; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def _checked(graph_input: onnx.ValueInfoProto, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each batch, after a check of its type, shape and values."""
    tensor = graph_input.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    sides = [side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim]
    spelt = ", ".join("any" if side is None else str(side) for side in sides)
    for number, batch in enumerate(batches):
        fits = len(batch.shape) == len(sides) and all(
            want in (None, got) for want, got in zip(sides, batch.shape, strict=True)
        )
        if batch.dtype != dtype or not fits:
            raise ValueError(f"batches must be {dtype} ({spelt}); batch {number} is {batch.dtype} {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError(f"batches must be finite; batch {number} holds {batch[~np.isfinite(batch)][0]}")
        yield batch


def _keep_first(batches: Iterable[np.ndarray], kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        if len(kept) < RANKING_BATCHES:
            kept.append(batch)
        yield batch
