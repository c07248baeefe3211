//! What a run gives: memory that a NumPy array or a trace takes over without a copy.

use std::ops::Deref;
use std::sync::Arc;

use ckad_graph::HostArray;
use ckad_run::OutputBuffer;

use crate::alive::Counted;
use crate::value::Value;

/// A result's memory.
#[derive(Debug)]
pub struct Memory {
    buffer: OutputBuffer,
    /// It belongs to a run inside of a trace.
    counted: Option<Counted>,
}

impl Memory {
    /// Is it counted among what runs inside of a trace have left?
    pub fn is_counted(&self) -> bool {
        self.counted.is_some()
    }
}

impl Deref for Memory {
    type Target = OutputBuffer;

    fn deref(&self) -> &OutputBuffer {
        &self.buffer
    }
}

/// A result of a run.
pub struct Output(pub Arc<Memory>);

impl Output {
    /// The result of the call itself.
    pub fn new(buffer: OutputBuffer) -> Output {
        Output(Arc::new(Memory { buffer, counted: None }))
    }

    /// Counts it as the result of a run inside of a trace, as long as it is alive.
    pub fn count(&mut self) {
        if let Some(memory) = Arc::get_mut(&mut self.0).filter(|memory| memory.taken_over().is_none()) {
            memory.counted = Some(Counted::new(memory.buffer.bytes().len()));
        }
    }

    /// The result as a value that traces can use.
    pub fn into_value(self, scalar: bool) -> Value {
        if scalar {
            let mut bits = [0u8; 8];
            let bytes = self.0.bytes();
            let length = bytes.len().min(8);
            bits[..length].copy_from_slice(&bytes[..length]);
            return Value::Scalar(u64::from_le_bytes(bits));
        }
        Value::Array(Arc::new(Shared(self.0)))
    }
}

/// A result that serves as a captured array.
#[derive(Debug)]
pub struct Shared(pub Arc<Memory>);

impl HostArray for Shared {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        if self.0.is_counted() { 0 } else { self.0.bytes().len() }
    }

    fn is_ours(&self) -> bool {
        true
    }
}
