//! Formulas on [`Expr`]: operators, constants, and the structural steps that derivative rules take.
//!
//! The methods named as rows of the elementwise table (`x.exp()`, `c.lmul(t)`) follow from the table.

use std::ops::{Add, Div, Mul, Neg, Sub};

use ckad_graph::{DType, DotAxes, NodeId, Op, ReduceKind, Result, StartId};

use crate::shape::{repeated_axes, with_ones};
use crate::{Builder, Expr};

macro_rules! operator {
    ($($trait:ident $method:ident $row:ident),*) => {$(
        impl<'b> $trait for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                Expr::$row(self, other)
            }
        }
        impl<'b> $trait<f64> for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: f64) -> Expr<'b> {
                Expr::$row(self, self.constant(other))
            }
        }
        impl<'b> $trait<Expr<'b>> for f64 {
            type Output = Expr<'b>;
            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                Expr::$row(other.constant(self), other)
            }
        }
    )*};
}
operator!(Add add add, Sub sub subtract, Mul mul multiply, Div div divide);

impl<'b> Neg for Expr<'b> {
    type Output = Expr<'b>;
    fn neg(self) -> Expr<'b> {
        self.negative()
    }
}

impl<'b> Expr<'b> {
    pub fn dtype(self) -> DType {
        self.builder.dtype(self.id)
    }

    pub fn shape(self) -> Vec<i64> {
        self.builder.shape(self.id)
    }

    /// The scalar `value` in this dtype: a literal where an f32 holds it, else an entry of the table of scalars.
    #[must_use]
    pub fn constant(self, value: f64) -> Expr<'b> {
        self.builder.constant(self.dtype(), value, self.id)
    }

    /// The value of a literal.
    pub fn literal_value(self) -> Option<f32> {
        match self.builder.graph().op(self.id) {
            Op::Literal(bits) => Some(f32::from_bits(bits)),
            _ => None,
        }
    }

    fn then(self, node: impl FnOnce(&'b Builder, NodeId) -> Result<NodeId>) -> Expr<'b> {
        self.builder.settle(node(self.builder, self.id), self.id)
    }

    #[must_use]
    pub fn zeros_like(self) -> Expr<'b> {
        let (dtype, shape) = (self.dtype(), self.shape());
        self.then(|b, _| b.zeros(dtype, &shape))
    }

    #[must_use]
    pub fn cast(self, dtype: DType) -> Expr<'b> {
        self.then(|b, x| b.cast(x, dtype))
    }

    #[must_use]
    pub fn reshape(self, shape: &[i64]) -> Expr<'b> {
        self.then(|b, x| b.reshape(x, shape))
    }

    #[must_use]
    pub fn transpose(self, perm: &[usize]) -> Expr<'b> {
        self.then(|b, x| b.transpose(x, perm))
    }

    #[must_use]
    pub fn broadcast(self, shape: &[i64]) -> Expr<'b> {
        self.then(|b, x| b.broadcast(x, shape))
    }

    #[must_use]
    pub fn broadcast_like(self, other: Expr<'b>) -> Expr<'b> {
        if self.builder.same_shape(self.id, other.id) { self } else { self.broadcast(&other.shape()) }
    }

    #[must_use]
    pub fn reduce(self, kind: ReduceKind, axes: &[usize]) -> Expr<'b> {
        self.then(|b, x| b.reduce(kind, x, axes))
    }

    #[must_use]
    pub fn sum(self, axes: &[usize]) -> Expr<'b> {
        if axes.is_empty() { self } else { self.reduce(ReduceKind::Sum, axes) }
    }

    /// The transpose of broadcasting an array of `shape` to this one: sums over the axes of the repetition.
    #[must_use]
    pub fn sum_to(self, shape: &[i64]) -> Expr<'b> {
        {
            let graph = self.builder.graph();
            let own = graph.shape(self.id);
            // Derived graphs share the lists of their source.
            if std::ptr::eq(own, shape) || own == shape {
                return self;
            }
        }
        let own = self.shape();
        match repeated_axes(&own, shape) {
            Some(axes) => self.sum(&axes).reshape(shape),
            None => self.reshape(shape),
        }
    }

    /// The inverse of removing `axes` by a reduction: repeats along them up to `shape`.
    #[must_use]
    pub fn spread(self, axes: &[usize], shape: &[i64]) -> Expr<'b> {
        self.reshape(&with_ones(shape, axes)).broadcast(shape)
    }

    #[must_use]
    pub fn strided_read_at(self, shape: &[i64], strides: &[i64], start: StartId) -> Expr<'b> {
        self.then(|b, x| b.strided_read_at(x, shape, strides, start))
    }

    #[must_use]
    pub fn strided_read(self, shape: &[i64], strides: &[i64], start: i64) -> Expr<'b> {
        self.then(|b, x| b.strided_read(x, shape, strides, start))
    }

    #[must_use]
    pub fn strided_write_at(self, value: Expr<'b>, strides: &[i64], start: StartId) -> Expr<'b> {
        self.then(|b, x| b.strided_write_at(x, value.id, strides, start))
    }

    #[must_use]
    pub fn strided_write(self, value: Expr<'b>, strides: &[i64], start: i64) -> Expr<'b> {
        self.then(|b, x| b.strided_write(x, value.id, strides, start))
    }

    #[must_use]
    pub fn strided_add_at(self, value: Expr<'b>, strides: &[i64], start: StartId) -> Expr<'b> {
        self.then(|b, x| b.strided_add_at(x, value.id, strides, start))
    }

    #[must_use]
    pub fn pad(self, fill: Expr<'b>, widths: &[(i64, i64)]) -> Expr<'b> {
        self.then(|b, x| b.pad(x, fill.id, widths))
    }

    #[must_use]
    pub fn gather(self, indices: &[Expr<'b>]) -> Expr<'b> {
        self.then(|b, x| b.gather(x, &ids(indices)))
    }

    #[must_use]
    pub fn scatter_set(self, value: Expr<'b>, indices: &[Expr<'b>]) -> Expr<'b> {
        self.then(|b, x| b.scatter_set(x, value.id, &ids(indices)))
    }

    #[must_use]
    pub fn scatter_add(self, value: Expr<'b>, indices: &[Expr<'b>]) -> Expr<'b> {
        self.then(|b, x| b.scatter_add(x, value.id, &ids(indices)))
    }

    #[must_use]
    pub fn cumulative_sum(self, axis: usize, reverse: bool) -> Expr<'b> {
        self.then(|b, x| b.cumulative_sum(x, axis, reverse))
    }

    /// The recurrence with coefficients `self` and additions `b`, its products absorbing.
    #[must_use]
    pub fn linear_recurrence(self, b: Expr<'b>, axis: usize, reverse: bool) -> Expr<'b> {
        self.then(|builder, a| builder.linear_recurrence(a, b.id, axis, reverse, true))
    }

    /// A dot product that is linear in one side: its products absorb.
    #[must_use]
    pub fn linear_dot(self, other: Expr<'b>, axes: &DotAxes) -> Expr<'b> {
        self.then(|b, x| b.dot(x, other.id, axes, true))
    }

    #[must_use]
    pub fn accumulate(self, addend: Expr<'b>) -> Expr<'b> {
        self.then(|b, x| b.accumulate(x, addend.id))
    }
}

pub(crate) fn ids(list: &[Expr<'_>]) -> Vec<NodeId> {
    list.iter().map(|expr| expr.id).collect()
}
