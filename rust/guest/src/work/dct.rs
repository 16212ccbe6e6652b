// SPDX-License-Identifier: GPL-2.0

//! Cosine transform of an image's blocks of 8 x 8, quantised: what JPEG does
//! before it packs bits. Multiplications of integers, and all of it cacheable.

use std::f64::consts::PI;
use std::hint::black_box;

use super::crc32::crc32;
use super::{Noise, Work};

/// The image is a square of so many pixels.
const SIDE: usize = 256;
const N: usize = 8;
type Block = [i32; N * N];

/// Coefficients are integers of so many bits after the point; the first pass
/// keeps some of them, so that rounding does not show.
const BITS: u32 = 13;
const KEPT: u32 = 4;

/// Quantisation of brightness: ITU-T T.81, table K.1.
#[rustfmt::skip]
const QUANTA: Block = [
    16,  11,  10,  16,  24,  40,  51,  61,
    12,  12,  14,  19,  26,  58,  60,  55,
    14,  13,  16,  24,  40,  57,  69,  56,
    14,  17,  22,  29,  51,  87,  80,  62,
    18,  22,  37,  56,  68, 109, 103,  77,
    24,  35,  55,  64,  81, 104, 113,  92,
    49,  64,  78,  87, 103, 121, 120, 101,
    72,  92,  95,  98, 112, 100, 103,  99,
];

/// Row u: the cosine of u half-waves over 8 pixels, made a unit vector.
fn cosines() -> Block {
    std::array::from_fn(|i| {
        let (u, x) = (i / N, i % N);
        let scale = if u == 0 { 0.125f64.sqrt() } else { 0.5 };
        let cosine = ((2 * x + 1) as f64 * u as f64 * PI / 16.0).cos();
        (scale * cosine * f64::from(1 << BITS)).round() as i32
    })
}

/// Divided by a power of two and rounded.
fn shifted(value: i32, bits: u32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// The rows' transforms, as columns: done twice, it is the block's transform.
fn transform_rows(block: &Block, cosines: &Block, bits: u32) -> Block {
    std::array::from_fn(|i| {
        let (u, y) = (i / N, i % N);
        let row = &block[y * N..][..N];
        let sum = row.iter().zip(&cosines[u * N..][..N]).map(|(a, b)| a * b);
        shifted(sum.sum(), bits)
    })
}

fn transform(block: &Block, cosines: &Block) -> Block {
    let columns = transform_rows(block, cosines, BITS - KEPT);
    transform_rows(&columns, cosines, BITS + KEPT)
}

/// The nearest multiple, halves away from zero.
fn quantise(block: &Block) -> Block {
    std::array::from_fn(|i| {
        let half = QUANTA[i] / 2;
        (block[i] + half * block[i].signum()) / QUANTA[i]
    })
}

/// A slope, a chequered pattern and noise, from 0 to 255.
fn image() -> Vec<u8> {
    let mut noise = Noise(5);
    (0..SIDE * SIDE)
        .map(|i| {
            let (y, x) = (i / SIDE, i % SIDE);
            let slope = (x + 2 * y) / 6;
            let chequer = if (x / 20 + y / 12) % 2 == 0 { 90 } else { 0 };
            (slope + chequer + usize::from(noise.next() >> 11)) as u8
        })
        .collect()
}

/// Block (by, bx) of an image, black being -128.
fn block_at(image: &[u8], by: usize, bx: usize) -> Block {
    std::array::from_fn(|i| {
        let (y, x) = (by * N + i / N, bx * N + i % N);
        i32::from(image[y * SIDE + x]) - 128
    })
}

pub fn set_up() -> Work {
    let image = image();
    let cosines = cosines();
    let round = move || {
        let image = black_box(&image);
        let blocks = SIDE / N;
        Ok(crc32((0..blocks * blocks).flat_map(|i| {
            let block = block_at(image, i / blocks, i % blocks);
            let quantised = quantise(&transform(&block, &cosines));
            quantised.map(|level| level as u8)
        })))
    };
    Work {
        round: Box::new(round),
        checksum: 0xeece_f16f,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, T.81 A.3.3.
    fn naive(block: &Block) -> [f64; N * N] {
        std::array::from_fn(|i| {
            let (v, u) = (i / N, i % N);
            let scale = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
            let cosine = |k: usize, x: usize| ((2 * x + 1) as f64 * k as f64 * PI / 16.0).cos();
            let sum: f64 = (0..N * N)
                .map(|p| f64::from(block[p]) * cosine(v, p / N) * cosine(u, p % N))
                .sum();
            sum * scale(u) * scale(v) / 4.0
        })
    }

    fn assert_close(block: &Block) {
        let transformed = transform(block, &cosines());
        for (i, (got, expected)) in transformed.iter().zip(naive(block)).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(error < 1.0, "coefficient {i} is {got}, not {expected}");
        }
    }

    #[test]
    fn as_defined() {
        let image = image();
        for i in 0..SIDE / N {
            assert_close(&block_at(&image, i, SIDE / N - 1 - i));
        }
        assert_close(&[127; N * N]);
        assert_close(&[-128; N * N]);
        assert_close(&std::array::from_fn(
            |i| if i % 2 == 0 { 127 } else { -128 },
        ));
    }

    #[test]
    fn an_even_block_is_one_level() {
        let quantised = quantise(&transform(&[50; N * N], &cosines()));
        assert_eq!(quantised[0], 400 / 16);
        assert!(quantised[1..].iter().all(|&level| level == 0));
    }

    #[test]
    fn quanta_are_rounded_to() {
        let level = |value: i32| quantise(&[value; N * N])[0];
        assert_eq!([7, 8, 23, 24, 40].map(level), [0, 1, 1, 2, 3]);
        assert_eq!([-7, -8, -23, -24, -40].map(level), [0, -1, -1, -2, -3]);
    }
}
