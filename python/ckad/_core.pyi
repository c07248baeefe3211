"""The native module: tracing, planning and running. What is public of it is re-exported by `ckad`."""

from collections.abc import Callable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np

from ckad.picture.data import FrontierPoint, LineCost

__version__: str

class Tracer:
    """A value that is being recorded; it behaves like the NumPy array or scalar that it stands for."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ndim: int
    size: int
    itemsize: int
    nbytes: int
    strides: tuple[int, ...]
    T: Any
    def __getattr__(self, name: str) -> Any: ...
    def __getitem__(self, index: Any) -> Any: ...
    def __setitem__(self, index: Any, value: Any) -> None: ...
    def __add__(self, other: Any) -> Any: ...
    def __radd__(self, other: Any) -> Any: ...
    def __sub__(self, other: Any) -> Any: ...
    def __rsub__(self, other: Any) -> Any: ...
    def __mul__(self, other: Any) -> Any: ...
    def __rmul__(self, other: Any) -> Any: ...
    def __truediv__(self, other: Any) -> Any: ...
    def __rtruediv__(self, other: Any) -> Any: ...
    def __pow__(self, other: Any) -> Any: ...
    def __rpow__(self, other: Any) -> Any: ...
    def __matmul__(self, other: Any) -> Any: ...
    def __rmatmul__(self, other: Any) -> Any: ...
    def __neg__(self) -> Any: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...

class Jitted:
    """The recordings of a jitted function."""

    def __init__(
        self,
        static_positions: list[int],
        static_names: list[str],
        donated_positions: list[int],
        donated_names: list[str],
    ) -> None: ...
    def __len__(self) -> int: ...
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The results of a recording that serves these arguments; `NotRecorded` where there is none."""
    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JitCall: ...
    def record(self, call: JitCall, trace: Trace, leaves: list[Any], structure: Any, watches: JitWatches) -> Any:
        """Keeps what was recorded for a call, and runs it."""

class JitCall:
    """The arguments of one call that is to be recorded."""

    @property
    def held(self) -> list[Any]:
        """The leaves that are neither numbers nor arrays of numbers."""
    def traced(self, trace: Trace) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as values of a trace."""

class JitWatches:
    """What a function can reach, noted as it is before the function is recorded."""

    def __init__(self, places: list[tuple[Any, ...]]) -> None: ...
    def add(self, places: list[tuple[Any, ...]]) -> None:
        """Adds places that were not there when it was made."""

class NotRecorded:
    """What `Jitted.call` returns, the class itself, where no recording serves."""

class LinearMap:
    """A linear function with the residuals that it reads."""

    @property
    def flops(self) -> int: ...
    @property
    def is_traced(self) -> bool:
        """Are its results values of a trace?"""
    def __call__(self, operands: list[Any]) -> list[Any]: ...
    def at_unit(self, leaf: int, position: int) -> list[Any]:
        """The linear function at a unit vector: that of an element, in C order, of one of its operands."""
    def room(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """An array in C order for a part of the Jacobian."""

class Body:
    """The recorded body of a loop or branch."""

class Graph:
    """A recorded graph: `print(graph)` has a line per node."""

    def __len__(self) -> int: ...
    def to_dot(self) -> str:
        """The graph in Graphviz' language."""
    def to_svg(self) -> str:
        """The graph as SVG. It needs Graphviz: its program `dot` draws it."""
    def _repr_svg_(self) -> str: ...

