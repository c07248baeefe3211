//! Derivatives of elementwise nodes: the `d` field of the rows, the coefficients that rows share, and the transposes
//! of the five rows that derivative rules use linearly.

use ckad_graph::{Error, Result};

use super::Elementwise;
use crate::Expr;
use crate::context::{Diff, Transpose};

/// The tangent of the result for the tangent of one operand.
type Rule<'b, const N: usize> = fn([Expr<'b>; N], Expr<'b>, Expr<'b>) -> Expr<'b>;

fn rule<'b, const N: usize>(rule: Rule<'b, N>) -> Option<Rule<'b, N>> {
    Some(rule)
}

/// The `d` field as an array with a rule or nothing per operand.
macro_rules! rules {
    ($arity:tt constant) => { [None; $arity] };
    ($arity:tt [$($d:tt)*]) => { rules!(@list [] $($d)*) };
    (@list [$($done:tt)*]) => { [$($done)*] };
    (@list [$($done:tt)*] none $(, $($rest:tt)*)?) => { rules!(@list [$($done)* None,] $($($rest)*)?) };
    (@list [$($done:tt)*] $rule:expr $(, $($rest:tt)*)?) => { rules!(@list [$($done)* rule($rule),] $($($rest)*)?) };
}

fn apply<'b, const N: usize>(
    rules: [Option<Rule<'b, N>>; N],
    operands: &[Expr<'b>],
    out: Expr<'b>,
    index: usize,
    tangent: Expr<'b>,
) -> Option<Expr<'b>> {
    let operands: [Expr<'b>; N] = operands.try_into().ok()?;
    rules[index].map(|rule| rule(operands, out, tangent))
}

macro_rules! define {
    ($( $(#[doc = $doc:literal])* $variant:ident $name:ident ($arity:tt) {
        dtypes: $dtypes:ident, result: $result:ident, cpu: $cpu:path, wgsl: $wgsl:literal, d: $d:tt,
        cost: $cost:literal, sample: $sample:tt, numpy: $numpy:literal,
    } )*) => {
        /// What operand `index` with `tangent` contributes to the tangent of `out`.
        fn contribution<'b>(
            row: Elementwise,
            operands: &[Expr<'b>],
            out: Expr<'b>,
            index: usize,
            tangent: Expr<'b>,
        ) -> Option<Expr<'b>> {
            match row {
                $(Elementwise::$variant => apply::<$arity>(rules!($arity $d), operands, out, index, tangent),)*
            }
        }
    };
}
elementwise_table! { define }

/// The sum of the operands' contributions, of the shape of `out`.
pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, row: Elementwise) -> Result<Option<Expr<'b>>> {
    if row == Elementwise::Select
        && let [condition, _, _] = at.operands
        && let [_, Some(a), Some(b)] = at.tangents
    {
        // One choice between both tangents instead of a sum of two choices.
        return Ok(Some(condition.select(*a, *b).broadcast_like(at.out)));
    }
    let mut sum: Option<Expr<'b>> = None;
    for (index, tangent) in at.tangents.iter().enumerate() {
        let Some(tangent) = *tangent else { continue };
        if let Some(part) = contribution(row, at.operands, at.out, index, tangent) {
            sum = Some(sum.map_or(part, |sum| sum + part));
        }
    }
    Ok(sum.map(|tangent| tangent.broadcast_like(at.out)))
}

/// Only the rows that rules apply to tangents are ever transposed; the others are not linear.
pub(crate) fn transpose<'b>(at: &mut Transpose<'_, 'b>, row: Elementwise) -> Result<()> {
    let cotangent = at.cotangent;
    match row {
        Elementwise::Add => {
            at.add_summed(0, cotangent);
            at.add_summed(1, cotangent);
        }
        Elementwise::Subtract => {
            at.add_summed(0, cotangent);
            at.subtract_summed(1, cotangent);
        }
        Elementwise::Negative => at.subtract_summed(0, cotangent),
        Elementwise::Lmul => {
            let coefficient = at.coefficient(0)?;
            at.add_summed(1, coefficient.lmul(cotangent));
        }
        Elementwise::Select => {
            let condition = at.coefficient(0)?;
            let zero = cotangent.constant(0.0);
            if at.is_linear(1) {
                at.add_summed(1, condition.select(cotangent, zero));
            }
            if at.is_linear(2) {
                at.add_summed(2, condition.select(zero, cotangent));
            }
        }
        _ => return Err(Error::internal(row.name(), "it is not linear, but a tangent passes through it")),
    }
    Ok(())
}

/// Coefficients that several rows share.
impl<'b> Expr<'b> {
    /// 1, ½ or 0 in the dtype of `self`: the share of an operand that attains an extremum, with the other or alone.
    fn share_of(self, attains: Expr<'b>, other_attains: Expr<'b>) -> Expr<'b> {
        let shared = other_attains.select(self.constant(0.5), self.constant(1.0));
        attains.select(shared, self.constant(0.0))
    }

    /// `self` is `maximum(self, other)`; a NaN is greater than all numbers.
    fn is_maximum(self, other: Expr<'b>) -> Expr<'b> {
        self.greater_equal(other).or_nan(self)
    }

    fn is_minimum(self, other: Expr<'b>) -> Expr<'b> {
        self.less_equal(other).or_nan(self)
    }

    /// `self` is `fmax(self, other)`; a NaN is less than all numbers.
    fn is_fmax(self, other: Expr<'b>) -> Expr<'b> {
        self.greater_equal(other).or_nan(other)
    }

    fn is_fmin(self, other: Expr<'b>) -> Expr<'b> {
        self.less_equal(other).or_nan(other)
    }

    /// `self` or `x` is NaN; a literal number (relu's 0) need not be asked.
    fn or_nan(self, x: Expr<'b>) -> Expr<'b> {
        if x.literal_value().is_some_and(|value| !value.is_nan()) { self } else { self.logical_or(x.isnan()) }
    }

    /// `self` to the power y − 1. A literal y stays one, so that x³ has x² for its derivative's factor.
    fn power_below(self, y: Expr<'b>) -> Expr<'b> {
        match y.literal_value() {
            Some(2.0) => self,
            Some(1.0) => self.constant(1.0),
            Some(value) => self.power(self.constant(f64::from(value) - 1.0)),
            None => self.power(y - 1.0),
        }
    }

    /// `tangent` / hypot(self, other)², dividing last so that the origin gives 0.
    fn over_hypot_twice(self, other: Expr<'b>, tangent: Expr<'b>) -> Expr<'b> {
        let inverse = self.hypot(other).reciprocal();
        inverse.lmul(inverse.lmul(tangent))
    }

    /// `self` − `other`, and 0 between equal infinities.
    fn gap(self, other: Expr<'b>) -> Expr<'b> {
        let equal_infinities = self.equal(other).logical_and(self.isinf());
        equal_infinities.select(self.constant(0.0), self - other)
    }
}
