//! The one error type of the core. It carries data; rust/python maps `kind` to a class of `ckad.errors`.

/// What went wrong, and so which Python exception it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// Shapes do not fit (ShapeError, a ValueError).
    Shape,
    /// Element types do not fit (DTypeError, a TypeError).
    DType,
    /// An index is out of range (CkadIndexError, an IndexError).
    Index,
    /// An axis that the array lacks (CkadAxisError, a ValueError and an IndexError).
    Axis,
    /// A value outside what an argument allows (CkadValueError, a ValueError).
    Value,
    /// A type that is not supported at this place (CkadTypeError, a TypeError).
    Type,
    /// A traced value was used where it cannot be (TracerError, a RuntimeError).
    Tracer,
    /// An allocation failed (CkadMemoryError, a MemoryError).
    Memory,
    /// The disk refused (StorageError, an OSError).
    Storage,
    /// What a call needs is not there (CkadRuntimeError, a RuntimeError).
    Missing,
    /// What the core called on the user's behalf raised; whoever called has the exception.
    Raised,
    /// The user pressed Ctrl-C (KeyboardInterrupt).
    Interrupted,
    /// An invariant of ckad is broken: a bug, never a user's mistake (InternalError, a RuntimeError).
    Internal,
}

/// `[op] what is wrong: the actual shapes. Hint: what to do.`
#[derive(Clone, Debug, thiserror::Error)]
#[error("[{op}] {what}. Hint: {hint}")]
pub struct Error {
    pub kind: ErrorKind,
    /// The operation that refused, as the user knows it.
    pub op: String,
    pub what: String,
    pub hint: String,
    /// The source line (id in the trace's line table) of the node at fault, where one is known; 0 otherwise.
    pub line: u32,
    /// Of an error in the body of a loop: tape positions in the bodies, the outermost first. `line` is then the loop's.
    pub within: Vec<u32>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that does not say yet what to do about it. It is none before it does: what the compiler takes for an
/// [`Error`] has a hint.
#[derive(Clone, Debug)]
#[must_use = "an error needs a hint"]
pub struct Refusal {
    kind: ErrorKind,
    op: String,
    what: String,
}

impl Refusal {
    /// The error; `hint` is what works in place of what was refused.
    pub fn with_hint(self, hint: impl Into<String>) -> Error {
        Error { kind: self.kind, op: self.op, what: self.what, hint: hint.into(), line: 0, within: Vec::new() }
    }
}

impl Error {
    #[expect(clippy::new_ret_no_self, reason = "an error is complete once it has its hint")]
    pub fn new(kind: ErrorKind, op: impl Into<String>, what: impl Into<String>) -> Refusal {
        Refusal { kind, op: op.into(), what: what.into() }
    }

    pub fn shape(op: impl Into<String>, what: impl Into<String>) -> Refusal {
        Self::new(ErrorKind::Shape, op, what)
    }

    pub fn dtype(op: impl Into<String>, what: impl Into<String>) -> Refusal {
        Self::new(ErrorKind::DType, op, what)
    }

    pub fn value(op: impl Into<String>, what: impl Into<String>) -> Refusal {
        Self::new(ErrorKind::Value, op, what)
    }

    pub fn internal(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, op, what).with_hint("this is a bug in ckad: please report this text")
    }

    /// What unwinds a computation that Ctrl-C stopped; Python sees its own KeyboardInterrupt.
    pub fn interrupted(op: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted, op, "interrupted").with_hint("call it again")
    }

    /// An allocation of `bytes` that the system refused.
    pub fn memory(op: impl Into<String>, bytes: usize) -> Self {
        Self::new(ErrorKind::Memory, op, format!("cannot allocate {bytes} bytes"))
            .with_hint("free memory, use smaller arrays, or a policy that keeps less, such as checkpoint='sqrt'")
    }

    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}
