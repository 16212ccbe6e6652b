// SPDX-License-Identifier: GPL-2.0

//! Which pages of a guest are in use by the kernel's own account: idle page
//! tracking, which marks pages and takes the mark off those that are accessed,
//! by the host's page tables or KVM's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};

use crate::machine::Space;
use crate::pages::PAGE;

const BITMAP: &str = "/sys/kernel/mm/page_idle/bitmap";
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// The kernel takes and gives at most a page of the bitmap at once.
const CHUNK: usize = PAGE as usize;

/// The frames of a guest's memory, and the kernel's bitmap of all frames. That
/// they stay where they are is up to the caller: nothing may be given back.
pub struct Idle {
    bitmap: File,
    /// Of the pages that have one.
    frames: Vec<u64>,
}

impl Idle {
    /// Of all pages of the guest that the host has by now.
    pub fn new(space: &Space) -> Result<Self> {
        let bitmap = OpenOptions::new().read(true).write(true).open(BITMAP);
        let bitmap = bitmap.with_context(|| {
            format!("{BITMAP}: is the kernel without CONFIG_IDLE_PAGE_TRACKING?")
        })?;
        let pages = space.whole() / PAGE;
        let mut bytes = vec![0; pages as usize * 8];
        File::open("/proc/self/pagemap")
            .and_then(|map| map.read_exact_at(&mut bytes, space.base() / PAGE * 8))
            .context("/proc/self/pagemap")?;
        let mut frames: Vec<u64> = words(&bytes)
            .filter(|entry| entry & PRESENT != 0)
            .map(|entry| entry & FRAME)
            .collect();
        frames.sort_unstable();
        ensure!(
            frames.first().is_some_and(|&frame| frame != 0),
            "/proc/self/pagemap tells no frames: become root"
        );
        Ok(Self { bitmap, frames })
    }

    /// Where in the bitmap the frames lie, in words.
    fn span(&self) -> (usize, usize) {
        let word = |frame: Option<&u64>| frame.map_or(0, |frame| (frame / 64) as usize);
        (word(self.frames.first()), word(self.frames.last()) + 1)
    }

    /// Marks them all.
    pub fn mark(&self) -> Result<()> {
        let (first, end) = self.span();
        let mut marks = vec![0u64; end - first];
        for &frame in &self.frames {
            marks[(frame / 64) as usize - first] |= 1 << (frame % 64);
        }
        let bytes: Vec<u8> = marks.iter().flat_map(|word| word.to_ne_bytes()).collect();
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let at = first * 8 + index * CHUNK;
            let written = self.bitmap.write_all_at(chunk, at as u64);
            written.with_context(|| format!("writing to {BITMAP}"))?;
        }
        Ok(())
    }

    /// How many have lost their mark: accessed since, or never marked, because
    /// the kernel has not put them on a list of its own yet.
    pub fn unmarked(&self) -> Result<u64> {
        let (first, end) = self.span();
        let mut bytes = vec![0; (end - first) * 8];
        for (index, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            let at = first * 8 + index * CHUNK;
            let read = self.bitmap.read_exact_at(chunk, at as u64);
            read.with_context(|| format!("reading {BITMAP}"))?;
        }
        let marks: Vec<u64> = words(&bytes).collect();
        let marked =
            |frame: &&u64| (marks[(**frame / 64) as usize - first] >> (**frame % 64)) & 1 != 0;
        Ok((self.frames.len() - self.frames.iter().filter(marked).count()) as u64)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| {
        let mut fixed = [0; 8];
        fixed.copy_from_slice(word);
        u64::from_ne_bytes(fixed)
    })
}
