"""Define the keys of a `[targets.<name>]` table, and their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

LONGEST_ISOLATED = 86_400
"""How many seconds `isolate_open` may give: a day."""


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number of bytes, not {value!r}")
    return value


def _true_or_seconds(value: object) -> object:
    if not isinstance(value, bool) and not (isinstance(value, int | float) and 0 < value <= LONGEST_ISOLATED):
        raise ValueError(f"must be true, false or a number of seconds from 0 to {LONGEST_ISOLATED}, not {value!r}")
    return value


LONGEST_WARMUP_S = 10**6


class Warmup(BaseModel):
    """What to run before the first request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batches: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Batch sizes to run: sizes of the first dimension of the inputs, where it is dynamic."""
    shapes: tuple[dict[str, tuple[Annotated[int, Field(ge=0)], ...]], ...] = ()
    """Shapes to run, each a table from input name to shape; inputs left out take their declared shape."""
    dimensions: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Sizes for dynamic dimensions, by name; the others are assumed, and the report says which."""
    runs: Annotated[int, Field(ge=0)] | None = None
    """How many runs per shape, and one more is timed; what the provider needs unless given, and 0 for none."""
    timeout: Annotated[StrictInt | StrictFloat, Field(gt=0, le=LONGEST_WARMUP_S)] = 1800
    """How many seconds all of it may take. Then it is told to stop, which ONNX Runtime heeds between two nodes."""

    @model_validator(mode="after")
    def _say_the_batch_once(self) -> Warmup:
        if self.batches and self.shapes:
            raise ValueError("batches and shapes both say the size of the batch: keep one of them")
        return self


class TargetTable(BaseModel):
    """The keys of one `[targets.<name>]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: StrictStr
    """The provider to run on."""
    fallback: tuple[StrictStr, ...] = ()
    """The providers to try after it, in order; `cpu` follows by itself."""
    cpu: StrictBool = True
    """Whether the CPU stands at the end of the chain; false forbids it every node."""
    strict: StrictBool = False
    """Whether it must be the first provider, or an error."""
    min_placement: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of nodes that the first provider must take, 0 to 1, or an error that names the operators left over."""
    device: StrictInt | StrictStr | None = None
    """The device: an ordinal (CUDA, TensorRT) or a kind (OpenVINO: CPU, GPU, NPU)."""
    options: dict[str, Any] = {}
    """The options of `provider`, by ONNX Runtime's names."""
    options_for: dict[str, dict[str, Any]] = {}
    """The options of the other providers of the chain, a table each."""
    session_options: dict[str, Any] = {}
    """What ONNX Runtime calls SessionOptions."""
    warmup: Warmup = Warmup()
    """What to run before the first request."""
    cuda_graph: StrictBool = False
    """Whether bindings capture each combination of shapes as a graph, and replay it; of CUDA, TensorRT and WebGPU."""
    shrink_above: Annotated[ByteSize, BeforeValidator(_no_flag), Field(gt=0)] | None = None
    """Bytes of inputs or outputs (`64 MiB`) above which a run's memory goes back to the system afterwards."""
    cache: StrictBool | None = None
    """Whether to start from what was compiled before, and to keep what is compiled; left out, start from it if kept."""
    cast: StrictBool = False
    """Whether inputs may be converted within their kind where precision is lost: float64 to float32."""
    isolate_open: Annotated[StrictBool | float, BeforeValidator(_true_or_seconds)] = False
    """Whether to open the model in a process of its own first, which may crash or hang; a number: its seconds."""
    extends: StrictStr | None = None
    """The target whose keys this one starts from."""
