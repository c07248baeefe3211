//! The graph that `ckad.trace` returns: readable as text, drawable with Graphviz.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use ckad_graph::{ErrorKind, Graph, NodeText, Op, print_graph, shape_text};
use pyo3::prelude::*;

use crate::errors::{self, refusal};
use crate::lines::LineTable;
use crate::trace::Recorded;

/// A recorded graph.
#[pyclass(frozen, module = "ckad", name = "Graph")]
pub struct GraphView {
    graph: Graph,
    /// Text of each line id that the graph uses, by id.
    lines: rustc_hash::FxHashMap<u32, String>,
}

/// `file:line` of every line that a graph's nodes name; files below the working directory by their short name.
pub fn line_texts(py: Python<'_>, graph: &Graph, lines: &LineTable) -> rustc_hash::FxHashMap<u32, String> {
    let folder = std::env::current_dir().map(|path| format!("{}/", path.display())).unwrap_or_default();
    let mut texts = rustc_hash::FxHashMap::default();
    for id in graph.ids() {
        let line = graph.attributes(id).line;
        texts.entry(line).or_insert_with(|| {
            let text = lines.text(py, line);
            text.strip_prefix(&folder).map(str::to_owned).unwrap_or(text)
        });
    }
    texts
}

impl GraphView {
    pub fn new(py: Python<'_>, recorded: Recorded) -> PyResult<GraphView> {
        let graph = ckad_transform::extract(&recorded.graph, &recorded.graph.outputs).map_err(errors::raise)?;
        let lines = recorded.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let lines = line_texts(py, &graph, &lines);
        Ok(GraphView { graph, lines })
    }

    fn line(&self, id: u32) -> &str {
        self.lines.get(&id).map_or("", String::as_str)
    }

    fn dot(&self) -> String {
        let mut dot = String::from("digraph ckad {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n");
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            let label = format!(
                "%{} {}\\n{}{}\\n{}",
                id.0,
                escaped(&ckad_prim::op_name(node.op)),
                node.dtype,
                shape_text(self.graph.shape(id)),
                escaped(self.line(node.attributes.line))
            );
            let style = match node.op {
                Op::Input(_) => ", style=filled, fillcolor=lightblue",
                _ if self.graph.outputs.contains(&id) => ", style=filled, fillcolor=lightyellow",
                _ => "",
            };
            let _ = writeln!(dot, "  n{} [label=\"{label}\"{style}];", id.0);
            for operand in self.graph.operands(id) {
                let _ = writeln!(dot, "  n{} -> n{};", operand.0, id.0);
            }
        }
        dot.push_str("}\n");
        dot
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
        let text = NodeText { op: &ckad_prim::op_name, line: &|id| self.line(id).to_owned() };
        errors::text(py, &print_graph(&self.graph, &text).map_err(errors::raise)?)
    }

    fn __repr__(&self) -> String {
        format!("<ckad.Graph of {} nodes, {} outputs>", self.graph.len(), self.graph.outputs.len())
    }

    /// The graph in Graphviz' language.
    fn to_dot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        errors::text(py, &self.dot())
    }

    /// The graph as SVG, drawn by Graphviz' `dot`.
    fn to_svg(&self, py: Python<'_>) -> PyResult<String> {
        let dot = self.dot();
        let hint = "install Graphviz, or use print(graph) or to_dot()";
        py.detach(|| draw(&dot)).map_err(|what| refusal(ErrorKind::Missing, "trace", what, hint))
    }

    fn _repr_svg_(&self, py: Python<'_>) -> PyResult<String> {
        self.to_svg(py)
    }
}

fn draw(dot: &str) -> Result<String, String> {
    let missing = |error: std::io::Error| format!("cannot run Graphviz' dot: {error}");
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(missing)?;
    let Some(mut input) = child.stdin.take() else { return Err("dot has no input".to_owned()) };
    let text = dot.to_owned();
    // dot may answer before it has read everything: write from a thread of its own.
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(missing)?;
    let written = writer.join().unwrap_or(Ok(()));
    if !output.status.success() || written.is_err() {
        return Err(format!("dot ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("dot wrote no text: {error}"))
}
