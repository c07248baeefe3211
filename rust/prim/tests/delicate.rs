//! The derivative in every delicate place: kinks, ties, zeros, infinities, NaN. Forward and reverse mode must agree in
//! each, and the Hessian's forward and reverse form too.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{DType, Graph, ReduceKind};
use ckad_prim::Expr;
use common::{evaluate, function, gradient, gradient_forward, hessian, hessian_reverse};

type Binary = for<'b> fn(Expr<'b>, Expr<'b>) -> Expr<'b>;

const INFINITY: f64 = f64::INFINITY;

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-14 * a.abs().max(b.abs()).max(1.0)
}

fn assert_same(what: &str, found: &[f64], expected: &[f64]) {
    let equal = found.len() == expected.len() && found.iter().zip(expected).all(|(&a, &b)| same(a, b));
    assert!(equal, "{what}: {found:?} instead of {expected:?}");
}

/// The gradient, the same by both modes.
#[track_caller]
fn check(what: &str, graph: &Graph, point: &[Vec<f64>], expected: &[f64]) {
    assert_same(&format!("{what}, reverse"), &gradient(graph, point).concat(), expected);
    assert_same(&format!("{what}, forward"), &gradient_forward(graph, point).concat(), expected);
}

/// The Hessian, row by row, the same by forward and reverse over reverse.
#[track_caller]
fn check_hessian(what: &str, graph: &Graph, point: &[Vec<f64>], expected: &[&[f64]]) {
    for (form, rows) in [("forward", hessian(graph, point)), ("reverse", hessian_reverse(graph, point))] {
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(expected) {
            assert_same(&format!("{what}, Hessian, {form} over reverse"), row, expected);
        }
    }
}

fn scalar(f: impl for<'b> Fn(Expr<'b>) -> Expr<'b>) -> Graph {
    function(&[&[]], move |x| f(x[0]))
}

fn scalars(f: impl for<'b> Fn(Expr<'b>, Expr<'b>) -> Expr<'b>) -> Graph {
    function(&[&[], &[]], move |x| f(x[0], x[1]))
}

fn vector(length: i64, f: impl for<'b> Fn(Expr<'b>) -> Expr<'b>) -> Graph {
    function(&[&[length]], move |x| f(x[0]))
}

fn at(values: &[f64]) -> Vec<Vec<f64>> {
    values.iter().map(|&value| vec![value]).collect()
}

#[test]
fn kinks_at_zero() {
    check("|x|", &scalar(|x| x.absolute()), &at(&[0.0]), &[0.0]);
    check("sign", &scalar(|x| x.sign()), &at(&[0.0]), &[0.0]);
    check("copysign", &scalars(|x, y| x.copysign(y)), &at(&[0.0, -1.0]), &[0.0, 0.0]);
    check("copysign", &scalars(|x, y| x.copysign(y)), &at(&[3.0, -1.0]), &[-1.0, 0.0]);
    check("heaviside", &scalars(|x, y| x.heaviside(y)), &at(&[0.0, 0.5]), &[0.0, 1.0]);
    check("heaviside", &scalars(|x, y| x.heaviside(y)), &at(&[1.0, 0.5]), &[0.0, 0.0]);
}

#[test]
fn square_root_at_zero() {
    check("sqrt", &scalar(|x| x.sqrt()), &at(&[0.0]), &[INFINITY]);
    check("cbrt", &scalar(|x| x.cbrt()), &at(&[0.0]), &[INFINITY]);
    check("sqrt squared", &scalar(|x| x.sqrt().square()), &at(&[0.0]), &[0.0]);
    // The branch not taken neither has a derivative nor spoils one.
    let guarded = scalar(|x| x.greater(x.constant(0.0)).select(x.sqrt(), x.constant(0.0)));
    for x in [0.0, -1.0, f64::NAN, -INFINITY] {
        check("where(x > 0, sqrt(x), 0)", &guarded, &at(&[x]), &[0.0]);
        check_hessian("where(x > 0, sqrt(x), 0)", &guarded, &at(&[x]), &[&[0.0]]);
    }
    check("where(x > 0, sqrt(x), 0)", &guarded, &at(&[4.0]), &[0.25]);
    let inverse = scalar(|x| x.equal(x.constant(0.0)).select(x.constant(0.0), 1.0 / x));
    check("where(x == 0, 0, 1/x)", &inverse, &at(&[0.0]), &[0.0]);
    check_hessian("where(x == 0, 0, 1/x)", &inverse, &at(&[0.0]), &[&[0.0]]);
    let logarithm = scalar(|x| x.greater(x.constant(0.0)).select(x * x.log(), x.constant(0.0)));
    check("where(x > 0, x log x, 0)", &logarithm, &at(&[0.0]), &[0.0]);
    check_hessian("where(x > 0, x log x, 0)", &logarithm, &at(&[0.0]), &[&[0.0]]);
}

