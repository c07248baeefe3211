//! The primitives.
mod builder;
pub use builder::{Builder, Expr};
