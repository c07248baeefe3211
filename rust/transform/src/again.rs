//! The other way to split a linearisation ([`crate::partition`](mod@crate::partition) is the first): the linear part
//! keeps the arguments alone and computes all else again, for policies to plan as they plan a gradient.

use ckad_graph::{Error, Graph, Result, interrupt, tables};

use crate::copy::{Copy, reached};
use crate::partition::{Partition, Side};

/// Splits `whole`, the values of `function` followed by their derivatives: the function as it is, and the derivatives
/// with all that they need. The residuals are those arguments that these read.
pub fn compute_again(function: &Graph, whole: &Graph) -> Result<Partition> {
    let op = "partition";
    let (arguments, values) = (function.inputs.len(), function.outputs.len());
    let (Some(given), Some(derivatives)) = (whole.inputs.get(arguments..), whole.outputs.get(values..)) else {
        return Err(Error::internal(op, "a derivative has fewer inputs or outputs than its function"));
    };
    let live = reached(op, whole, derivatives.iter().copied())?;
    let read = whole.inputs[..arguments].iter().map(|input| live[input.index()]);
    let read: Vec<usize> = tables::list(op, read.enumerate().filter(|&(_, read)| read).map(|(index, _)| index))?;

    let mut known = function.copied()?;
    let residuals = read.iter().map(|&index| function.inputs[index]);
    tables::extend(op, &mut known.outputs, residuals)?;

    let mut unknown = whole.derived()?;
    let mut copy = Copy::new(op, whole)?;
    let inputs = read.iter().map(|&index| whole.inputs[index]).chain(given.iter().copied());
    for input in inputs {
        copy.input(&mut unknown, whole, input)?;
    }
    for id in whole.ids().filter(|id| live[id.index()]) {
        interrupt::check_at(id.index())?;
        copy.node(&mut unknown, whole, id, whole.attributes(id))?;
    }
    unknown.outputs = copy.all(derivatives)?;

    let known_sides = (0..values).map(Side::Known);
    let outputs = tables::list(op, known_sides.chain((0..derivatives.len()).map(Side::Unknown)))?;
    let flops = function.ids().map(|id| ckad_prim::cost(function, id).flops);
    let repeated_flops = flops.fold(0u64, u64::saturating_add);
    Ok(Partition { known, unknown, outputs, residuals: read.len(), repeated_flops })
}
