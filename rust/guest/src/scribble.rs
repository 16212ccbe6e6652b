// SPDX-License-Identifier: GPL-2.0

//! Memory that is written to all the time, and remembers what it should hold.

use std::io::{self, Write};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Write to memory for ever, and check it
///
/// Runs in any Linux, a guest as well. Each thread goes over its pages at random;
/// before it writes to one, that must still hold what was written there last.
/// Every now and then prints `scribble writes N`; ends, and fails, with `scribble
/// page P has X, not Y` when one does not.
#[derive(clap::Args)]
pub struct Args {
    /// Pages of each thread
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pages: u32,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Time from one line to the next
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

/// 64-bit words in a page.
const WORDS: usize = 512;

/// Pages with a word each, and when each of them was written last.
struct Pages {
    words: Vec<u64>,
    last: Vec<u64>,
    random: fastrand::Rng,
    writes: u64,
}

impl Pages {
    fn new(pages: u32, seed: u64) -> Self {
        Self {
            words: vec![0; pages as usize * WORDS],
            last: vec![0; pages as usize],
            random: fastrand::Rng::with_seed(seed),
            writes: 0,
        }
    }

    /// What a page holds that was written by the given write: zeros before the first.
    fn value(page: usize, write: u64) -> u64 {
        write.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ if write == 0 { 0 } else { page as u64 }
    }

    /// Checks a page at random and writes to it.
    fn step(&mut self) -> Result<(), String> {
        let page = self.random.usize(..self.last.len());
        // Not at the same place in each page.
        let word = &mut self.words[page * WORDS + page * 13 % WORDS];
        let due = Self::value(page, self.last[page]);
        if *word != due {
            return Err(format!("scribble page {page} has {word:#x}, not {due:#x}"));
        }
        self.writes += 1;
        self.last[page] = self.writes;
        *word = Self::value(page, self.writes);
        Ok(())
    }
}

/// Writes until it is killed, or finds that something is wrong.
pub fn run(args: &Args) -> Result<()> {
    let writes = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..args.threads {
            let (writes, mut pages) = (&writes, Pages::new(args.pages, thread.into()));
            scope.spawn(move || loop {
                for _ in 0..1000 {
                    if let Err(wrong) = pages.step() {
                        println!("{wrong}");
                        process::exit(1);
                    }
                }
                writes.fetch_add(1000, Ordering::Relaxed);
            });
        }
        loop {
            thread::sleep(Duration::from_millis(args.every));
            writeln!(
                io::stdout(),
                "scribble writes {}",
                writes.load(Ordering::Relaxed)
            )
            .context("cannot say how far it is")?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_while_memory_holds() {
        let mut pages = Pages::new(10, 1);
        for _ in 0..1000 {
            pages.step().unwrap();
        }
        assert!(pages.last.iter().all(|&write| write > 0));
    }

    #[test]
    fn a_page_of_a_moment_ago_is_noticed() {
        let mut pages = Pages::new(10, 1);
        for _ in 0..100 {
            pages.step().unwrap();
        }
        let old = pages.words.clone();
        for _ in 0..100 {
            pages.step().unwrap();
        }
        pages.words[3 * WORDS..4 * WORDS].copy_from_slice(&old[3 * WORDS..4 * WORDS]);
        let wrong = (0..1000).find_map(|_| pages.step().err()).unwrap();
        assert!(wrong.starts_with("scribble page 3 has "), "{wrong}");
    }
}
