// SPDX-License-Identifier: GPL-2.0

//! CRC-32 (that of IEEE 802.3, PNG and zlib), a byte at a time: table look-ups
//! and little else.

use std::hint::black_box;

use super::{Noise, Work};

/// The polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (POLYNOMIAL * (rest & 1));
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
}

/// The CRC-32 of these bytes; the other workloads take it of what they produce.
pub fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0, |rest: u32, byte| {
        (rest >> 8) ^ TABLE[usize::from(rest as u8 ^ byte)]
    })
}

pub fn set_up() -> Work {
    let mut noise = Noise(1);
    let bytes: Vec<u8> = (0..1 << 20).map(|_| noise.next() as u8).collect();
    Work {
        round: Box::new(move || Ok(crc32(black_box(&bytes).iter().copied()))),
        checksum: 0x14dd_b152,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(crc32(*b""), 0);
        assert_eq!(crc32(*b"a"), 0xe8b7_be43);
        assert_eq!(crc32(*b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32([0; 32]), 0x190a_55ad);
    }
}
