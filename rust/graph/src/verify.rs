//! Rules that hold for every graph whatever its operations mean. `ckad_prim::verify` adds re-inference.

use crate::{Error, Graph, Op, Result, interrupt};

/// Checks what any stage may rely on; the error names the node that breaks a rule.
pub fn verify_structure(graph: &Graph) -> Result<()> {
    let fail = |what: String| Err(Error::internal("verify", what));
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        for operand in graph.operands(id) {
            if operand.0 >= id.0 {
                return fail(format!("%{} uses %{}, which does not precede it", id.0, operand.0));
            }
        }
        let out_of_table = match graph.op(id) {
            Op::Input(index) => graph.inputs.get(index as usize) != Some(&id),
            Op::Scalar(index) => index as usize >= graph.scalars.len(),
            Op::Constant(index) => index as usize >= graph.constants.len(),
            Op::StridedRead { start, .. } | Op::StridedWrite { start, .. } | Op::StridedAdd { start, .. } => {
                start.0 as usize >= graph.starts.len()
            }
            Op::Call(call) => call.0 as usize >= graph.calls.len(),
            _ => false,
        };
        if out_of_table {
            return fail(format!("%{} ({:?}) refers outside its table", id.0, graph.op(id)));
        }
        if graph.attributes(id).region.0 as usize >= graph.regions.len() {
            return fail(format!("%{} is in an unknown region", id.0));
        }
    }
    match graph.outputs.iter().find(|output| output.index() >= graph.len()) {
        Some(output) => fail(format!("output %{} does not exist", output.0)),
        None => Ok(()),
    }
}