class Plan:
    """What is known of a run before it runs: `print(plan)` has a table per source line."""

    @property
    def peak_bytes(self) -> int:
        """Bytes that the call holds at most: the sum of `parts`, or a forced run's peak where that is more."""
    @property
    def parts(self) -> dict[str, int]:
        """What the final run allocates, and what is held beside it, by what it is for. Of a Jacobian's two runs, that
        of the function and that of its derivative, the larger one."""
    @property
    def memory_limit(self) -> int | None:
        """The limit in bytes that it was planned for, if there was one."""
    @property
    def planning_bytes(self) -> int:
        """The most bytes that deriving, planning and lowering held before the run, as measured. A call whose structure
        was planned before holds none of them; with one thread it is a little less."""
    @property
    def live_bytes(self) -> int:
        """The most bytes of values live at once, each as a whole, outputs included."""
    @property
    def flops(self) -> int:
        """Floating point operations of the call, forced runs included."""
    @property
    def forward_flops(self) -> int:
        """Floating point operations of the function itself, gradients inside it included, computed once."""
    @property
    def extra_flops(self) -> int:
        """Floating point operations beyond those of keeping everything."""
    @property
    def bytes_moved(self) -> int:
        """Bytes that kernels read and write in the final run, each operand and result once per kernel."""
    @property
    def offloaded_bytes(self) -> int:
        """Bytes of values that the final run writes to its file, see `ckad.Offload`."""
    @property
    def segments(self) -> int:
        """Number of stretches of the program that are recomputed as one; 1 where nothing is."""
    @property
    def forced_runs(self) -> tuple[int, int]:
        """Number of runs that control flow on values forced, and the most bytes that one of them held."""
    @property
    def note(self) -> str | None:
        """Why the plan is not what the policy would have been, where it is not."""
    @property
    def lines(self) -> list[LineCost]:
        """What each source line costs, derivatives included; those that hold most at the peak first."""
    @property
    def made_while_traced(self) -> list[tuple[str, int, int]]:
        """(file, line, bytes) of arrays that the function made with functions of NumPy's own while it was traced, by
        the line that reads them first: constants that are held until the call ends. `ckad.random` draws numbers that
        are part of the program."""
    def frontier(self) -> list[FrontierPoint]:
        """The plans of which no other needs as few bytes and as little work, the least memory first."""
    def timeline(self, columns: int = 600, lines: int = 12) -> dict[str, Any]:
        """The steps of the final run in at most so many columns, and one for the end, when the results are there. A
        step is a kernel, and a column shows that step of its stretch at which most bytes are live.

        Returns:
            steps: their number, the end included.
            lines: (file, number) of the source lines that hold most at some time, in the order of the source.
            first_step, step, live, allocated: of each column, where it begins, the step that it shows, the bytes of
                values that are live there, and those of all results with them, which have their memory from the
                beginning. What is used up row by row never lies in memory as a whole: the peak can be lower.
            held: a list for each of `lines`, and one for all others: bytes live in each column.
            computes: of each column, the (file, number) of what the step computes; None at the end.
            forward, recomputed, backward: of each column, the lowest and highest place in the recorded program at
                which it does such work; None where it does not.
        """
    @overload
    def to_html(self, path: None = None) -> str:
        """The plan as one HTML page that needs nothing else."""
    @overload
    def to_html(self, path: str | PathLike[str]) -> None:
        """Writes the plan as one HTML page that needs nothing else."""
    def to_png(self, path: str | PathLike[str]) -> None:
        """Writes the timeline and the frontier as a PNG file. It needs matplotlib: `pip install 'ckad[plot]'`."""
    def _repr_html_(self) -> str: ...

class Planned(BaseException):
    """Unwinds a call that was only to be planned."""

class _Context:
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...

class Planning(_Context):
    """While it is open, the first program that would run outside of any trace is planned, and `Planned` raised."""

    def __init__(self) -> None: ...
    @property
    def refused(self) -> Any:
        """The MemoryLimitError of a forced run that needs most beyond the limit, or None."""
    @property
    def plan(self) -> Plan:
        """The plan of the call that `Planned` unwound."""

class Profiling(_Context):
    """While it is open, runs take their buffers from `allocator`: `begin()` as each run starts,
    `allocate(file, line, bytes) -> address`, `free(address)`, and `output(file, line, bytes)` for results that outlive
    the run.
    """

    def __init__(self, allocator: Any) -> None: ...
    @property
    def planned_bytes(self) -> int:
        """The largest planned live bytes of a run in this context."""
    @property
    def planned_lines(self) -> list[tuple[str, int, int]]:
        """(file, line, bytes): the most bytes that a run in this context was planned to hold of each line at once."""

class Watching(_Context):
    """While it is open, runs note where an absorbing product met 0 and a number that is not finite."""

    def __init__(self) -> None: ...
    @property
    def lines(self) -> list[str]:
        """The source lines found so far, each once."""

class Region(_Context):
    """What is recorded while it is open belongs to a new region that keeps only its inputs."""

    def __init__(self) -> None: ...

def together(values: list[Any]) -> list[Any]:
    """The values, those of enclosing traces as values of the innermost among them, or of the body inside of it."""

def keep(value: Tracer) -> None:
    """Marks the value as one that every policy keeps."""

_Policy = str | int | tuple[str, int] | None

class Trace:
    """One traced call: arguments go in, the function records, and one of the methods that take outputs finishes it."""

    def __init__(
        self,
        transform: str,
        jitted: bool = False,
        memory_limit: int | None = None,
        body: bool = False,
        rule: bool = False,
    ) -> None: ...
    def symbol(self, dtype: Any, shape: Sequence[int], is_array: bool, weak: bool) -> Any:
        """An argument without a value; `weak`: a number of Python's."""
    def body(self, outputs: list[Any], own: int) -> Body:
        """The body of a loop or branch; the first `own` symbols are its arguments."""
    @property
    def is_enclosed(self) -> bool:
        """Does another trace record around it?"""
    def evaluate(self, outputs: list[Any]) -> list[Any]:
        """The values of the outputs."""
    def argument(self, leaf: Any, differentiated: bool) -> Any:
        """A leaf of an argument as a traced value."""
    def value_and_grad(self, outputs: list[Any], policy: _Policy) -> tuple[list[Any], list[Any]]:
        """The values of the outputs, and the gradients of the first by the differentiated arguments."""
    def jvp(self, outputs: list[Any], tangents: list[Any], policy: _Policy) -> tuple[list[Any], list[Any]]:
        """The values of the outputs and their tangents."""
    def linearize(self, outputs: list[Any], policy: _Policy) -> tuple[list[Any], LinearMap]:
        """The values of the outputs and the derivative as a function of tangents."""
    def vjp(self, outputs: list[Any], policy: _Policy) -> tuple[list[Any], LinearMap]:
        """The values of the outputs and the transposed derivative as a function of cotangents."""
    def jacobian(
        self, outputs: list[Any], mode: str, columns: int, rows: int, policy: _Policy
    ) -> tuple[str, LinearMap]:
        """The mode (`mode`, or the cheaper one where that is neither) and the linear function that a Jacobian of so
        many columns and rows applies.
        """
    def jacobian_mode(self, outputs: list[Any], columns: int, rows: int) -> str:
        """The mode in which a Jacobian of so many columns and rows costs less; nothing is run."""
    def graph(self, outputs: list[Any]) -> Graph:
        """The recorded graph."""
    def close(self) -> None:
        """Frees the tape; traced values that survive raise from now on."""

