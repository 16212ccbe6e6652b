// SPDX-License-Identifier: GPL-2.0

//! Page tables that change all the time: mappings made, touched and unmapped,
//! and processes forked, which copy what they write to.

use std::io;
use std::ptr;
use std::slice;

use anyhow::{ensure, Context, Result};

use super::crc32::crc32;
use super::Work;

const PAGE: usize = 4096;
/// Pages in a mapping, and mappings in a round.
const PAGES: usize = 256;
const MAPPINGS: usize = 8;
/// Processes in a round, each of which writes to every page of a mapping.
const FORKS: usize = 4;

/// Memory of this process's own, zero and not there until it is touched.
struct Mapping(*mut u8);

impl Mapping {
    fn new() -> Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice touches no
        // other.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGES * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap failed");
        }
        Ok(Self(start.cast()))
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The mapping is so long, initialised to zero by the kernel, and
        // nobody else's while it is borrowed from its only owner.
        unsafe { slice::from_raw_parts_mut(self.0, PAGES * PAGE) }
    }

    /// Adds to a byte in each page, which differs from page to page.
    fn touch(&mut self, seed: usize) {
        for (page, bytes) in self.bytes().chunks_exact_mut(PAGE).enumerate() {
            let byte = &mut bytes[page * 13 % PAGE];
            *byte = byte.wrapping_add((page * 7 + seed) as u8);
        }
    }

    /// The CRC-32 of the bytes that `touch` changes.
    fn checksum(&mut self) -> u32 {
        crc32(
            self.bytes()
                .chunks_exact(PAGE)
                .enumerate()
                .map(|(page, bytes)| bytes[page * 13 % PAGE]),
        )
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: It was mapped by `new`, and what was borrowed from it is gone.
        unsafe { libc::munmap(self.0.cast(), PAGES * PAGE) };
    }
}

/// Has a child process touch the mapping and returns the lowest byte of what it
/// found there then; here, the mapping is what it was.
fn touched_by_child(mapping: &mut Mapping, seed: usize) -> Result<u8> {
    // SAFETY: The child only touches memory of its own and ends: it takes no lock
    // that another thread might have held when it was copied.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        mapping.touch(seed);
        let found = mapping.checksum() as u8;
        // SAFETY: Ends this process and returns to nobody.
        unsafe { libc::_exit(found.into()) };
    }
    ensure!(pid > 0, "fork failed: {}", io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    ensure!(
        waited == pid && libc::WIFEXITED(status),
        "a forked process was killed: status {status:#x}"
    );
    Ok(libc::WEXITSTATUS(status) as u8)
}

fn round() -> Result<u32> {
    let mut found = Vec::new();
    for seed in 0..MAPPINGS {
        let mut mapping = Mapping::new()?;
        mapping.touch(seed);
        found.extend(mapping.checksum().to_le_bytes());
    }
    let mut mapping = Mapping::new()?;
    mapping.touch(0);
    for seed in 0..FORKS {
        found.push(touched_by_child(&mut mapping, seed)?);
    }
    found.extend(mapping.checksum().to_le_bytes());
    Ok(crc32(found))
}

pub fn set_up() -> Work {
    Work {
        round: Box::new(round),
        checksum: 0xaa43_5a57,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_mapping_is_zero() {
        assert_eq!(Mapping::new().unwrap().checksum(), crc32([0; PAGES]));
    }

    #[test]
    fn each_page_is_touched_once() {
        let mut mapping = Mapping::new().unwrap();
        mapping.touch(1);
        let touched = mapping.bytes().iter().filter(|&&byte| byte != 0).count();
        // (page * 7 + 1) modulo 256 is zero for one page of 256.
        assert_eq!(touched, PAGES - 1);
        mapping.touch(1);
        assert_eq!(
            mapping.checksum(),
            crc32((0..PAGES).map(|page| (page * 14 + 2) as u8))
        );
    }
}
