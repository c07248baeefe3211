//! Numbers of the user's program: one that comes to the same place again is recorded once.
//!
//! A loop meets the same Python object at the same instruction in each step (`x * 0.1`, `x * dt`), and a node for each
//! time would be half of the graph. Sharing goes by identity, never by value: a number in the text of a program is an
//! input of it, so other values must find the same structure. For that reason a place where another object was met
//! once, as in a loop over a list of numbers, never shares again, in later traces neither: which steps meet the same
//! object could depend on values.

use std::sync::{Mutex, PoisonError};

use ckad_graph::{DType, NodeId, RegionId, Result, ScalarBits, tables};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::convert::scalar_node;
use crate::lines::{Lines, Spot};
use crate::tape::Tape;

/// Places where different objects were met, each with its code object, whose address is part of the place.
static VARYING: Mutex<Option<FxHashMap<Spot, Py<PyAny>>>> = Mutex::new(None);

/// Most places that are remembered. All are forgotten then, and found again.
const MOST_VARYING: usize = 4096;

/// The first number met at a place.
struct Met {
    /// Held, so that no other object has its address.
    object: Py<PyAny>,
    node: NodeId,
    dtype: DType,
    region: RegionId,
    exponent: bool,
    /// Another one was met.
    varies: bool,
}

/// What one tape met, by line id.
#[derive(Default)]
pub struct Numbers {
    met: FxHashMap<u32, Met>,
    /// Places that were forgotten, kept until the tape closes: Python may run when code objects go.
    forgotten: Vec<FxHashMap<Spot, Py<PyAny>>>,
}

/// A number as a node of `dtype`, of which it has these bits. `exponent`: it is the second operand of a power.
pub fn number_node(
    py: Python<'_>,
    tape: &mut Tape,
    object: &Py<PyAny>,
    dtype: DType,
    bits: ScalarBits,
    exponent: bool,
) -> Result<NodeId> {
    let line = tape.builder.attributes().line;
    let region = tape.region;
    let numbers = &mut tape.numbers;
    if let Some(met) = numbers.met.get_mut(&line) {
        if !met.varies && !met.object.is(object) {
            met.varies = true;
            if let Some(places) = note_varying(py, &tape.lines, line) {
                tables::push("record", &mut numbers.forgotten, places)?;
            }
        }
        let same = !met.varies && met.dtype == dtype && met.region == region && met.exponent == exponent;
        return if same { Ok(met.node) } else { scalar_node(tape, dtype, bits, exponent) };
    }
    let node = scalar_node(tape, dtype, bits, exponent)?;
    tables::room_for_keys("record", &mut tape.numbers.met, 1)?;
    let object = object.clone_ref(py);
    let varies = line == 0 || is_varying(py, &tape.lines, line);
    tape.numbers.met.insert(line, Met { object, node, dtype, region, exponent, varies });
    Ok(node)
}

fn is_varying(py: Python<'_>, lines: &Lines, line: u32) -> bool {
    let Some(spot) = lines.spot(py, line) else { return true };
    let varying = VARYING.lock().unwrap_or_else(PoisonError::into_inner);
    varying.as_ref().is_some_and(|varying| varying.contains_key(&spot))
}

/// Remembers the place, and returns those that were forgotten for it.
fn note_varying(py: Python<'_>, lines: &Lines, line: u32) -> Option<FxHashMap<Spot, Py<PyAny>>> {
    let (code, lasti) = lines.place(py, line)?;
    let mut varying = VARYING.lock().unwrap_or_else(PoisonError::into_inner);
    let places = varying.get_or_insert_default();
    let forgotten = (places.len() >= MOST_VARYING).then(|| std::mem::take(places));
    // Where there is no memory to remember it, the next trace finds it again.
    if places.try_reserve(1).is_ok() {
        places.insert((code.as_ptr() as usize, lasti), code.unbind());
    }
    forgotten
}
