//! The table of elementwise primitives: one row each, every field mandatory. Most of ckad follows from it.
//!
//! A row reads
//!
//! ```text
//! /// One sentence.                                   the documentation
//! Tanh tanh(1) {                                      variant, name (also the Expr method), number of operands
//!     dtypes: FLOAT,                                  FLOAT, NUMBER, INTEGER, BITS (INTEGER and bool) or ALL
//!     result: same,                                   dtype of the result: `same` as the operands, or `bool`
//!     cpu: math::tanh,                                the scalar function, in ckad-cpu's `math`
//!     wgsl: "ck_tanh(a)",                             the shader expression in the operands a, b, c
//!     d: [|[x], y, t| (1.0 - y * y).lmul(t)],         per operand: tangent of the result `y` for its tangent `t`
//!     cost: 12,                                       floating point operations an element
//!     sample: [(-3.0, 3.0)],                          per operand: a range where the function is smooth
//!     numpy: "tanh",                                  NumPy's name; "" where NumPy has no such function
//! }
//! ```
//!
//! `d: constant` says that no operand has a tangent; `none` in the list that this one has none. All operands of a
//! row have one dtype, except `select(condition: bool, a, b)`. Integers and bools never have tangents.
//!
//! A rule multiplies a tangent by [`lmul`](Elementwise::Lmul) only, coefficient first, so that an exact zero absorbs an
//! infinite coefficient, in all orders; a coefficient that is a product in which 0·∞ can occur is nested `lmul`s.
//!
//! The macro is expanded wherever something follows from the rows: `elementwise_table! { callback }` calls
//! `callback! { rows… }`, and a callback matches the rows it needs with
//!
//! ```text
//! $( $(#[doc = $doc:literal])* $variant:ident $name:ident ($arity:tt) {
//!     dtypes: $dtypes:ident, result: $result:ident, cpu: $cpu:path, wgsl: $wgsl:literal, d: $d:tt,
//!     cost: $cost:literal, sample: $sample:tt, numpy: $numpy:literal,
//! } )*
//! ```

