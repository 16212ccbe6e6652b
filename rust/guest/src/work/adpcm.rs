// SPDX-License-Identifier: GPL-2.0

//! IMA ADPCM: sixteen bits of sound in four, by small steps whose size follows
//! the signal. Branches that are hard to predict, and nothing to do in parallel.

use std::hint::black_box;

use super::crc32::crc32;
use super::{Noise, Work};

/// Four seconds of telephone sound.
const SAMPLES: usize = 32_000;

/// Step sizes and how a code moves among them, from the IMA's recommended
/// practices for digital audio (1992).
#[rustfmt::skip]
const STEPS: [i32; 89] = [
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45,
    50, 55, 60, 66, 73, 80, 88, 97, 107, 118, 130, 143, 157, 173, 190, 209, 230,
    253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327,
    3660, 4026, 4428, 4871, 5358, 5894, 6484, 7132, 7845, 8630, 9493, 10442,
    11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
];
const MOVES: [i32; 8] = [-1, -1, -1, -1, 2, 4, 6, 8];

/// What both sides know: the sample last decoded, and the step.
#[derive(Default)]
struct State {
    sample: i32,
    step: usize,
}

impl State {
    fn encode(&mut self, sample: i16) -> u8 {
        let difference = i32::from(sample) - self.sample;
        let mut rest = difference.abs();
        let mut code = if difference < 0 { 8 } else { 0 };
        let mut step = STEPS[self.step];
        for bit in [4, 2, 1] {
            if rest >= step {
                code |= bit;
                rest -= step;
            }
            step >>= 1;
        }
        self.decode(code);
        code
    }

    /// A code's three bits are so many halves, quarters and eighths of twice
    /// the step, and an eighth for rounding; the fourth is the sign.
    fn decode(&mut self, code: u8) -> i16 {
        let step = STEPS[self.step];
        let mut difference = step >> 3;
        for (bit, part) in [(4, step), (2, step >> 1), (1, step >> 2)] {
            if code & bit != 0 {
                difference += part;
            }
        }
        if code & 8 != 0 {
            difference = -difference;
        }
        let sample = (self.sample + difference).clamp(-32768, 32767);
        let moved = self.step as i32 + MOVES[usize::from(code & 7)];
        self.sample = sample;
        self.step = moved.clamp(0, STEPS.len() as i32 - 1) as usize;
        sample as i16
    }
}

/// Two samples to a byte, the first in its upper half.
fn encode(sound: &[i16]) -> Vec<u8> {
    let mut state = State::default();
    sound
        .chunks_exact(2)
        .map(|pair| (state.encode(pair[0]) << 4) | state.encode(pair[1]))
        .collect()
}

fn decode(codes: &[u8]) -> Vec<i16> {
    let mut state = State::default();
    codes
        .iter()
        .flat_map(|byte| [state.decode(byte >> 4), state.decode(byte & 15)])
        .collect()
}

/// Two triangular waves that beat against each other, and some noise.
fn sound() -> Vec<i16> {
    let triangle = |i: i32, period: i32| (i % period - period / 2).abs() * 20_000 / period;
    let mut noise = Noise(4);
    (0..SAMPLES as i32)
        .map(|i| {
            let hiss = i32::from(noise.next() >> 7);
            (triangle(i, 90) + triangle(i, 95) + hiss - 10_000) as i16
        })
        .collect()
}

pub fn set_up() -> Work {
    let sound = sound();
    let round = move || {
        let codes = encode(black_box(&sound));
        let decoded = decode(&codes);
        let decoded = decoded.iter().flat_map(|sample| sample.to_le_bytes());
        Ok(crc32(codes.iter().copied().chain(decoded)))
    };
    Work {
        round: Box::new(round),
        checksum: 0x0e56_bbca,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_grow_by_a_tenth() {
        assert!(STEPS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(STEPS[20..]
            .windows(2)
            .all(|pair| (pair[1] * 100 / pair[0] - 110).abs() <= 1));
    }

    /// Where the signal moves no faster than the step can follow, what comes back
    /// is off by an eighth of the step, and what is lost in dividing it.
    #[test]
    fn there_and_back() {
        let sound = sound();
        let (mut encoder, mut decoder) = (State::default(), State::default());
        let mut too_fast = 0;
        for (i, &sample) in sound.iter().enumerate() {
            let step = STEPS[encoder.step];
            let difference = (i32::from(sample) - encoder.sample).abs();
            let decoded = decoder.decode(encoder.encode(sample));
            assert_eq!(i32::from(decoded), encoder.sample);
            if difference >= 2 * step - 3 {
                too_fast += 1;
                continue;
            }
            let error = (i32::from(sample) - i32::from(decoded)).abs();
            assert!(
                error <= step / 8 + 3,
                "sample {i} is off by {error}, the step being {step}"
            );
        }
        assert!(too_fast < SAMPLES / 10, "{too_fast} samples were too fast");
        let noise: i64 = sound
            .iter()
            .zip(decode(&encode(&sound)))
            .map(|(&a, b)| (i64::from(a) - i64::from(b)).pow(2))
            .sum();
        let signal: i64 = sound.iter().map(|&a| i64::from(a).pow(2)).sum();
        assert!(noise * 100 < signal, "noise {noise}, signal {signal}");
    }

    #[test]
    fn extremes_do_not_overflow() {
        let square: Vec<i16> = (0..1000)
            .map(|i| if i / 50 % 2 == 0 { i16::MAX } else { i16::MIN })
            .collect();
        let decoded = decode(&encode(&square));
        assert!(
            decoded[949] > 32_000 && decoded[999] < -32_000,
            "{:?}",
            &decoded[940..]
        );
    }

    #[test]
    fn silence_stays_silent() {
        assert!(decode(&encode(&[0; 100]))
            .iter()
            .all(|sample| sample.abs() <= 1));
    }
}
