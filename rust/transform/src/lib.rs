//! Transforms: a graph in, a graph out, one interpreter per file.
//!
//! * [`cone`]: the part of a graph that computes wanted values from known ones; [`extract`]: what outputs reach.
//! * [`splice`] copies a graph into one under construction; [`settle`] puts such a graph into execution order.
//! * [`jvp`] pushes tangents through the primitives' `diff` rules; [`vjp`] and [`value_and_grad`] transpose what `jvp`
//!   built (`transpose`); [`partition`] separates what is known from what is not;
//!   [`compute_again`] keeps the arguments alone, and has all else computed a second time.
//! * [`simplify`] merges what is equal, shortens what computes nothing (`rewrite`), drops what is dead, and moves
//!   derivative coefficients to where they are used (`sink`, which `partition` shares). `drawn` says which values are
//!   made of random bits alone: they are drawn again on the other side of a partition, not handed over.
//! * Loops have bodies of their own (`body`): [`Closed`] makes one, `calls` derives them (`scan`,
//!   `looped`, `branch`), `prune` leaves out what nobody asks for.
//! * Functions with derivatives of the user's own stand as calls with their rules (`custom`) until [`without_customs`].
//! * [`absorbed`]: a derived graph that says where its products absorbed a number that is not finite.
//! * `copy` is what all of them share.
//!
//! Every result is in the execution order of the policy that keeps everything: pass after pass, even passes up the
//! tape, odd ones down. Every walk is a loop over indices, and linear.

mod absorbed;
mod again;
mod body;
mod branch;
mod calls;
mod close;
mod cone;
mod copy;
mod custom;
mod drawn;
mod extract;
mod jvp;
mod looped;
mod partition;
mod prune;
mod rewrite;
mod scan;
mod settle;
mod simplify;
mod sink;
mod splice;
mod transpose;
mod vjp;

pub use absorbed::{Absorbed, absorbed};
pub use again::compute_again;
pub use body::{used_in_loop, used_inputs, with_inputs};
pub use close::{Closed, Outside};
pub use cone::{Cone, cone};
pub use custom::{is_for_reverse_mode, without_customs};
pub use extract::extract;
pub use jvp::{jvp, linearize};
pub use partition::{Partition, Side, kept, partition, partition_by_regions};
pub use settle::settle;
pub use simplify::{simplify, simplify_keeping_zeros};
pub use splice::splice;
pub use vjp::{value_and_grad, vjp};
