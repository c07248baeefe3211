//! Arithmetic of shapes: products that are checked, broadcasting, strides of flat memory.

use ckad_graph::{Error, Result, shape_text};

/// NumPy's limit.
const MAX_RANK: usize = 64;

/// Refuses negative extents, too many axes, and shapes whose bytes do not fit an i64 (zero extents set aside, so that
/// strides are safe too).
pub(crate) fn check_shape(name: &str, shape: &[i64]) -> Result<()> {
    if shape.len() > MAX_RANK {
        return Err(Error::shape(name, format!("{} axes are more than {MAX_RANK}", shape.len()))
            .with_hint("join axes with `.reshape`, or drop those of length 1 with np.squeeze"));
    }
    let mut bytes = 8i64;
    for &extent in shape {
        if extent < 0 {
            return Err(Error::shape(name, format!("negative extent in shape {}", shape_text(shape)))
                .with_hint("extents are 0 or more; only `.reshape` takes one -1, for the extent that is left over"));
        }
        bytes = bytes.checked_mul(extent.max(1)).ok_or_else(|| {
            Error::shape(name, format!("an array of shape {} is too large", shape_text(shape)))
                .with_hint("its bytes do not fit 63 bits: use smaller extents")
        })?;
    }
    Ok(())
}

/// Number of elements of a checked shape.
pub(crate) fn elements(shape: &[i64]) -> i64 {
    shape.iter().product()
}

/// Strides, in elements, of an array of a checked shape in C order.
pub(crate) fn c_strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// NumPy's rule; `None` where the shapes do not fit.
pub(crate) fn broadcast_shapes(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut shape = long.to_vec();
    let ahead = long.len() - short.len();
    for (extent, &other) in shape[ahead..].iter_mut().zip(short) {
        match (*extent, other) {
            (x, y) if x == y => {}
            (1, y) => *extent = y,
            (_, 1) => {}
            _ => return None,
        }
    }
    Some(shape)
}

/// The axes of `from` along which an array of shape `to` was repeated to give it: those that it lacks in front, and
/// those where it has extent 1. `None` where `to` does not broadcast to `from`.
pub(crate) fn repeated_axes(from: &[i64], to: &[i64]) -> Option<Vec<usize>> {
    let ahead = from.len().checked_sub(to.len())?;
    let mut axes: Vec<usize> = (0..ahead).collect();
    for (axis, (&whole, &part)) in (ahead..).zip(from[ahead..].iter().zip(to)) {
        match part {
            _ if part == whole => {}
            1 => axes.push(axis),
            _ => return None,
        }
    }
    Some(axes)
}

/// `shape` without `axes`.
pub(crate) fn without_axes(shape: &[i64], axes: &[usize]) -> Vec<i64> {
    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &extent)| extent).collect()
}

/// `shape` with extent 1 at `axes`.
pub(crate) fn with_ones(shape: &[i64], axes: &[usize]) -> Vec<i64> {
    shape.iter().enumerate().map(|(axis, &extent)| if axes.contains(&axis) { 1 } else { extent }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast_shapes(&[3, 1], &[4]), Some(vec![3, 4]));
        assert_eq!(broadcast_shapes(&[], &[0, 2]), Some(vec![0, 2]));
        assert_eq!(broadcast_shapes(&[1], &[0]), Some(vec![0]));
        assert_eq!(broadcast_shapes(&[3], &[4]), None);
        assert_eq!(repeated_axes(&[5, 3, 4], &[3, 1]), Some(vec![0, 2]));
        assert_eq!(repeated_axes(&[3], &[2]), None);
        assert_eq!(repeated_axes(&[0], &[1]), Some(vec![0]));
    }

    #[test]
    fn products_are_checked() {
        assert!(check_shape("zeros", &[1 << 31, 1 << 31]).is_err());
        assert!(check_shape("zeros", &[1 << 31, 1 << 31, 0]).is_err());
        assert!(check_shape("zeros", &[-1]).is_err());
        assert!(check_shape("zeros", &[1 << 30, 1 << 29]).is_ok());
        assert_eq!(c_strides(&[2, 3, 4]), [12, 4, 1]);
    }
}
