//! A graph as readable text: a line per node.

use std::fmt::Write;

use crate::graph::shape_text;
use crate::{Error, Graph, NodeId, Op, Result};

/// How the printer names what this crate cannot know: operations and source lines.
pub struct NodeText<'a> {
    pub op: &'a dyn Fn(Op) -> String,
    /// `file:line` of a line id, or an empty string.
    pub line: &'a dyn Fn(u32) -> String,
}

/// One line per node: name, operation, operands, parameters, dtype and shape, source line.
pub fn print_graph(graph: &Graph, text: &NodeText<'_>) -> Result<String> {
    let mut out = String::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let shape = shape_text(graph.shape(id));
        let operands = graph.operands(id).iter().map(|o| format!("%{}", o.0)).collect::<Vec<_>>().join(", ");
        let line = (text.line)(node.attributes.line);
        let parameters = parameters(graph, id);
        let body = format!("%{} = {}({operands}){parameters}", id.0, (text.op)(node.op));
        let mut whole = format!("{body:<48} {}{shape:<12}", node.dtype);
        if !line.is_empty() {
            let _ = write!(whole, "  # {line}");
        }
        append(&mut out, whole.trim_end())?;
    }
    let outputs = graph.outputs.iter().map(|o| format!("%{}", o.0)).collect::<Vec<_>>().join(", ");
    append(&mut out, &format!("return {outputs}"))?;
    Ok(out)
}

/// Appends a line to a text that grows with the graph.
fn append(out: &mut String, line: &str) -> Result<()> {
    let bytes = out.len() + line.len() + 1;
    out.try_reserve(line.len() + 1).map_err(|_| Error::memory("print", bytes))?;
    out.push_str(line);
    out.push('\n');
    Ok(())
}

fn parameters(graph: &Graph, id: NodeId) -> String {
    let list = |list| shape_text(graph.lists.get(list));
    match graph.op(id) {
        Op::Input(index) => format!(" [{index}]"),
        Op::Literal(bits) => format!(" {}", f32::from_bits(bits)),
        Op::Scalar(index) => {
            let dtype = graph.dtype(id);
            let bits = graph.scalars[index as usize];
            if dtype.is_float() {
                format!(" {}", dtype.f64_of_bits(bits))
            } else {
                format!(" {}", dtype.i64_of_bits(bits))
            }
        }
        Op::Constant(index) => format!(" [{index}]"),
        Op::Iota { axis } | Op::Concatenate { axis } | Op::Argsort { axis } | Op::ArgReduce { axis, .. } => {
            format!(" axis={axis}")
        }
        Op::CumulativeSum { axis, reverse } | Op::LinearRecurrence { axis, reverse, .. } => {
            format!(" axis={axis}{}", if reverse { " reverse" } else { "" })
        }
        Op::Transpose { perm } => format!(" axes={}", list(perm)),
        Op::StridedRead { strides, start }
        | Op::StridedWrite { strides, start }
        | Op::StridedAdd { strides, start } => {
            format!(" start={} strides={}", graph.starts[start.0 as usize], list(strides))
        }
        Op::Pad { widths } => format!(" widths={}", list(widths)),
        Op::Reduce { axes, .. } => format!(" axes={}", list(axes)),
        Op::Dot { axes, .. } => format!(" axes={}", list(axes)),
        _ => String::new(),
    }
}
