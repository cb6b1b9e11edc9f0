"""Int8 of an ONNX graph, by ONNX Runtime's own quantizer."""

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
from detkit.export.converter_logs import quiet
from detkit.export.formats.onnx_layers import Layers, with_names
from detkit.export.int8.layer_loss import rank_layers

Runtime = Literal["onnxruntime", "openvino"]
LAYERS = ("Conv", "Gemm", "MatMul")
# What runs in int8. ONNX Runtime gains where whole chains stay int8, the activation function (Sigmoid, Mul) included;
# OpenVINO fuses that into the float end of an int8 convolution, and gains where only the inputs are int8.
OPERATORS: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": (*LAYERS, "Add", "Concat", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"),
    "openvino": LAYERS,
}
ALREADY_PREPARED = "onnx.quant.pre_process"  # mark of ONNX Runtime; torch's exporter has done what it stands for
RANKED_BATCHES = 4  # that tell which layers lose most
FIRST_SHARE = 1 / 32  # of the layers that go back to float at first, then twice as many each time


class QuantizedModel(NamedTuple):
    """Int8, and what it took."""

    model: onnx.ModelProto
    in_float: tuple[str, ...]  # layers that were left in float because they lost most
    good_enough: bool  # by the caller's own measure


def quantize(
    model: onnx.ModelProto,
    batches: Iterable[np.ndarray],
    keep_float: Sequence[str] = (),
    runtime: Runtime = "onnxruntime",
) -> onnx.ModelProto:
    """Layers in int8: weights of 7 bits per channel, activations in the range that they have on the batches.

    The layers that give logits and box parameters, the arithmetic after them, and products of two activations stay
    float. Memory is that of the largest batch, however many there are: of each tensor the least and the greatest value
    are kept.

    Args:
        model: with one input of images.
        batches: for that input, such as the detector will see; 100 images are enough.
        keep_float: names of layers, or of modules with layers, that stay float.
        runtime: that is to run it. The other one is slower with it, or cannot read it: OpenVINO fails on sums and
            matrix products of a DETR in int8 as ONNX Runtime likes them.

    Raises:
        ExportError: if there is no batch.
        ValueError: if a batch does not fit the input or is not finite, or a name is that of no layer.
    """
    with _quantizer(model, batches, runtime) as quantizer:
        return quantizer(keep_float)


def quantize_within(
    model: onnx.ModelProto,
    batches: Iterable[np.ndarray],
    is_good_enough: Callable[[onnx.ModelProto], bool],
    keep_float: Sequence[str] = (),
    runtime: Runtime = "onnxruntime",
    max_rounds: int = 5,
) -> QuantizedModel:
    """As ``quantize``; layers that lose most go back to float until the result is good enough.

    Args:
        model: as for ``quantize``.
        batches: as for ``quantize``; the first four of them rank the layers.
        is_good_enough: measures a quantized graph, e.g. its AP.
        keep_float: as for ``quantize``.
        runtime: as for ``quantize``.
        max_rounds: graphs that are measured at most; the last one is returned where none is good enough.

    Raises:
        ExportError: if there is no batch.
        ValueError: as ``quantize``, or if max_rounds is less than 1.
    """
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1; got {max_rounds}")
    ranked: list[np.ndarray] = []
    in_float: list[str] = []
    with _quantizer(model, _keep_first(batches, ranked), runtime) as quantizer:
        rounds = 0
        while True:
            int8 = quantizer([*keep_float, *in_float])
            rounds += 1
            good_enough = is_good_enough(int8)
            is_last = good_enough or rounds == max_rounds
            losing = [] if is_last else [name for name, _ in rank_layers(model, int8, ranked) if name not in in_float]
            if not losing:
                return QuantizedModel(int8, tuple(in_float), good_enough)
            number = max(1, round(len(quantizer.layers.names) * FIRST_SHARE * 2 ** (rounds - 1)))
            in_float += losing[:number]


class _Quantizer:
    """A graph that is calibrated once, at the first call, and quantized as often as wanted."""

    def __init__(self, model: onnx.ModelProto, reader: "_Reader", runtime: Runtime, folder: Path) -> None:
        self.model = with_names(model)
        self.layers = Layers(self.model)
        self.reader = reader
        self.runtime: Runtime = runtime
        self.folder = folder
        self.marks = [(entry.key, entry.value) for entry in model.metadata_props]
        onnx.helper.set_model_props(self.model, {**dict(self.marks), ALREADY_PREPARED: "onnxruntime.quant"})

    def __call__(self, keep_float: Sequence[str]) -> onnx.ModelProto:
        layers = self.layers
        excluded = {*layers.last, *layers.arithmetic, *layers.products, *layers.nodes_of(keep_float)}
        path = self.folder / "int8.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        extra: dict[str, object] = {}
        if self.runtime == "openvino":
            extra = {"OpTypesToExcludeOutputQuantization": list(LAYERS), "TensorQuantOverrides": self._around_zero()}
        with quiet():
            quantize_static(
                copy,
                path,
                self.reader,
                op_types_to_quantize=list(OPERATORS[self.runtime]),
                nodes_to_exclude=sorted(excluded),
                per_channel=True,
                activation_type=QuantType.QUInt8,  # symmetric int8 has slow kernels on x86
                weight_type=QuantType.QInt8,
                # Weights of 7 bits, for CPUs without VNNI: they add two products of an activation and a weight in
                # 16 bits. 2 * 255 * 127 is more than 32767, 2 * 255 * 64 is not, and all CPUs compute the same.
                reduce_range=True,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=self.folder / "ranges.json",
                extra_options=extra,
            )
        int8 = onnx.load(path)
        del int8.metadata_props[:]
        onnx.helper.set_model_props(int8, dict(self.marks))
        return int8

    def _around_zero(self) -> dict[str, list[dict[str, object]]]:
        """Inputs of matrix products as int8 without an offset: OpenVINO fails on a join of several with one."""
        inputs = [node.input[0] for node in self.model.graph.node if node.op_type in ("Gemm", "MatMul")]
        return {name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in inputs}


@contextlib.contextmanager
def _quantizer(model: onnx.ModelProto, batches: Iterable[np.ndarray], runtime: Runtime) -> Iterator[_Quantizer]:
    if runtime not in OPERATORS:
        raise ValueError(f"runtime must be one of {', '.join(OPERATORS)}; got {runtime!r}")
    if len(model.graph.input) != 1:
        names = ", ".join(given.name for given in model.graph.input)
        raise ValueError(f"the graph must have one input, of images; got {len(model.graph.input)}: {names}")
    checked = _checked(model.graph.input[0], batches)
    first = next(checked, None)
    if first is None:
        raise ExportError("int8 needs images to learn the ranges of activations from; there is not one batch")
    reader = _Reader(model.graph.input[0].name, itertools.chain([first], checked))
    with tempfile.TemporaryDirectory(prefix="detkit_int8_") as folder:
        yield _Quantizer(model, reader, runtime, Path(folder))


class _Reader(CalibrationDataReader):
    """Batches as ONNX Runtime asks for them."""

    def __init__(self, name: str, batches: Iterator[np.ndarray]) -> None:
        self.name = name
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next batch; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def _checked(given: onnx.ValueInfoProto, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each batch, if it is one."""
    tensor = given.type.tensor_type
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
        if len(kept) < RANKED_BATCHES:
            kept.append(batch)
        yield batch
