//! Values that exist outside a program: arguments, captured arrays, results. In C order of their node's shape.

use std::sync::Arc;

use ckad_graph::{Constant, HostArray, Result, ScalarBits};
use ckad_run::Filled;
use pyo3::prelude::*;

/// A value whose bytes are known.
#[derive(Clone)]
pub enum Value {
    /// A scalar's bits, of its node's dtype.
    Scalar(ScalarBits),
    /// An array.
    Array(Constant),
}

impl Value {
    /// The value's bytes in C order; a scalar's are the first of its bits.
    pub fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: any u64 is eight valid bytes, little end first as on every supported machine.
            Value::Scalar(bits) => unsafe { std::slice::from_raw_parts(std::ptr::from_ref(bits).cast(), 8) },
            Value::Array(array) => array.bytes(),
        }
    }

    /// Bytes that exist because of us.
    pub fn owned_bytes(&self) -> usize {
        match self {
            Value::Scalar(_) => 0,
            Value::Array(array) => array.owned_bytes(),
        }
    }
}

/// An array of ours.
#[derive(Debug)]
pub struct Snapshot(pub Filled);

impl HostArray for Snapshot {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        self.0.bytes().len()
    }
}

/// A NumPy array that is held, and whose packed memory is read where it lies.
#[derive(Debug)]
pub struct Borrowed {
    /// Keeps the memory alive.
    pub _array: Py<PyAny>,
    pub data: *const u8,
    pub bytes: usize,
}

// SAFETY: the memory is only read, and the array that owns it is kept alive by the reference, which is only
// dropped, never used; dropping a `Py` without the GIL is deferred by PyO3.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl HostArray for Borrowed {
    fn bytes(&self) -> &[u8] {
        if self.bytes == 0 {
            return &[];
        }
        // SAFETY: `data` points to `bytes` bytes of the array that `_array` keeps alive.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }

    fn owned_bytes(&self) -> usize {
        0
    }
}

impl Snapshot {
    pub fn shared(bytes: &[u8]) -> Result<Constant> {
        Ok(Arc::new(Snapshot(Filled::copied("array", bytes)?)))
    }
}
