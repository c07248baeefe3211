//! The source lines of one graph by name, for texts and pictures that outlive its trace.

use std::collections::BTreeMap;

use ckad_graph::Graph;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::lines::Lines;

/// Names of lines.
pub struct Places {
    /// `file:line` by line id; "" where it is not known.
    texts: FxHashMap<u32, String>,
    /// The working directory, whose files have short names.
    folder: String,
}

impl Places {
    pub fn new(py: Python<'_>, graph: &Graph, lines: &Lines) -> Places {
        let folder = std::env::current_dir().map(|path| format!("{}/", path.display())).unwrap_or_default();
        let mut places = Places { texts: FxHashMap::default(), folder };
        places.add(py, graph, lines);
        places
    }

    /// Adds the lines of a body.
    pub fn add(&mut self, py: Python<'_>, graph: &Graph, lines: &Lines) {
        for id in graph.ids() {
            let line = graph.attributes(id).line;
            self.texts.entry(line).or_insert_with(|| lines.text(py, line));
        }
    }

    pub fn text(&self, line: u32) -> &str {
        self.texts.get(&line).map_or("", String::as_str)
    }

    /// Files below the working directory by their short name.
    pub fn short(&self, line: u32) -> &str {
        let text = self.text(line);
        text.strip_prefix(&self.folder).unwrap_or(text)
    }

    /// The distinct lines in the order of the source, and the index of each id's. What is unknown comes first.
    pub fn rows(&self) -> (Vec<&str>, FxHashMap<u32, usize>) {
        let unknown = ("", 0);
        let mut sorted: BTreeMap<(&str, u32), &str> = BTreeMap::from([(unknown, "")]);
        sorted.extend(self.texts.values().map(|text| (parts(text), text.as_str())));
        let index: FxHashMap<(&str, u32), usize> =
            sorted.keys().enumerate().map(|(index, &place)| (place, index)).collect();
        let of_line = self.texts.iter().map(|(&line, text)| (line, index[&parts(text)])).collect();
        (sorted.into_values().collect(), of_line)
    }
}

/// File and line number of `file:line`.
pub fn parts(text: &str) -> (&str, u32) {
    text.rsplit_once(':').map_or((text, 0), |(file, line)| (file, line.parse().unwrap_or(0)))
}
