//! What `lower` writes and an executor reads: kernels over buffers whose bytes are known. Plain data.

use std::sync::Arc;

use ckad_graph::{CallKind, DType, ElementwiseId, NodeId, Op, ReduceKind, ScalarBits};
use smallvec::SmallVec;

use crate::loops::LoopLayout;
use crate::view::Strides;

/// Extents of axes; in place where axes are few.
pub type Extents = SmallVec<[usize; 2]>;
/// A flag for each axis.
pub type Flags = SmallVec<[bool; 8]>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BufferId(pub u32);

/// Where a buffer's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the arena, from this byte on.
    Arena(usize),
    /// The n-th input of the run; read only.
    Input(u32),
    /// The n-th output of the run, an allocation of its own.
    Output(u32),
    /// The n-th captured array; read only.
    Constant(u32),
    /// Some rows at a time in the kernels' scratch: what joined steps make for each other alone. Where they run one
    /// after the other (debug mode) it lies somewhere as a whole.
    Scratch,
}

/// An array in C order.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    pub place: Place,
    pub bytes: usize,
    /// Of the elements it first holds.
    pub dtype: DType,
    /// The steps between which its bytes are its own (both included).
    pub first_step: u32,
    pub last_step: u32,
    /// The node whose value it first holds: names it in traces and errors.
    pub node: NodeId,
}

/// An operand or result of a structural kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct ArrayRef {
    pub source: Source,
    pub dtype: DType,
    pub shape: Extents,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Source {
    Buffer(BufferId),
    /// Bits of an f32, converted to the dtype at hand.
    Literal(u32),
    /// Entry of the run's table of scalars.
    Scalar(u32),
    /// The affine index itself as a value (an iota, or what random bits are drawn by): only in fused kernels.
    Index,
}

impl Source {
    pub fn buffer(self) -> Option<BufferId> {
        match self {
            Source::Buffer(id) => Some(id),
            _ => None,
        }
    }
}

/// One kernel launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub kernel: Kernel,
    /// The node whose line names this step in traces and errors.
    pub node: NodeId,
    /// Floating point operations, for the plan.
    pub flops: u64,
    /// Whether it runs together with the step before, some rows at a time.
    pub joined: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Kernel {
    Fused(FusedKernel),
    /// One structural node. Where the result's buffer is the base's (operand 0 of a write, add, scatter or
    /// accumulate) it runs in place; otherwise the base is copied first.
    Structural {
        op: Op,
        parameters: Parameters,
        operands: Vec<ArrayRef>,
        result: ArrayRef,
    },
    Loop(Box<LoopKernel>),
}

/// A loop or a branch: programs of its bodies, run on memory that moves on.
#[derive(Clone, PartialEq, Debug)]
pub struct LoopKernel {
    pub kind: CallKind,
    /// What each takes and gives is said with the kind.
    pub bodies: Vec<Arc<Body>>,
    /// In the order that is said with the kind.
    pub operands: Vec<ArrayRef>,
    /// By part; None where nobody asks for it.
    pub results: Vec<Option<ArrayRef>>,
    /// By operand: may it be written over, as nobody reads it afterwards? Of slots only.
    pub given_up: Vec<bool>,
    /// Where it keeps what is its own; follows from all of the above.
    pub layout: LoopLayout,
}

/// The program of a body.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Body {
    pub program: Program,
    /// For each step, the position on the body's own tape that names its line.
    pub positions: Vec<u32>,
    /// By output: is it written over the carry that it is the next one of?
    pub in_place: Vec<bool>,
    /// The buffer of each input and of each output.
    pub inputs: Vec<BufferId>,
    pub outputs: Vec<BufferId>,
}

impl Body {
    /// Bytes of an input.
    pub fn input_bytes(&self, input: usize) -> usize {
        self.program.buffers[self.inputs[input].0 as usize].bytes
    }

    /// Bytes of an output.
    pub fn output_bytes(&self, output: usize) -> usize {
        self.program.buffers[self.outputs[output].0 as usize].bytes
    }
}

/// The interned lists that the node's `Op` refers to, resolved.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parameters {
    /// Strides, permutation, widths or axes of the op, as its documentation says; `DotAxes` as its list.
    pub list: Vec<i64>,
    /// Index into the run's table of starts, for strided operations.
    pub start: Option<u32>,
}

/// Elementwise operations over one iteration shape, in one pass over tiles that stay in L1, with the
/// reduction of the last value where there is one.
#[derive(Clone, PartialEq, Debug)]
pub struct FusedKernel {
    /// Extents of the iteration, outermost first; C order. Empty for a scalar.
    pub extents: Extents,
    pub loads: Vec<Load>,
    pub instructions: Vec<Instruction>,
    pub stores: Vec<Store>,
    pub reduce: Option<Reduction>,
    /// Number of tile registers that loads and instructions use.
    pub registers: u16,
    /// A store may write where a load reads the same elements: nothing of a tile is stored before all of it is loaded.
    pub overwrites: bool,
}

