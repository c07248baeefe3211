//! The table of elementwise primitives as Python data: what the generated docs and the completeness test read.

use ckad_graph::DType;
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// One dictionary per row: its fields, and the dtypes that its operands may have.
#[pyfunction]
pub fn elementwise_table(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    Elementwise::ALL
        .iter()
        .map(|row| {
            let entry = PyDict::new(py);
            entry.set_item("name", row.name())?;
            entry.set_item("numpy", row.numpy())?;
            entry.set_item("doc", row.doc())?;
            entry.set_item("arity", row.arity())?;
            entry.set_item("cost", row.cost())?;
            entry.set_item("wgsl", row.wgsl())?;
            entry.set_item("sample", row.sample().to_vec())?;
            let dtypes = DType::ALL.iter().filter(|&&dtype| row.result_dtype(dtype).is_some());
            entry.set_item("dtypes", dtypes.map(|dtype| dtype.name()).collect::<Vec<_>>())?;
            Ok(entry)
        })
        .collect()
}
