// SPDX-License-Identifier: GPL-2.0

//! Workloads that any Linux can run: to be compared on a machine and in its
//! guests. Each does the same in every round, from the same input, so that the
//! checksum of a round is known beforehand.

mod adpcm;
mod crc32;
mod dct;
mod fft;
mod pages;

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{ensure, Result};
use clap::ValueEnum;

/// Do some work, and time it
///
/// Prints `work NAME rounds N checksum C ns T`: T nanoseconds by this machine's
/// clock for N rounds. Fails if any round's checksum is not what it must be. No
/// rounds are nothing but the set-up, which is not in T.
#[derive(clap::Args)]
pub struct Args {
    /// What to do
    name: Name,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// CRC-32 of a megabyte
    Crc32,
    /// Fourier transform of 8192 points, and back
    Fft,
    /// IMA ADPCM of four seconds of sound, and back
    Adpcm,
    /// Cosine transform and quantisation of an image's blocks, as JPEG has it
    Dct,
    /// Mappings made, touched and unmapped, and processes that copy on write
    Pages,
}

/// A workload that is set up.
struct Work {
    /// Does one round, and returns its checksum.
    round: Box<dyn FnMut() -> Result<u32>>,
    /// The checksum that it must have: what another program, in another
    /// language, made of the same input.
    checksum: u32,
}

impl Name {
    fn set_up(self) -> Work {
        match self {
            Name::Crc32 => crc32::set_up(),
            Name::Fft => fft::set_up(),
            Name::Adpcm => adpcm::set_up(),
            Name::Dct => dct::set_up(),
            Name::Pages => pages::set_up(),
        }
    }

    fn word(self) -> String {
        self.to_possible_value()
            .map_or(String::new(), |value| value.get_name().to_string())
    }
}

/// Works, checks, and prints how long it took.
pub fn run(args: &Args) -> Result<()> {
    let name = args.name.word();
    let mut work = args.name.set_up();
    let begin = Instant::now();
    for round in 1..=args.rounds {
        let checksum = (work.round)()?;
        ensure!(
            checksum == work.checksum,
            "{name}: the checksum of round {round} is {checksum:#010x}, not {:#010x}",
            work.checksum
        );
    }
    writeln!(
        io::stdout(),
        "work {name} rounds {} checksum {:#010x} ns {}",
        args.rounds,
        work.checksum,
        begin.elapsed().as_nanos()
    )?;
    Ok(())
}

/// Numbers that look random and are the same everywhere: a linear congruential
/// generator modulo 2^32, of which the upper half is used.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u16 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_the_known_checksum() {
        for name in Name::value_variants() {
            let mut work = name.set_up();
            for round in 1..=2 {
                let checksum = (work.round)().unwrap();
                assert_eq!(checksum, work.checksum, "{}, round {round}", name.word());
            }
        }
    }
}