/// `register[i…] = source[offset + starts[start] + Σ i·strides]`, in elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Load {
    pub source: Source,
    pub dtype: DType,
    pub strides: Strides,
    pub offset: i64,
    /// Entries of the table of starts that are added to the offset.
    pub starts: Vec<u32>,
    pub register: u16,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum TileOp {
    Elementwise(ElementwiseId),
    /// From `Instruction::dtype` to `Instruction::result_dtype`.
    Cast,
    /// Bits of the element's index, a key and the counter of index 0, all of them uint64; of the last two only the
    /// first element is read.
    RandomBits,
}

/// `result = op(operands…)` on whole tiles. `result` is never one of `operands`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Instruction {
    pub op: TileOp,
    /// dtype of the operands (of the second and third, for select, whose first is bool).
    pub dtype: DType,
    pub result_dtype: DType,
    pub result: u16,
    pub operands: [u16; 3],
}

/// Writes a register to a packed array of the iteration shape.
#[derive(Clone, PartialEq, Debug)]
pub struct Store {
    pub buffer: BufferId,
    pub dtype: DType,
    pub register: u16,
}

/// Reduces a register over the flagged iteration axes into a packed array of the remaining ones.
#[derive(Clone, PartialEq, Debug)]
pub struct Reduction {
    pub kind: ReduceKind,
    /// For each iteration axis, whether it is reduced. The tree depends on extents, flags and dtype alone.
    pub reduced: Flags,
    pub dtype: DType,
    pub register: u16,
    pub buffer: BufferId,
}

/// dtype and extents of an input or output.
#[derive(Clone, PartialEq, Debug)]
pub struct ArraySpec {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl ArraySpec {
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// An output that may have the memory of an input, where the caller gives that up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Takeover {
    pub output: u32,
    pub input: u32,
}

/// What becomes of a buffer's bytes beside the steps. A transfer goes on while steps run, from its beginning to its
/// end; until then nobody writes what is being written to the file, or touches what is being read from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Motion {
    BeginWrite,
    EndWrite,
    BeginRead,
    EndRead,
}

/// The beginning or the end of a transfer to the run's file or back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Between the step of this index and the one before it.
    pub gap: u32,
    pub motion: Motion,
    pub buffer: BufferId,
    /// Where the bytes are in the file.
    pub offset: u64,
}

/// A lowered schedule: runs as often as wanted, on any inputs of the same structure.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Program {
    pub steps: Vec<Step>,
    pub buffers: Vec<Buffer>,
    pub inputs: Vec<ArraySpec>,
    pub outputs: Vec<ArraySpec>,
    /// In the order of outputs.
    pub takeovers: Vec<Takeover>,
    /// What is written to a file meanwhile and read back, where steps run in turn. In the order of gaps, in one gap
    /// first what is written.
    pub transfers: Vec<Transfer>,
    /// Bytes of the one arena, 64-byte aligned.
    pub arena_bytes: usize,
    /// Bytes that kernels may use beside the arena: the sum over threads of the largest need.
    pub scratch_bytes: usize,
    /// Scalars and starts that rules added behind the recorded ones: (number recorded, values added).
    pub scalars_added: (usize, Vec<ScalarBits>),
    pub starts_added: (usize, Vec<i64>),
}

/// Steps run as one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Joining {
    /// Bytes of scratch.
    pub scratch: usize,
    /// Results that never lie anywhere as a whole.
    pub unstored: Vec<BufferId>,
}

/// What `lower` must know of the machine that will run the program. Plain data.
#[derive(Clone, Debug)]
pub struct Target {
    /// Alignment of every buffer in the arena, bytes.
    pub alignment: usize,
    /// Most loads and stores of one fused kernel.
    pub operand_limit: usize,
    /// Most tile registers of one fused kernel.
    pub register_limit: usize,
    /// Number of threads that will run kernels (scratch is counted per thread; results never depend on it).
    pub threads: usize,
    /// Scratch bytes that one step needs in all; a function of the kernel and the number of threads.
    pub scratch: fn(&Kernel, usize) -> usize,
    /// How many of the steps, from the first on, can run as one; 1 where none does with the next.
    pub joined: fn(&[Step]) -> usize,
    /// What it takes to run steps as one, of whose results no step behind them reads these; None where they are to run
    /// in turn.
    pub joining: fn(&[Step], &[BufferId], usize) -> Option<Joining>,
}