#[test]
fn distances_at_the_origin() {
    check("hypot", &scalars(|x, y| x.hypot(y)), &at(&[0.0, 0.0]), &[0.0, 0.0]);
    check("hypot", &scalars(|x, y| x.hypot(y)), &at(&[3.0, 4.0]), &[0.6, 0.8]);
    check("hypot squared", &scalars(|x, y| x.hypot(y).square()), &at(&[0.0, 0.0]), &[0.0, 0.0]);
    check("arctan2", &scalars(|y, x| y.arctan2(x)), &at(&[0.0, 0.0]), &[0.0, 0.0]);
    check("arctan2", &scalars(|y, x| y.arctan2(x)), &at(&[1.0, 0.0]), &[0.0, -1.0]);
    check("arctan2", &scalars(|y, x| y.arctan2(x)), &at(&[0.0, -2.0]), &[-0.5, 0.0]);
    let norm = vector(2, |x| x.square().sum(&[0]).sqrt());
    check("norm", &norm, &[vec![0.0, 0.0]], &[0.0, 0.0]);
    check("norm", &norm, &[vec![3.0, 4.0]], &[0.6, 0.8]);
    let squared = vector(2, |x| x.square().sum(&[0]).sqrt().square());
    check("norm squared", &squared, &[vec![0.0, 0.0]], &[0.0, 0.0]);
    for row in hessian(&squared, &[vec![0.0, 0.0]]) {
        assert!(row.iter().all(|entry| entry.is_finite()));
    }
}

