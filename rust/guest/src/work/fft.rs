// SPDX-License-Identifier: GPL-2.0

//! Fast Fourier transform: floating point, and strides through memory.

use std::f64::consts::TAU;
use std::hint::black_box;

use anyhow::ensure;

use super::crc32::crc32;
use super::{Noise, Work};

const POINTS: usize = 8192;
/// What there and back may change in a number not greater than 1.
const ERROR: f64 = 1e-12;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn conjugate(self) -> Self {
        Self {
            re: self.re,
            im: -self.im,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }

    fn times(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }
}

/// The first half of the n-th roots of unity, clockwise.
fn roots(n: usize) -> Vec<Complex> {
    (0..n / 2)
        .map(|k| {
            let (sin, cos) = (TAU * k as f64 / n as f64).sin_cos();
            Complex { re: cos, im: -sin }
        })
        .collect()
}

/// Transforms in place, by Cooley and Tukey: first each value to where its
/// index, the bits reversed, points; then sums of 2, 4, 8 and so on. The number
/// of values must be a power of two, and more than one.
fn transform(values: &mut [Complex], roots: &[Complex]) {
    let n = values.len();
    let bits = n.trailing_zeros();
    for i in 0..n {
        let j = i.reverse_bits() >> (usize::BITS - bits);
        if i < j {
            values.swap(i, j);
        }
    }
    let mut half = 1;
    while half < n {
        let step = n / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let turned = b.times(roots[k * step]);
                (*a, *b) = (a.plus(turned), a.minus(turned));
            }
        }
        half *= 2;
    }
}

/// Back, by way of the conjugates.
fn transform_back(values: &mut [Complex], roots: &[Complex]) {
    for value in values.iter_mut() {
        *value = value.conjugate();
    }
    transform(values, roots);
    let n = values.len() as f64;
    for value in values {
        *value = Complex {
            re: value.re / n,
            im: -value.im / n,
        };
    }
}

pub fn set_up() -> Work {
    let mut noise = Noise(2);
    let mut sample = || f64::from(noise.next() as i16) / 32768.0;
    let signal: Vec<_> = (0..POINTS)
        .map(|_| Complex {
            re: sample(),
            im: sample(),
        })
        .collect();
    let roots = roots(POINTS);
    let round = move || {
        let mut values = black_box(&signal).clone();
        transform(&mut values, &roots);
        // To a thousandth: sines differ in their last bit from one libm to
        // another.
        let checksum = crc32(values.iter().flat_map(|value| {
            let rounded = |x: f64| ((x * 1000.0).round() as i32).to_le_bytes();
            [rounded(value.re), rounded(value.im)].concat()
        }));
        transform_back(&mut values, &roots);
        for (value, original) in values.iter().zip(&signal) {
            let error = value.minus(*original);
            ensure!(
                error.re.abs() < ERROR && error.im.abs() < ERROR,
                "fft: {original:?} came back as {value:?}"
            );
        }
        Ok(checksum)
    };
    Work {
        round: Box::new(round),
        checksum: 0x280e_8bee,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition.
    fn naive(values: &[Complex]) -> Vec<Complex> {
        let n = values.len();
        (0..n)
            .map(|k| {
                (0..n).fold(Complex::default(), |sum, i| {
                    let angle = -TAU * ((i * k) % n) as f64 / n as f64;
                    let root = Complex {
                        re: angle.cos(),
                        im: angle.sin(),
                    };
                    sum.plus(values[i].times(root))
                })
            })
            .collect()
    }

    fn assert_close(got: &[Complex], expected: &[Complex]) {
        for (k, (a, b)) in got.iter().zip(expected).enumerate() {
            let error = a.minus(*b);
            assert!(
                error.re.abs() < 1e-10 && error.im.abs() < 1e-10,
                "value {k} is {a:?}, not {b:?}"
            );
        }
    }

    #[test]
    fn as_defined() {
        let mut noise = Noise(3);
        for n in [2, 4, 8, 64, 256] {
            let values: Vec<_> = (0..n)
                .map(|_| Complex {
                    re: f64::from(noise.next()) / 65536.0,
                    im: f64::from(noise.next()) / 65536.0,
                })
                .collect();
            let mut transformed = values.clone();
            transform(&mut transformed, &roots(n));
            assert_close(&transformed, &naive(&values));
            transform_back(&mut transformed, &roots(n));
            assert_close(&transformed, &values);
        }
    }

    #[test]
    fn a_tone_is_one_line() {
        let n = 32;
        let mut values: Vec<_> = (0..n)
            .map(|i| {
                let (sin, cos) = (TAU * 5.0 * i as f64 / n as f64).sin_cos();
                Complex { re: cos, im: sin }
            })
            .collect();
        transform(&mut values, &roots(n));
        let mut expected = vec![Complex::default(); n];
        expected[5].re = n as f64;
        assert_close(&values, &expected);
    }
}