/// Calls `$callback!` with the rows of the table.
#[macro_export]
macro_rules! elementwise_table {
    ($callback:ident) => {
        $callback! {
            // ── arithmetic ──────────────────────────────────────────────────────────────────────────────────────
            /// Sum; logical or of bools.
            Add add(2) {
                dtypes: ALL, result: same, cpu: math::add, wgsl: "a + b",
                d: [|_, _, t| t, |_, _, t| t],
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "add",
            }
            /// Difference.
            Subtract subtract(2) {
                dtypes: NUMBER, result: same, cpu: math::subtract, wgsl: "a - b",
                d: [|_, _, t| t, |_, _, t| -t],
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "subtract",
            }
            /// Product; logical and of bools.
            Multiply multiply(2) {
                dtypes: ALL, result: same, cpu: math::multiply, wgsl: "a * b",
                d: [|[_, y], _, t| y.lmul(t), |[x, _], _, t| x.lmul(t)],
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "multiply",
            }
            /// Quotient.
            Divide divide(2) {
                dtypes: FLOAT, result: same, cpu: math::divide, wgsl: "a / b",
                d: [|[_, y], _, t| y.reciprocal().lmul(t), |[_, y], out, t| -y.reciprocal().lmul(out.lmul(t))],
                cost: 4, sample: [(-3.0, 3.0), (0.5, 3.0)], numpy: "divide",
            }
            /// Product of derivative rules: 0 when either factor is 0, whatever the other. Linear in the second.
            Lmul lmul(2) {
                dtypes: FLOAT, result: same, cpu: math::lmul, wgsl: "ck_lmul(a, b)",
                d: [|[_, x], _, t| x.lmul(t), |[c, _], _, t| c.lmul(t)],
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "",
            }
            /// Minus x.
            Negative negative(1) {
                dtypes: NUMBER, result: same, cpu: math::negative, wgsl: "-a",
                d: [|_, _, t| -t],
                cost: 1, sample: [(-3.0, 3.0)], numpy: "negative",
            }
            /// Absolute value. Derivative 0 at 0.
            Absolute absolute(1) {
                dtypes: NUMBER, result: same, cpu: math::absolute, wgsl: "abs(a)",
                d: [|[x], _, t| x.sign().lmul(t)],
                cost: 1, sample: [(0.3, 3.0)], numpy: "absolute",
            }
            /// −1, 0 or 1; NaN of NaN.
            Sign sign(1) {
                dtypes: NUMBER, result: same, cpu: math::sign, wgsl: "sign(a)",
                d: constant,
                cost: 2, sample: [(-3.0, 3.0)], numpy: "sign",
            }
            /// 1/x.
            Reciprocal reciprocal(1) {
                dtypes: FLOAT, result: same, cpu: math::reciprocal, wgsl: "1.0 / a",
                d: [|_, y, t| -y.lmul(y.lmul(t))],
                cost: 4, sample: [(0.5, 3.0)], numpy: "reciprocal",
            }
            /// x².
            Square square(1) {
                dtypes: NUMBER, result: same, cpu: math::square, wgsl: "a * a",
                d: [|[x], _, t| (x + x).lmul(t)],
                cost: 1, sample: [(-3.0, 3.0)], numpy: "square",
            }
            /// Square root. Derivative ∞ at 0, absorbed by a tangent of exactly 0.
            Sqrt sqrt(1) {
                dtypes: FLOAT, result: same, cpu: math::sqrt, wgsl: "sqrt(a)",
                d: [|_, y, t| (0.5 / y).lmul(t)],
                cost: 4, sample: [(0.3, 3.0)], numpy: "sqrt",
            }
            /// Cube root. Derivative ∞ at 0, absorbed by a tangent of exactly 0.
            Cbrt cbrt(1) {
                dtypes: FLOAT, result: same, cpu: math::cbrt, wgsl: "ck_cbrt(a)",
                d: [|_, y, t| (3.0 * y.square()).reciprocal().lmul(t)],
                cost: 20, sample: [(0.3, 3.0)], numpy: "cbrt",
            }
            /// x to the power y; of integers by repeated squaring. ∂y is NaN for x < 0, and −∞ at 0⁰.
            Power power(2) {
                dtypes: NUMBER, result: same, cpu: math::power, wgsl: "ck_power(a, b)",
                d: [
                    |[x, y], _, t| y.lmul(x.power_below(y).lmul(t)),
                    |[x, _], out, t| out.lmul(x.log().lmul(t))
                ],
                cost: 40, sample: [(0.5, 2.5), (0.3, 3.0)], numpy: "power",
            }
            /// Quotient rounded towards −∞.
            FloorDivide floor_divide(2) {
                dtypes: NUMBER, result: same, cpu: math::floor_divide, wgsl: "ck_floor_divide(a, b)",
                d: constant,
                cost: 8, sample: [(-9.0, 9.0), (1.0, 4.0)], numpy: "floor_divide",
            }
            /// x − y·⌊x/y⌋, with the sign of y.
            Remainder remainder(2) {
                dtypes: NUMBER, result: same, cpu: math::remainder, wgsl: "ck_remainder(a, b)",
                d: [|_, _, t| t, |[x, y], _, t| -x.floor_divide(y).lmul(t)],
                cost: 8, sample: [(-9.0, 9.0), (1.0, 4.0)], numpy: "remainder",
            }
            /// x − y·trunc(x/y), with the sign of x.
            Fmod fmod(2) {
                dtypes: NUMBER, result: same, cpu: math::fmod, wgsl: "a % b",
                d: [|_, _, t| t, |[x, y], out, t| -((x - out) / y).rint().lmul(t)],
                cost: 8, sample: [(-9.0, 9.0), (1.0, 4.0)], numpy: "fmod",
            }
            /// Greatest integer not above x.
            Floor floor(1) {
                dtypes: FLOAT, result: same, cpu: math::floor, wgsl: "floor(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "floor",
            }
            /// Least integer not below x.
            Ceil ceil(1) {
                dtypes: FLOAT, result: same, cpu: math::ceil, wgsl: "ceil(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "ceil",
            }
            /// x rounded towards 0.
            Trunc trunc(1) {
                dtypes: FLOAT, result: same, cpu: math::trunc, wgsl: "trunc(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "trunc",
            }
            /// x rounded to the nearest integer, halves to even.
            Rint rint(1) {
                dtypes: FLOAT, result: same, cpu: math::rint, wgsl: "round(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "rint",
            }
            /// The greater of two, NaN if either is. Ties share the derivative evenly; a NaN counts as greatest.
            Maximum maximum(2) {
                dtypes: ALL, result: same, cpu: math::maximum, wgsl: "ck_maximum(a, b)",
                d: [
                    |[x, y], _, t| x.share_of(x.is_maximum(y), y.is_maximum(x)).lmul(t),
                    |[x, y], _, t| y.share_of(y.is_maximum(x), x.is_maximum(y)).lmul(t)
                ],
                cost: 2, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "maximum",
            }
            /// The lesser of two, NaN if either is. Ties share the derivative evenly; a NaN counts as least.
            Minimum minimum(2) {
                dtypes: ALL, result: same, cpu: math::minimum, wgsl: "ck_minimum(a, b)",
                d: [
                    |[x, y], _, t| x.share_of(x.is_minimum(y), y.is_minimum(x)).lmul(t),
                    |[x, y], _, t| y.share_of(y.is_minimum(x), x.is_minimum(y)).lmul(t)
                ],
                cost: 2, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "minimum",
            }
            /// The greater of two, the number where the other is NaN. Ties share the derivative evenly.
            Fmax fmax(2) {
                dtypes: ALL, result: same, cpu: math::fmax, wgsl: "ck_fmax(a, b)",
                d: [
                    |[x, y], _, t| x.share_of(x.is_fmax(y), y.is_fmax(x)).lmul(t),
                    |[x, y], _, t| y.share_of(y.is_fmax(x), x.is_fmax(y)).lmul(t)
                ],
                cost: 2, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "fmax",
            }
            /// The lesser of two, the number where the other is NaN. Ties share the derivative evenly.
            Fmin fmin(2) {
                dtypes: ALL, result: same, cpu: math::fmin, wgsl: "ck_fmin(a, b)",
                d: [
                    |[x, y], _, t| x.share_of(x.is_fmin(y), y.is_fmin(x)).lmul(t),
                    |[x, y], _, t| y.share_of(y.is_fmin(x), x.is_fmin(y)).lmul(t)
                ],
                cost: 2, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "fmin",
            }
            /// |x| with the sign bit of y. Derivative 0 at x = 0.
            Copysign copysign(2) {
                dtypes: FLOAT, result: same, cpu: math::copysign, wgsl: "ck_copysign(a, b)",
                d: [|[x, y], _, t| (x.sign() * x.constant(1.0).copysign(y)).lmul(t), none],
                cost: 2, sample: [(0.3, 3.0), (-3.0, 3.0)], numpy: "copysign",
            }
            /// The next number after x in the direction of y.
            Nextafter nextafter(2) {
                dtypes: FLOAT, result: same, cpu: math::nextafter, wgsl: "ck_nextafter(a, b)",
                d: [|_, _, t| t, none],
                cost: 4, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "nextafter",
            }
            /// Distance from x to the next number away from 0, with the sign of x; that of 0 for −0.
            Spacing spacing(1) {
                dtypes: FLOAT, result: same, cpu: math::spacing, wgsl: "ck_spacing(a)",
                d: constant,
                cost: 4, sample: [(-3.0, 3.0)], numpy: "spacing",
            }
            /// 0 for x < 0, y at x = 0, 1 for x > 0.
            Heaviside heaviside(2) {
                dtypes: FLOAT, result: same, cpu: math::heaviside, wgsl: "ck_heaviside(a, b)",
                d: [none, |[x, _], _, t| x.equal(x.constant(0.0)).select(t, t.constant(0.0))],
                cost: 2, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "heaviside",
            }
            /// √(x² + y²) without overflow. Derivative 0 at the origin.
            Hypot hypot(2) {
                dtypes: FLOAT, result: same, cpu: math::hypot, wgsl: "ck_hypot(a, b)",
                d: [
                    |[x, _], h, t| h.reciprocal().lmul(x.lmul(t)),
                    |[_, y], h, t| h.reciprocal().lmul(y.lmul(t))
                ],
                cost: 12, sample: [(0.3, 3.0), (0.3, 3.0)], numpy: "hypot",
            }
            /// Angle of the point (x₂, x₁), in (−π, π]. Derivative 0 at the origin.
            Arctan2 arctan2(2) {
                dtypes: FLOAT, result: same, cpu: math::arctan2, wgsl: "ck_arctan2(a, b)",
                d: [
                    |[y, x], _, t| y.over_hypot_twice(x, x.lmul(t)),
                    |[y, x], _, t| -y.over_hypot_twice(x, y.lmul(t))
                ],
                cost: 30, sample: [(0.3, 3.0), (-3.0, 3.0)], numpy: "arctan2",
            }
            /// x·2ᵉ, the exponent an integer given as a float.
            Ldexp ldexp(2) {
                dtypes: FLOAT, result: same, cpu: math::ldexp, wgsl: "ck_ldexp(a, b)",
                d: [|[x, e], _, t| x.constant(1.0).ldexp(e).lmul(t), none],
                cost: 4, sample: [(-3.0, 3.0), (-4.0, 4.0)], numpy: "ldexp",
            }
            /// The whole number e with 0.5 ≤ |x|/2ᵉ < 1, as a float; 0 of 0, ∞ and NaN. `np.frexp` gives x·2⁻ᵉ and e.
            Exponent exponent(1) {
                dtypes: FLOAT, result: same, cpu: math::exponent, wgsl: "ck_exponent(a)",
                d: constant,
                cost: 4, sample: [(-3.0, 3.0)], numpy: "",
            }

            // ── exponentials and logarithms ─────────────────────────────────────────────────────────────────────
            /// eˣ.
            Exp exp(1) {
                dtypes: FLOAT, result: same, cpu: math::exp, wgsl: "ck_exp(a)",
                d: [|_, y, t| y.lmul(t)],
                cost: 10, sample: [(-3.0, 3.0)], numpy: "exp",
            }
            /// 2ˣ.
            Exp2 exp2(1) {
                dtypes: FLOAT, result: same, cpu: math::exp2, wgsl: "ck_exp2(a)",
                d: [|_, y, t| (std::f64::consts::LN_2 * y).lmul(t)],
                cost: 10, sample: [(-3.0, 3.0)], numpy: "exp2",
            }
            /// eˣ − 1, exact near 0.
            Expm1 expm1(1) {
                dtypes: FLOAT, result: same, cpu: math::expm1, wgsl: "ck_expm1(a)",
                d: [|[x], _, t| x.exp().lmul(t)],
                cost: 14, sample: [(-3.0, 3.0)], numpy: "expm1",
            }
            /// Natural logarithm. Derivative ∞ at 0, absorbed by a tangent of exactly 0.
            Log log(1) {
                dtypes: FLOAT, result: same, cpu: math::log, wgsl: "ck_log(a)",
                d: [|[x], _, t| x.reciprocal().lmul(t)],
                cost: 12, sample: [(0.3, 3.0)], numpy: "log",
            }
            /// Logarithm to base 2.
            Log2 log2(1) {
                dtypes: FLOAT, result: same, cpu: math::log2, wgsl: "ck_log2(a)",
                d: [|[x], _, t| (std::f64::consts::LOG2_E / x).lmul(t)],
                cost: 12, sample: [(0.3, 3.0)], numpy: "log2",
            }
            /// Logarithm to base 10.
            Log10 log10(1) {
                dtypes: FLOAT, result: same, cpu: math::log10, wgsl: "ck_log10(a)",
                d: [|[x], _, t| (std::f64::consts::LOG10_E / x).lmul(t)],
                cost: 12, sample: [(0.3, 3.0)], numpy: "log10",
            }
            /// log(1 + x), exact near 0.
            Log1p log1p(1) {
                dtypes: FLOAT, result: same, cpu: math::log1p, wgsl: "ck_log1p(a)",
                d: [|[x], _, t| (1.0 + x).reciprocal().lmul(t)],
                cost: 14, sample: [(-0.6, 3.0)], numpy: "log1p",
            }
            /// log(eˣ + eʸ) without overflow. Equal infinities share the derivative evenly.
            Logaddexp logaddexp(2) {
                dtypes: FLOAT, result: same, cpu: math::logaddexp, wgsl: "ck_logaddexp(a, b)",
                d: [
                    |[x, y], _, t| (1.0 + y.gap(x).exp()).reciprocal().lmul(t),
                    |[x, y], _, t| (1.0 + x.gap(y).exp()).reciprocal().lmul(t)
                ],
                cost: 28, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "logaddexp",
            }
            /// log₂(2ˣ + 2ʸ) without overflow. Equal infinities share the derivative evenly.
            Logaddexp2 logaddexp2(2) {
                dtypes: FLOAT, result: same, cpu: math::logaddexp2, wgsl: "ck_logaddexp2(a, b)",
                d: [
                    |[x, y], _, t| (1.0 + y.gap(x).exp2()).reciprocal().lmul(t),
                    |[x, y], _, t| (1.0 + x.gap(y).exp2()).reciprocal().lmul(t)
                ],
                cost: 28, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "logaddexp2",
            }

            // ── trigonometry ────────────────────────────────────────────────────────────────────────────────────
            /// Sine.
            Sin sin(1) {
                dtypes: FLOAT, result: same, cpu: math::sin, wgsl: "ck_sin(a)",
                d: [|[x], _, t| x.cos().lmul(t)],
                cost: 12, sample: [(-3.0, 3.0)], numpy: "sin",
            }
            /// Cosine.
            Cos cos(1) {
                dtypes: FLOAT, result: same, cpu: math::cos, wgsl: "ck_cos(a)",
                d: [|[x], _, t| -x.sin().lmul(t)],
                cost: 12, sample: [(-3.0, 3.0)], numpy: "cos",
            }
            /// Tangent.
            Tan tan(1) {
                dtypes: FLOAT, result: same, cpu: math::tan, wgsl: "ck_tan(a)",
                d: [|_, y, t| (1.0 + y.square()).lmul(t)],
                cost: 20, sample: [(-1.2, 1.2)], numpy: "tan",
            }
            /// Inverse sine.
            Arcsin arcsin(1) {
                dtypes: FLOAT, result: same, cpu: math::arcsin, wgsl: "ck_arcsin(a)",
                d: [|[x], _, t| ((1.0 - x) * (1.0 + x)).sqrt().reciprocal().lmul(t)],
                cost: 16, sample: [(-0.8, 0.8)], numpy: "arcsin",
            }
            /// Inverse cosine.
            Arccos arccos(1) {
                dtypes: FLOAT, result: same, cpu: math::arccos, wgsl: "ck_arccos(a)",
                d: [|[x], _, t| -((1.0 - x) * (1.0 + x)).sqrt().reciprocal().lmul(t)],
                cost: 16, sample: [(-0.8, 0.8)], numpy: "arccos",
            }
            /// Inverse tangent.
            Arctan arctan(1) {
                dtypes: FLOAT, result: same, cpu: math::arctan, wgsl: "ck_arctan(a)",
                d: [|[x], _, t| (1.0 + x.square()).reciprocal().lmul(t)],
                cost: 16, sample: [(-3.0, 3.0)], numpy: "arctan",
            }
            /// Hyperbolic sine.
            Sinh sinh(1) {
                dtypes: FLOAT, result: same, cpu: math::sinh, wgsl: "ck_sinh(a)",
                d: [|[x], _, t| x.cosh().lmul(t)],
                cost: 16, sample: [(-3.0, 3.0)], numpy: "sinh",
            }
            /// Hyperbolic cosine.
            Cosh cosh(1) {
                dtypes: FLOAT, result: same, cpu: math::cosh, wgsl: "ck_cosh(a)",
                d: [|[x], _, t| x.sinh().lmul(t)],
                cost: 14, sample: [(-3.0, 3.0)], numpy: "cosh",
            }
            /// Hyperbolic tangent.
            Tanh tanh(1) {
                dtypes: FLOAT, result: same, cpu: math::tanh, wgsl: "ck_tanh(a)",
                d: [|_, y, t| (1.0 - y.square()).lmul(t)],
                cost: 12, sample: [(-3.0, 3.0)], numpy: "tanh",
            }
            /// Inverse hyperbolic sine.
            Arcsinh arcsinh(1) {
                dtypes: FLOAT, result: same, cpu: math::arcsinh, wgsl: "ck_arcsinh(a)",
                d: [|[x], _, t| x.hypot(x.constant(1.0)).reciprocal().lmul(t)],
                cost: 20, sample: [(-3.0, 3.0)], numpy: "arcsinh",
            }
            /// Inverse hyperbolic cosine.
            Arccosh arccosh(1) {
                dtypes: FLOAT, result: same, cpu: math::arccosh, wgsl: "ck_arccosh(a)",
                d: [|[x], _, t| ((x - 1.0).sqrt() * (x + 1.0).sqrt()).reciprocal().lmul(t)],
                cost: 20, sample: [(1.3, 4.0)], numpy: "arccosh",
            }
            /// Inverse hyperbolic tangent.
            Arctanh arctanh(1) {
                dtypes: FLOAT, result: same, cpu: math::arctanh, wgsl: "ck_arctanh(a)",
                d: [|[x], _, t| ((1.0 - x) * (1.0 + x)).reciprocal().lmul(t)],
                cost: 16, sample: [(-0.8, 0.8)], numpy: "arctanh",
            }
            /// Degrees to radians.
            Deg2rad deg2rad(1) {
                dtypes: FLOAT, result: same, cpu: math::deg2rad, wgsl: "radians(a)",
                d: [|[x], _, t| x.constant(std::f64::consts::PI / 180.0).lmul(t)],
                cost: 1, sample: [(-180.0, 180.0)], numpy: "deg2rad",
            }
            /// Radians to degrees.
            Rad2deg rad2deg(1) {
                dtypes: FLOAT, result: same, cpu: math::rad2deg, wgsl: "degrees(a)",
                d: [|[x], _, t| x.constant(180.0 / std::f64::consts::PI).lmul(t)],
                cost: 1, sample: [(-3.0, 3.0)], numpy: "rad2deg",
            }

            // ── predicates ──────────────────────────────────────────────────────────────────────────────────────
            /// x = y.
            Equal equal(2) {
                dtypes: ALL, result: bool, cpu: math::equal, wgsl: "a == b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "equal",
            }
            /// x ≠ y, also where either is NaN.
            NotEqual not_equal(2) {
                dtypes: ALL, result: bool, cpu: math::not_equal, wgsl: "a != b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "not_equal",
            }
            /// x < y.
            Less less(2) {
                dtypes: ALL, result: bool, cpu: math::less, wgsl: "a < b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "less",
            }
            /// x ≤ y.
            LessEqual less_equal(2) {
                dtypes: ALL, result: bool, cpu: math::less_equal, wgsl: "a <= b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "less_equal",
            }
            /// x > y.
            Greater greater(2) {
                dtypes: ALL, result: bool, cpu: math::greater, wgsl: "a > b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "greater",
            }
            /// x ≥ y.
            GreaterEqual greater_equal(2) {
                dtypes: ALL, result: bool, cpu: math::greater_equal, wgsl: "a >= b",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0), (-3.0, 3.0)], numpy: "greater_equal",
            }
            /// Both are not 0.
            LogicalAnd logical_and(2) {
                dtypes: ALL, result: bool, cpu: math::logical_and, wgsl: "ck_logical_and(a, b)",
                d: constant,
                cost: 1, sample: [(-1.0, 1.0), (-1.0, 1.0)], numpy: "logical_and",
            }
            /// At least one is not 0.
            LogicalOr logical_or(2) {
                dtypes: ALL, result: bool, cpu: math::logical_or, wgsl: "ck_logical_or(a, b)",
                d: constant,
                cost: 1, sample: [(-1.0, 1.0), (-1.0, 1.0)], numpy: "logical_or",
            }
            /// Exactly one is not 0.
            LogicalXor logical_xor(2) {
                dtypes: ALL, result: bool, cpu: math::logical_xor, wgsl: "ck_logical_xor(a, b)",
                d: constant,
                cost: 1, sample: [(-1.0, 1.0), (-1.0, 1.0)], numpy: "logical_xor",
            }
            /// x = 0.
            LogicalNot logical_not(1) {
                dtypes: ALL, result: bool, cpu: math::logical_not, wgsl: "ck_logical_not(a)",
                d: constant,
                cost: 1, sample: [(-1.0, 1.0)], numpy: "logical_not",
            }
            /// x is not a number.
            Isnan isnan(1) {
                dtypes: FLOAT, result: bool, cpu: math::isnan, wgsl: "ck_isnan(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "isnan",
            }
            /// x is ∞ or −∞.
            Isinf isinf(1) {
                dtypes: FLOAT, result: bool, cpu: math::isinf, wgsl: "ck_isinf(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "isinf",
            }
            /// x is neither infinite nor NaN.
            Isfinite isfinite(1) {
                dtypes: FLOAT, result: bool, cpu: math::isfinite, wgsl: "ck_isfinite(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "isfinite",
            }
            /// The sign bit of x is set; −0 has it.
            Signbit signbit(1) {
                dtypes: FLOAT, result: bool, cpu: math::signbit, wgsl: "ck_signbit(a)",
                d: constant,
                cost: 1, sample: [(-3.0, 3.0)], numpy: "signbit",
            }

            // ── bits and integers ───────────────────────────────────────────────────────────────────────────────
            /// Bitwise and; logical and of bools.
            BitwiseAnd bitwise_and(2) {
                dtypes: BITS, result: same, cpu: math::bitwise_and, wgsl: "a & b",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0), (-100.0, 100.0)], numpy: "bitwise_and",
            }
            /// Bitwise or; logical or of bools.
            BitwiseOr bitwise_or(2) {
                dtypes: BITS, result: same, cpu: math::bitwise_or, wgsl: "a | b",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0), (-100.0, 100.0)], numpy: "bitwise_or",
            }
            /// Bitwise exclusive or; logical exclusive or of bools.
            BitwiseXor bitwise_xor(2) {
                dtypes: BITS, result: same, cpu: math::bitwise_xor, wgsl: "a ^ b",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0), (-100.0, 100.0)], numpy: "bitwise_xor",
            }
            /// All bits flipped; logical not of bools.
            Invert invert(1) {
                dtypes: BITS, result: same, cpu: math::invert, wgsl: "~a",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0)], numpy: "invert",
            }
            /// x·2ʸ; 0 where y is at least the number of bits, or negative.
            LeftShift left_shift(2) {
                dtypes: INTEGER, result: same, cpu: math::left_shift, wgsl: "ck_left_shift(a, b)",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0), (0.0, 70.0)], numpy: "left_shift",
            }
            /// ⌊x/2ʸ⌋; 0 or −1 where y is at least the number of bits, or negative.
            RightShift right_shift(2) {
                dtypes: INTEGER, result: same, cpu: math::right_shift, wgsl: "ck_right_shift(a, b)",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0), (0.0, 70.0)], numpy: "right_shift",
            }
            /// Number of bits set in |x|. `np.bitwise_count` gives it as uint8.
            BitwiseCount bitwise_count(1) {
                dtypes: INTEGER, result: same, cpu: math::bitwise_count, wgsl: "countOneBits(abs(a))",
                d: constant,
                cost: 1, sample: [(-100.0, 100.0)], numpy: "bitwise_count",
            }
            /// Greatest common divisor.
            Gcd gcd(2) {
                dtypes: INTEGER, result: same, cpu: math::gcd, wgsl: "ck_gcd(a, b)",
                d: constant,
                cost: 40, sample: [(-100.0, 100.0), (-100.0, 100.0)], numpy: "gcd",
            }
            /// Least common multiple.
            Lcm lcm(2) {
                dtypes: INTEGER, result: same, cpu: math::lcm, wgsl: "ck_lcm(a, b)",
                d: constant,
                cost: 44, sample: [(-10.0, 10.0), (-10.0, 10.0)], numpy: "lcm",
            }

            // ── choice ──────────────────────────────────────────────────────────────────────────────────────────
            /// a where the condition (bool) holds, b elsewhere.
            Select select(3) {
                dtypes: ALL, result: same, cpu: math::select, wgsl: "select(c, b, a)",
                d: [
                    none,
                    |[condition, _, _], _, t| condition.select(t, t.constant(0.0)),
                    |[condition, _, _], _, t| condition.select(t.constant(0.0), t)
                ],
                cost: 1, sample: [(0.0, 1.0), (-3.0, 3.0), (-3.0, 3.0)], numpy: "where",
            }
        }
    };
}
