//! The Python boundary: the module `ckad._core`. Only this crate knows Python.
//!
//! A call runs through it like this. `trace` opens a `tape` and makes `tracer`s of arguments; the user's function
//! records on it (`class`, `operators`, `ufunc`, `function`, `indexing`, on `storage` and `layout`), looking at values
//! by `force` where it must; `finish` transforms the recorded graph and either splices it into an enclosing trace
//! or has `execute` find, build and run a program; `convert` turns NumPy's arrays into values and results back.

mod boundary;
mod capture;
mod class;
mod convert;
mod dot;
mod elements;
mod elementwise;
mod errors;
mod execute;
mod finish;
mod force;
mod function;
mod graph_view;
mod index;
mod indexing;
mod layout;
mod linear_map;
mod lines;
mod operand;
mod operators;
mod plan_view;
mod primitive_arrays;
mod primitives;
mod profile;
mod reductions;
mod shapes;
mod storage;
mod table;
mod tape;
mod trace;
mod tracer;
mod ufunc;
mod value;
mod values;

use pyo3::prelude::*;

/// Frees the idle arena and forgets every cached program.
#[pyfunction]
fn release() {
    execute::clear_cache();
    ckad_run::release();
}

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    primitives::register(module)?;
    primitive_arrays::register(module)?;
    module.add_class::<trace::Trace>()?;
    module.add_class::<trace::Region>()?;
    module.add_class::<graph_view::GraphView>()?;
    module.add_class::<plan_view::PlanView>()?;
    module.add_class::<plan_view::Planning>()?;
    module.add("Planned", module.py().get_type::<plan_view::Planned>())?;
    module.add_class::<profile::Profiling>()?;
    module.add_class::<linear_map::LinearMap>()?;
    module.add_function(wrap_pyfunction!(release, module)?)?;
    module.add_function(wrap_pyfunction!(table::elementwise_table, module)?)?;
    Ok(())
}
