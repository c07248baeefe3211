//! What a run gives: memory that a NumPy array or a trace takes over without a copy.

use std::sync::Arc;

use ckad_graph::HostArray;
use ckad_run::OutputBuffer;

use crate::value::Value;

/// A result of a run.
pub struct Output(pub Arc<OutputBuffer>);

impl Output {
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
pub struct Shared(pub Arc<OutputBuffer>);

impl HostArray for Shared {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        self.0.bytes().len()
    }
}
