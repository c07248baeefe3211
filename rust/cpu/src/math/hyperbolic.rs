//! tanh, sinh, cosh: odd polynomials near zero, exponentials beyond.

use super::exponential::{exp_normal, half_exp};
use super::float::{Float, choose, horner};

#[inline(always)]
pub fn tanh<F: Float>(x: F) -> F {
    let y = x.abs();
    let z = y * y;
    let series = if F::DOUBLE {
        horner(
            z,
            [
                -0.3333333333333333,
                0.13333333333332392,
                -0.0539682539670594,
                0.021869488476962563,
                -0.008863234021529514,
                0.003592105532132769,
                -0.0014556239774192678,
                0.0005887537111834804,
                -0.00023410556936672797,
                8.426522203958066e-05,
                -2.0026740085317684e-05,
            ],
        )
    } else {
        horner(
            z,
            [
                -0.3333333134651184,
                0.13333073258399963,
                -0.053901754319667816,
                0.021263353526592255,
                -0.0065255723893642426,
            ],
        )
    };
    let small = (y * z).mul_add(series, y);
    // tanh is 1 to the last bit from here on, and the exponential cannot overflow.
    let limit = F::of(if F::DOUBLE { 20.0 } else { 10.0 });
    let (one, two) = (F::of(1.0), F::of(2.0));
    let large = one - two / (exp_normal(two * choose(y > limit, limit, y)) + one);
    choose(y < F::of(0.5625), small, large).copysign(x)
}

#[inline(always)]
pub fn sinh<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(sinh(x.wide()));
    }
    let y = x.abs();
    let z = y * y;
    let series = horner(
        z,
        [
            0.16666666666666666,
            0.008333333333333333,
            0.0001984126984126984,
            2.7557319223985825e-06,
            2.505210838547607e-08,
            1.605904382690051e-10,
            7.647165414593481e-13,
            2.8112909646770106e-15,
            8.309171941866942e-18,
        ],
    );
    let small = (y * z).mul_add(series, y);
    let half = half_exp(y);
    choose(y < F::of(1.0), small, half - F::of(0.25) / half).copysign(x)
}

#[inline(always)]
pub fn cosh<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(cosh(x.wide()));
    }
    let half = half_exp(x.abs());
    half + F::of(0.25) / half
}
