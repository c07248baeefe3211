//! The graph that `ckad.trace` returns: readable as text, drawable with Graphviz.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ckad_graph::nested::{Visit, visit};
use ckad_graph::{
    ErrorKind, Graph, NodeId, NodeText, Op, Result, interrupt, node_name, print_graph, tables, threads, value_text,
};
use pyo3::prelude::*;

use crate::boundary::enter;
use crate::errors::{self, refusal};
use crate::places::Places;
use crate::trace::Recorded;

/// The operation whose errors these are.
const OP: &str = "trace";

/// A recorded graph.
#[pyclass(frozen, module = "ckad", name = "Graph")]
pub struct GraphView {
    graph: Graph,
    places: Places,
}

impl GraphView {
    pub fn new(py: Python<'_>, recorded: Recorded) -> PyResult<GraphView> {
        let recorded_graph = &recorded.graph;
        let graph = enter(py, || ckad_transform::extract(recorded_graph, &recorded_graph.outputs))?;
        let graph = graph.map_err(errors::raise)?;
        let mut places = Places::new(py, &graph, &recorded.lines);
        let bodies = visit(OP, &graph, |visit, within| match visit {
            Visit::Enter { graph: body, .. } if within.depth > 0 => {
                places.add(py, body, &recorded.lines);
                Ok(())
            }
            _ => Ok(()),
        });
        bodies.map_err(errors::raise)?;
        Ok(GraphView { graph, places })
    }

    fn printed(&self) -> Result<String> {
        print_graph(&self.graph, &NodeText { op: &ckad_prim::op_name, line: &|id| self.places.short(id).to_owned() })
    }

    /// Each body is a box of its own, behind a broken line from its loop or branch.
    fn dot(&self) -> Result<String> {
        let mut dot =
            String::from("digraph ckad {\n  rankdir=TB; compound=true;\n  node [shape=box, fontname=\"monospace\"];\n");
        let mut is_output = tables::filled(OP, false, self.graph.len())?;
        self.graph.outputs.iter().for_each(|output| is_output[output.index()] = true);
        // The numbers of the bodies around.
        let mut around = tables::list(OP, [0])?;
        visit(OP, &self.graph, |visit, within| {
            let indent = "  ".repeat(within.depth + 1);
            let name = |number: usize, id: NodeId| match number {
                0 => format!("n{}", id.0),
                _ => format!("b{number}n{}", id.0),
            };
            match visit {
                Visit::Enter { graph, node, name: title } => {
                    let caller = name(around.last().copied().unwrap_or(0), node);
                    let number = within.number;
                    tables::push(OP, &mut around, number)?;
                    if let Some(first) = graph.ids().next() {
                        let to = name(number, first);
                        let edge = format!("{indent}{caller} -> {to} [style=dashed, lhead=cluster_{number}];\n");
                        tables::write(OP, &mut dot, &edge)?;
                    }
                    let text = format!("{indent}subgraph cluster_{number} {{ label=\"{title} of %{}\";\n", node.0);
                    tables::write(OP, &mut dot, &text)
                }
                Visit::Leave { .. } => {
                    around.pop();
                    tables::write(OP, &mut dot, &format!("{}}}\n", &indent[2..]))
                }
                Visit::Node { graph, id, .. } => {
                    let node = graph.node(id);
                    let own = name(within.number, id);
                    let label = format!(
                        "%{} {}\\n{}\\n{}",
                        id.0,
                        escaped(&node_name(graph, id, &ckad_prim::op_name)),
                        value_text(graph, id),
                        escaped(self.places.short(node.attributes.line))
                    );
                    let style = match node.op {
                        Op::Input(_) => ", style=filled, fillcolor=lightblue",
                        _ if within.depth == 0 && is_output[id.index()] => ", style=filled, fillcolor=lightyellow",
                        _ => "",
                    };
                    tables::write(OP, &mut dot, &format!("{indent}{own} [label=\"{label}\"{style}];\n"))?;
                    for (index, &operand) in graph.operands(id).iter().enumerate() {
                        interrupt::check_at(index)?;
                        let from = name(within.number, operand);
                        tables::write(OP, &mut dot, &format!("{indent}{from} -> {own};\n"))?;
                    }
                    Ok(())
                }
            }
        })?;
        Ok(dot)
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[pymethods]
impl GraphView {
    fn __len__(&self) -> usize {
        self.graph.len()
    }

    fn __str__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        errors::text(py, &enter(py, || self.printed())?.map_err(errors::raise)?)
    }

    fn __repr__(&self) -> String {
        format!("<ckad.Graph of {} nodes, {} outputs>", self.graph.len(), self.graph.outputs.len())
    }

    /// The graph in Graphviz' language.
    fn to_dot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        errors::text(py, &enter(py, || self.dot())?.map_err(errors::raise)?)
    }

    /// The graph as SVG. It needs Graphviz: its program `dot` draws it.
    fn to_svg(&self, py: Python<'_>) -> PyResult<String> {
        let dot = enter(py, || self.dot())?.map_err(errors::raise)?;
        let hint = "install Graphviz, or use print(graph) or to_dot()";
        py.detach(|| draw(dot)).map_err(|what| refusal(ErrorKind::Missing, "trace", what, hint))
    }

    fn _repr_svg_(&self, py: Python<'_>) -> PyResult<String> {
        self.to_svg(py)
    }
}

fn draw(dot: String) -> Result<String, String> {
    let missing = |error: std::io::Error| format!("cannot run Graphviz' dot: {error}");
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(missing)?;
    let Some(mut input) = child.stdin.take() else { return Err("dot has no input".to_owned()) };
    // dot may answer before it has read everything: write from a thread of its own.
    let builder = std::thread::Builder::new().name("ckad-dot".into()).stack_size(threads::STACK);
    let writer = threads::can_start(1).then(|| builder.spawn(move || input.write_all(dot.as_bytes())));
    let Some(Ok(writer)) = writer else {
        // Without input it ends by itself.
        let _ = child.wait();
        return Err("no thread is to be had to write Graphviz' input".to_owned());
    };
    let output = child.wait_with_output().map_err(missing)?;
    let written = writer.join().unwrap_or(Ok(()));
    if !output.status.success() || written.is_err() {
        return Err(format!("dot ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("dot wrote no text: {error}"))
}