#[test]
fn powers() {
    let power = |y: f32| scalar(move |x| x.power(x.builder.expr(x.builder.literal(DType::F64, y).unwrap())));
    for (y, first, second) in [(0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (2.0, 0.0, 2.0), (3.0, 0.0, 0.0), (4.0, 0.0, 0.0)] {
        check(&format!("0**{y}"), &power(y), &at(&[0.0]), &[first]);
        check_hessian(&format!("0**{y}"), &power(y), &at(&[0.0]), &[&[second]]);
    }
    check("0**0.5", &power(0.5), &at(&[0.0]), &[INFINITY]);
    check("(-2)**3", &power(3.0), &at(&[-2.0]), &[12.0]);
    check_hessian("(-2)**3", &power(3.0), &at(&[-2.0]), &[&[-12.0]]);
    check("(-2)**-1", &power(-1.0), &at(&[-2.0]), &[-0.25]);

    let both = scalars(|x, y| x.power(y));
    check("x**y", &both, &at(&[2.0, 3.0]), &[12.0, 8.0 * std::f64::consts::LN_2]);
    check("0**2", &both, &at(&[0.0, 2.0]), &[0.0, 0.0]);
    check("0**1", &both, &at(&[0.0, 1.0]), &[1.0, 0.0]);
    check("0**0", &both, &at(&[0.0, 0.0]), &[0.0, -INFINITY]);
    check("(-2)**2", &both, &at(&[-2.0, 2.0]), &[-4.0, f64::NAN]);
    // An exponent that is an input of the program, not a literal.
    let fixed = scalar(|x| x.power(x.builder.expr(x.builder.scalar(DType::F64, 3.0f64.to_bits()).unwrap())));
    check("(-2)**3", &fixed, &at(&[-2.0]), &[12.0]);
}

#[test]
fn ties_are_split_evenly() {
    let rows: [Binary; 4] = [|x, y| x.maximum(y), |x, y| x.minimum(y), |x, y| x.fmax(y), |x, y| x.fmin(y)];
    for row in rows {
        let graph = scalars(row);
        for tie in [0.0, 1.0, INFINITY, -INFINITY] {
            check("a tie", &graph, &at(&[tie, tie]), &[0.5, 0.5]);
            check_hessian("a tie", &graph, &at(&[tie, tie]), &[&[0.0, 0.0], &[0.0, 0.0]]);
        }
        check("two NaNs", &graph, &at(&[f64::NAN, f64::NAN]), &[0.5, 0.5]);
    }
    check("maximum", &scalars(|x, y| x.maximum(y)), &at(&[1.0, 2.0]), &[0.0, 1.0]);
    check("minimum", &scalars(|x, y| x.minimum(y)), &at(&[1.0, 2.0]), &[1.0, 0.0]);
    let relu = scalar(|x| x.maximum(x.constant(0.0)));
    for (x, slope) in [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (f64::NAN, 1.0)] {
        check("maximum(x, 0)", &relu, &at(&[x]), &[slope]);
    }
    check("maximum of 0 and -0", &scalars(|x, y| x.maximum(y)), &at(&[0.0, -0.0]), &[0.5, 0.5]);
    // maximum and minimum give the NaN, which takes the derivative; fmax and fmin the number.
    check("maximum with NaN", &scalars(|x, y| x.maximum(y)), &at(&[f64::NAN, 2.0]), &[1.0, 0.0]);
    check("minimum with NaN", &scalars(|x, y| x.minimum(y)), &at(&[1.0, f64::NAN]), &[0.0, 1.0]);
    check("fmax with NaN", &scalars(|x, y| x.fmax(y)), &at(&[f64::NAN, 2.0]), &[0.0, 1.0]);
    check("fmin with NaN", &scalars(|x, y| x.fmin(y)), &at(&[1.0, f64::NAN]), &[1.0, 0.0]);
    let folded = scalar(|x| x.maximum(-x).square());
    check("max(x, -x)²", &folded, &at(&[0.0]), &[0.0]);
    check_hessian("max(x, -x)²", &folded, &at(&[0.0]), &[&[0.0]]);
}

#[test]
fn extrema_of_arrays() {
    let max = vector(4, |x| x.reduce(ReduceKind::Max, &[0]));
    let min = vector(4, |x| x.reduce(ReduceKind::Min, &[0]));
    check("max", &max, &[vec![1.0, 3.0, 2.0, 0.0]], &[0.0, 1.0, 0.0, 0.0]);
    check("max with ties", &max, &[vec![3.0, 1.0, 3.0, 0.0]], &[0.5, 0.0, 0.5, 0.0]);
    check("min with ties", &min, &[vec![0.0, 1.0, 3.0, 0.0]], &[0.5, 0.0, 0.0, 0.5]);
    check("max of equals", &max, &[vec![INFINITY; 4]], &[0.25; 4]);
    check("max with NaN", &max, &[vec![f64::NAN, 9.0, 1.0, f64::NAN]], &[0.5, 0.0, 0.0, 0.5]);
    check("min with NaN", &min, &[vec![f64::NAN, 9.0, 1.0, 2.0]], &[1.0, 0.0, 0.0, 0.0]);
    // d max² = 2 m dm, and the even split again.
    let squared = vector(2, |x| x.reduce(ReduceKind::Max, &[0]).square());
    check_hessian("max² with ties", &squared, &[vec![3.0, 3.0]], &[&[0.5, 0.5], &[0.5, 0.5]]);
    // Softmax's shift: all of its derivative cancels.
    let shifted = vector(3, |x| {
        let max = x.reduce(ReduceKind::Max, &[0]);
        ((x - max).exp().sum(&[0])).log() + max
    });
    let e = 1.0f64.exp();
    check("logsumexp", &shifted, &[vec![1.0, 1.0, 2.0]], &[1.0 / (2.0 + e), 1.0 / (2.0 + e), e / (2.0 + e)]);
}

fn product(x: Expr<'_>) -> Expr<'_> {
    // Prod as a recurrence: (x₀, 0, 0, …) is what is added.
    let first = x.strided_read(&[1], &[1], 0);
    let length = x.shape()[0];
    let start = first.pad(x.constant(0.0), &[(0, length - 1)]);
    let builder = x.builder;
    let running = builder.expr(builder.linear_recurrence(x.id, start.id, 0, false, false).unwrap());
    running.strided_read(&[], &[], length - 1)
}

#[test]
fn products_with_zeros_are_exact() {
    let graph = vector(4, product);
    check("no zero", &graph, &[vec![2.0, 3.0, 5.0, 7.0]], &[105.0, 70.0, 42.0, 30.0]);
    check("one zero", &graph, &[vec![2.0, 0.0, 5.0, 7.0]], &[0.0, 70.0, 0.0, 0.0]);
    check("first zero", &graph, &[vec![0.0, 3.0, 5.0, 7.0]], &[105.0, 0.0, 0.0, 0.0]);
    check("two zeros", &graph, &[vec![2.0, 0.0, 0.0, 7.0]], &[0.0; 4]);
    let mut expected = [[0.0; 4]; 4];
    expected[1][2] = 14.0;
    expected[2][1] = 14.0;
    let rows: Vec<&[f64]> = expected.iter().map(|row| &row[..]).collect();
    check_hessian("two zeros", &graph, &[vec![2.0, 0.0, 0.0, 7.0]], &rows);
    check("one element", &vector(1, product), &[vec![0.0]], &[1.0]);
}

#[test]
fn logaddexp_at_infinities() {
    let rows: [Binary; 2] = [|x, y| x.logaddexp(y), |x, y| x.logaddexp2(y)];
    for row in rows {
        let graph = scalars(row);
        let places = [
            (0.0, 0.0, [0.5, 0.5]),
            (INFINITY, INFINITY, [0.5, 0.5]),
            (-INFINITY, -INFINITY, [0.5, 0.5]),
            (INFINITY, 0.0, [1.0, 0.0]),
            (0.0, -INFINITY, [1.0, 0.0]),
            (-INFINITY, INFINITY, [0.0, 1.0]),
            (1e4, 0.0, [1.0, 0.0]),
        ];
        for (x, y, expected) in places {
            check(&format!("logaddexp({x}, {y})"), &graph, &at(&[x, y]), &expected);
            for rows in [hessian(&graph, &at(&[x, y])), hessian_reverse(&graph, &at(&[x, y]))] {
                assert!(rows.concat().iter().all(|entry| entry.is_finite()), "logaddexp({x}, {y}): {rows:?}");
            }
        }
    }
    let graph = scalars(|x, y| x.logaddexp(y));
    check_hessian("logaddexp(0, 0)", &graph, &at(&[0.0, 0.0]), &[&[0.25, -0.25], &[-0.25, 0.25]]);
}

#[test]
fn absorption_keeps_second_derivatives() {
    let half_squares = [
        scalar(|x| x.sin() * x.sin() * 0.5),
        scalar(|x| x.sin().square() * 0.5),
        scalar(|x| x.sin().power(x.constant(2.0)) * 0.5),
        scalar(|x| x.sin().lmul(x.sin()) * 0.5),
        scalar(|x| x.sin().square() / 2.0),
    ];
    for graph in &half_squares {
        check("sin(x)²/2", graph, &at(&[0.0]), &[0.0]);
        check_hessian("sin(x)²/2", graph, &at(&[0.0]), &[&[1.0]]);
    }
    let product = scalars(|x, y| x * y);
    check_hessian("x·y", &product, &at(&[0.0, 0.0]), &[&[0.0, 1.0], &[1.0, 0.0]]);
    check("lmul", &scalars(|x, y| x.lmul(y)), &at(&[0.0, INFINITY]), &[INFINITY, 0.0]);
    let quotient = scalars(|x, y| x / y);
    check("0/∞", &quotient, &at(&[0.0, INFINITY]), &[0.0, 0.0]);
    check_hessian("x/y", &quotient, &at(&[0.0, 2.0]), &[&[0.0, -0.25], &[-0.25, 0.0]]);
}

#[test]
fn dots_absorb_where_they_are_linear() {
    // The cotangent of the first weight is not 0, its square root's derivative is infinite: the branch's 0 absorbs it.
    let axes = ckad_graph::DotAxes { lhs_contract: vec![0], rhs_contract: vec![0], ..Default::default() };
    let graph = function(&[&[2], &[2]], move |x| {
        let builder = x[0].builder;
        let weights = x[0].greater(x[0].constant(0.0)).select(x[0].sqrt(), x[0].constant(0.0));
        builder.expr(builder.dot(weights.id, x[1].id, &axes, false).unwrap())
    });
    check("dot(where(x > 0, sqrt(x), 0), y)", &graph, &[vec![0.0, 4.0], vec![1.0, 3.0]], &[0.0, 0.75, 0.0, 2.0]);
}

#[test]
fn writes_with_duplicates() {
    // x[[0, 0, 2]] = v: the last write wins, v₀ is overwritten, x₀ and x₂ are gone.
    let indices = |x: Expr<'_>| {
        let builder = x.builder;
        let count = builder.expr(builder.iota(DType::I64, &[3], 0).unwrap());
        let one = builder.expr(builder.literal(DType::I64, 1.0).unwrap());
        let two = builder.expr(builder.literal(DType::I64, 2.0).unwrap());
        let zero = builder.expr(builder.literal(DType::I64, 0.0).unwrap());
        let list = count.less_equal(one).select(zero, two);
        builder.take_error().unwrap();
        list.id
    };
    let weigh = |x: Expr<'_>| -> Vec<f64> { (1..=x.shape()[0]).map(|w| w as f64).collect() };
    let graph = function(&[&[4], &[3]], move |x| {
        let list = x[0].builder.expr(indices(x[0]));
        let written = x[0].scatter_set(x[1], &[list]);
        let weights: Vec<_> = weigh(written).iter().map(|&w| written.constant(w)).collect();
        let parts = (0..4).map(|k| written.strided_read(&[], &[], k) * weights[k as usize]);
        parts.reduce(|a, b| a + b).unwrap()
    });
    let point = [vec![1.0; 4], vec![5.0, 6.0, 7.0]];
    assert_eq!(evaluate::outputs(&graph, &point)[0], [6.0 + 2.0 + 21.0 + 4.0]);
    check("x[[0, 0, 2]] = v", &graph, &point, &[0.0, 2.0, 0.0, 4.0, 0.0, 1.0, 3.0]);

    // x[[0, 0, 2]] += v in NumPy is a read and a write: v₁ is added once.
    let graph = function(&[&[4], &[3]], move |x| {
        let list = [x[0].builder.expr(indices(x[0]))];
        x[0].scatter_set(x[0].gather(&list) + x[1], &list).sum(&[0])
    });
    check("x[[0, 0, 2]] += v", &graph, &point, &[1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn saturated_functions_have_no_nan() {
    check("tanh", &scalar(|x| x.tanh()), &at(&[INFINITY]), &[0.0]);
    check("arctan", &scalar(|x| x.arctan()), &at(&[INFINITY]), &[0.0]);
    check("arcsinh", &scalar(|x| x.arcsinh()), &at(&[1e200]), &[1e-200]);
    check("arccosh", &scalar(|x| x.arccosh()), &at(&[1e200]), &[1e-200]);
    check("arccosh at 1", &scalar(|x| x.arccosh()), &at(&[1.0]), &[INFINITY]);
    check("arcsin at 1", &scalar(|x| x.arcsin()), &at(&[1.0]), &[INFINITY]);
    check("expm1", &scalar(|x| x.expm1()), &at(&[-40.0]), &[(-40.0f64).exp()]);
    check("log1p", &scalar(|x| x.log1p()), &at(&[-1.0]), &[INFINITY]);
    check("remainder", &scalars(|x, y| x.remainder(y)), &at(&[7.0, -2.0]), &[1.0, 4.0]);
    check("fmod", &scalars(|x, y| x.fmod(y)), &at(&[-7.0, 2.0]), &[1.0, 3.0]);
    check("ldexp", &scalars(|x, e| x.ldexp(e)), &at(&[3.0, 4.0]), &[16.0, 0.0]);
}
