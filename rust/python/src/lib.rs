//! The Python boundary: the module `ckad._core`. Only this crate knows Python.
//!
//! A call runs through it in this order.
//!
//! * `trace` opens a `tape` and makes a `tracer` of each argument. `convert` reads NumPy's arrays, `capture` keeps
//!   those that the function takes from outside, a `value` is what is known of either; `lines` notes the user's source
//!   line, and a number of the program text is recorded once (`numbers`).
//! * The user's function records. What Python sees of a tracer is `class`, `class_of_arrays` and `elements`; all values
//!   are of classes derived from these (`leaf`), whose hottest slots (`leaf_slots`) do at once what is commonest.
//!   Behind them are `operators`, `ufunc`, `function` (NumPy's functions, which the Python layer composes from
//!   `primitives` and `primitive_arrays`; the plainest calls take `shortcuts`), and `index` with `indexing`. They bring
//!   their operands together (`operand`) and record by kind: `elementwise` (`plain`, where there is nothing to bring
//!   together), `reductions`, `dot`, `shapes`; `repeated` is what was inferred before. `storage` and `layout` make
//!   views alias as NumPy's do. What each of them touches is `guarded` by the interpreter's lock.
//!   `random` records drawn bits, `loops` the bodies of scans, branches and rules of the user's own.
//! * Where Python needs a number, `values` asks `force` to run what is pending.
//! * `finish` transforms the recorded graph (`kind`) and either splices it into an enclosing trace or has `built` find
//!   or make a program, which `execute` runs, both under `boundary` (no GIL, Ctrl-C; `main_thread` says where that is
//!   heard). `ask` is what the user wants of a plan, `limited` keeps runs inside a trace with a limit to what is left
//!   of it, `chosen` asks a policy of the user's. A `result` is what a run leaves. `linearised` splits a linearisation
//!   in two programs, `linear_map` is what `vjp` and `linearize` return. `jit` keeps recorded graphs and runs them
//!   again without recording.
//! * Beside the run: `graph_view` shows the graph, `plan_view` the plan (`looked_at` what it is explained from,
//!   `made_inside` the arrays that were made while it was traced), both by the names of source lines (`places`);
//!   `profile` shows where memory goes, `watching` where derivatives met infinities, `table` the table of primitives.
//!   `errors` is the one mapping to Python's exceptions.

mod alive;
mod ask;
mod boundary;
mod built;
mod capture;
mod chosen;
mod class;
mod class_of_arrays;
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
mod guarded;
mod index;
mod indexing;
mod jit;
mod kind;
mod layout;
mod leaf;
mod leaf_slots;
mod limited;
mod linear_map;
mod linearised;
mod lines;
mod looked_at;
mod loops;
mod made_inside;
mod main_thread;
mod numbers;
mod operand;
mod operators;
mod places;
mod plain;
mod plan_view;
mod primitive_arrays;
mod primitives;
mod profile;
mod random;
mod reductions;
mod repeated;
mod result;
mod shapes;
mod shortcuts;
mod storage;
mod table;
mod tape;
mod trace;
mod tracer;
mod ufunc;
mod value;
mod values;
mod watching;

use ckad_run::{Counted, Reserve};
use pyo3::prelude::*;

/// Refused small blocks come from a reserve, and the next poll raises; what planning holds is counted.
#[global_allocator]
static ALLOCATOR: Counted<Reserve> = Counted(Reserve::new(std::alloc::System));

/// Tests lower what the reserve serves, so that short programs meet the refusals of long ones.
fn lower_reserve() {
    let bytes = std::env::var("CKAD_RESERVED_BYTES").ok().and_then(|text| text.parse().ok());
    if let Some(bytes) = bytes {
        ALLOCATOR.0.set_largest(bytes);
    }
}

/// Frees the idle arena and forgets every program.
#[pyfunction]
fn release() {
    built::clear_cache();
    jit::forget_programs();
    ckad_run::release();
}

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    lower_reserve();
    leaf::register(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    primitives::register(module)?;
    primitive_arrays::register(module)?;
    random::register(module)?;
    module.add_class::<trace::Trace>()?;
    module.add_class::<trace::Region>()?;
    module.add_function(wrap_pyfunction!(trace::keep, module)?)?;
    module.add_function(wrap_pyfunction!(trace::together, module)?)?;
    module.add_class::<graph_view::GraphView>()?;
    module.add_class::<plan_view::PlanView>()?;
    module.add_class::<plan_view::Planning>()?;
    module.add("Planned", module.py().get_type::<plan_view::Planned>())?;
    module.add_class::<profile::Profiling>()?;
    module.add_class::<watching::Watching>()?;
    module.add_class::<linear_map::LinearMap>()?;
    module.add_class::<loops::Body>()?;
    module.add_function(wrap_pyfunction!(loops::scan, module)?)?;
    module.add_function(wrap_pyfunction!(loops::while_loop, module)?)?;
    module.add_function(wrap_pyfunction!(loops::cond, module)?)?;
    module.add_function(wrap_pyfunction!(loops::custom, module)?)?;
    jit::register(module)?;
    module.add_function(wrap_pyfunction!(release, module)?)?;
    module.add_function(wrap_pyfunction!(chosen::register_policy, module)?)?;
    module.add_function(wrap_pyfunction!(built::building, module)?)?;
    module.add_function(wrap_pyfunction!(table::elementwise_table, module)?)?;
    module.add_function(wrap_pyfunction!(ufunc::ufunc_names, module)?)?;
    Ok(())
}