def scan(
    trace: Trace, body: Body, carries: list[Any], xs: list[Any], trips: int, reverse: bool, are_arrays: list[bool]
) -> list[Any]:
    """Records a loop: its last carries, and what it stacked. Arguments of the body: index, carries, slices."""

def while_loop(trace: Trace, test: Body, body: Body, carries: list[Any], are_arrays: list[bool]) -> list[Any]:
    """Records a loop that goes on while the test holds: its last carries, and the number of iterations. Arguments of
    the body: an index that it does not read, carries.
    """

def custom(
    trace: Trace,
    body: Body,
    results: list[Any],
    arguments: list[Any],
    silent: list[Any],
    forward: bool,
    are_arrays: list[bool],
) -> list[Any]:
    """Records results whose derivative is what the body says, of tangents (`forward`) or of cotangents; nothing of the
    `silent` arguments.
    """

def cond(
    trace: Trace, choice: Any, bodies: tuple[Body, Body], operands: list[Any], are_arrays: list[bool]
) -> list[Any]:
    """Records a branch: the results of the first body where the choice is false, of the second where it is true."""

def release() -> None: ...
def register_policy(policy: Any, name: str) -> int:
    """A number for a policy of the user's, which lives from now on."""

def building() -> tuple[float, float, int]:
    """Seconds to derive, to plan and lower, and nodes planned, of the last program that this thread made or that a
    limit refused: for benches/scaling.py and benches/planning.py."""

def elementwise_table() -> list[dict[str, Any]]: ...
def ufunc_names() -> list[str]: ...
def register_function(numpy_function: Any, handler: Callable[..., Any]) -> None: ...
def register_creation(numpy_function: Any, handler: Callable[..., Any]) -> None: ...
def register_method(name: str, function: Callable[..., Any]) -> None: ...
def register_hints(function: Callable[[Any], str], attribute: Callable[[str], str]) -> None: ...
def apply(row: str, *values: Any, dtype: Any = None) -> Any: ...
def cast(x: Any, dtype: Any) -> Any: ...
def stop_gradient(x: Any) -> Any: ...
def iteration_order(rank: int, strides: Sequence[Sequence[int]]) -> list[int]: ...
def reduction_axes(op: str, axis: Any, shape: tuple[int, ...]) -> list[int]: ...
def axes_hint(rank: int) -> str: ...
def reduce(kind: str, x: Any, axes: Sequence[int], dtype: Any = None, keepdims: bool = False) -> Any: ...
def arg_reduce(greatest: bool, x: Any, axis: int) -> Any: ...
def argsort(x: Any, axis: int) -> Any: ...
def cumulative_sum(x: Any, axis: int, reverse: bool = False) -> Any: ...
def linear_recurrence(a: Any, b: Any, axis: int, reverse: bool = False) -> Any: ...
def dot_general(
    a: Any,
    b: Any,
    lhs_batch: Sequence[int],
    rhs_batch: Sequence[int],
    lhs_contract: Sequence[int],
    rhs_contract: Sequence[int],
) -> Any: ...
def concatenate(arrays: Sequence[Any], axis: int) -> Any: ...
def pad(x: Any, fill: Any, widths: Sequence[tuple[int, int]]) -> Any: ...
def gather(x: Any, indices: Sequence[Any]) -> Any: ...
def scatter_add(x: Any, value: Any, indices: Sequence[Any]) -> Any: ...
def zeros(like: Any, shape: Sequence[int], dtype: Any, order: Any = None) -> Any: ...
def broadcast_view(x: Any, shape: Sequence[int]) -> Any: ...
def diagonal_view(x: Any, offset: int, axis1: int, axis2: int, read_only: bool) -> Any: ...
def with_unknown_layout(x: Any) -> Any: ...
def is_recording() -> bool:
    """Does a trace record on this thread?"""

def random_bits(key: Any, first: Any, shape: Sequence[int], dtype: Any) -> Any:
    """Random bits of an unsigned dtype, recorded on the innermost trace of the operands, or else of the thread."""

def lift(x: Any, like: Any) -> Any: ...
def as_array(x: Any) -> Any: ...
def supported(x: Any) -> Any: ...
def strong(x: Any) -> Any: ...
def is_scalar(x: Any) -> bool: ...
def is_weak(x: Any) -> bool: ...
def is_active(x: Any) -> bool: ...
