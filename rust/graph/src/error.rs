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
    /// A value outside what an argument allows (CkadValueError, a ValueError).
    Value,
    /// A traced value was used where it cannot be (TracerError, a RuntimeError).
    Tracer,
    /// An allocation failed (CkadMemoryError, a MemoryError).
    Memory,
    /// The user pressed Ctrl-C (KeyboardInterrupt).
    Interrupted,
    /// An invariant of ckad is broken: a bug, never a user's mistake (InternalError, a RuntimeError).
    Internal,
}

/// `[op] what is wrong: the actual shapes. Hint: what to do.`
#[derive(Clone, Debug, thiserror::Error)]
#[error("[{op}] {what}{}", self.hint_text())]
pub struct Error {
    pub kind: ErrorKind,
    /// The operation that refused, as the user knows it.
    pub op: String,
    pub what: String,
    pub hint: Option<String>,
    /// The source line (id in the trace's line table) of the node at fault, where one is known; 0 otherwise.
    pub line: u32,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, op: impl Into<String>, what: impl Into<String>) -> Self {
        Error { kind, op: op.into(), what: what.into(), hint: None, line: 0 }
    }

    pub fn shape(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, op, what)
    }

    pub fn dtype(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::DType, op, what)
    }

    pub fn value(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Value, op, what)
    }

    pub fn internal(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, op, what)
    }

    /// An allocation of `bytes` that the system refused.
    pub fn memory(op: impl Into<String>, bytes: usize) -> Self {
        Self::new(ErrorKind::Memory, op, format!("cannot allocate {bytes} bytes"))
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    fn hint_text(&self) -> String {
        self.hint.as_ref().map_or_else(String::new, |hint| format!(". Hint: {hint}"))
    }
}
