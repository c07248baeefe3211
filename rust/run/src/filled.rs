//! Memory that is written once, where it is made: snapshots of arrays, zeros.

use ckad_graph::{Error, Result};

use crate::block::Block;

/// An owned range of bytes that no longer change, 64-byte aligned.
#[derive(Debug)]
pub struct Filled(Block);

impl Filled {
    /// A copy, for `op`, which names the error.
    pub fn copied(op: &str, bytes: &[u8]) -> Result<Filled> {
        let block = Block::new(op, bytes.len())?;
        // SAFETY: the block has that many bytes and is nobody else's.
        unsafe { block.pointer().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(Filled(block))
    }

    /// That many zeros.
    pub fn zeros(op: &str, bytes: usize) -> Result<Filled> {
        let block = Block::new(op, bytes)?;
        // SAFETY: as above.
        unsafe { block.pointer().write_bytes(0, bytes) };
        Ok(Filled(block))
    }

    /// As many zeros, but for an element that begins at byte `at`.
    pub fn unit(op: &str, bytes: usize, at: usize, element: &[u8]) -> Result<Filled> {
        let filled = Filled::zeros(op, bytes)?;
        let end = at.checked_add(element.len()).filter(|end| *end <= bytes);
        let end = end.ok_or_else(|| Error::internal(op, format!("an element at {at} of {bytes} bytes")))?;
        // SAFETY: `at..end` lies in the block, which is nobody else's yet.
        unsafe { filled.0.pointer().add(at).copy_from_nonoverlapping(element.as_ptr(), end - at) };
        Ok(filled)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: every byte was written when the block was made, and nobody writes since.
        unsafe { std::slice::from_raw_parts(self.0.pointer(), self.0.bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_that_were_given() {
        assert_eq!(Filled::copied("test", &[3, 1, 2]).unwrap().bytes(), [3, 1, 2]);
        assert_eq!(Filled::zeros("test", 9).unwrap().bytes(), [0; 9]);
        assert_eq!(Filled::unit("test", 6, 2, &[7, 8]).unwrap().bytes(), [0, 0, 7, 8, 0, 0]);
        assert!(Filled::unit("test", 6, 5, &[7, 8]).is_err());
        assert!(Filled::copied("test", &[]).unwrap().bytes().is_empty());
    }
}
