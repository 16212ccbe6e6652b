// SPDX-License-Identifier: GPL-2.0

//! System calls at random on every file of kvmscope, while VMs come and go.

mod calls;
mod targets;

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

use crate::machine::{Machine, Shape, Space};
use crate::pages::PAGE;
use crate::victim::{end_with_parent, Victim};
use calls::Caller;
use targets::KNOBS;

/// Make system calls at random on the knobs and files, while VMs come and go
///
/// Several processes open, read, write, seek, map, poll and close the files with
/// random sizes, offsets, words and pointers; VMs that are created and killed at
/// random moments are what the files are about. No call may return more than was
/// asked for, write beyond a buffer's end, or fail with a number that is not for
/// userspace; and the knobs must hold what is documented at the end, when they are
/// set to their defaults. What else goes wrong is for the kernel to notice. The
/// n-th call of each process follows from the seed and n alone. Prints `fuzz seed N
/// operations N succeeded N vms N`.
#[derive(clap::Args)]
pub struct Args {
    /// How many calls in all
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    operations: u64,
    /// Seed of it all
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many processes make them
    #[arg(long, value_name = "P", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    processes: u32,
    /// How many VMs exist at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    vms: u32,
    /// A VM is killed at most so many milliseconds after it was started
    #[arg(long, value_name = "MS", default_value_t = 400)]
    within: u64,
}

/// How many VMs may be dying at a time.
const DYING: usize = 12;

/// Calls wait for VMs, so that this many come during them however fast they are.
const EPOCHS: u64 = 8;

/// Where a process says how far it is, or how many VMs there have been.
struct Progress(MmapRegion);

impl Progress {
    fn new() -> Result<Self> {
        MmapRegion::build(
            None,
            PAGE as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        )
        .map(Self)
        .context("no memory")
    }

    fn set(&self, done: u64, succeeded: u64) -> Result<()> {
        let page = self.0.as_volatile_slice();
        page.store(succeeded, 8, Ordering::Relaxed)?;
        Ok(page.store(done, 0, Ordering::Release)?)
    }

    fn get(&self) -> Result<(u64, u64)> {
        let page = self.0.as_volatile_slice();
        let done = page.load(0, Ordering::Acquire)?;
        Ok((done, page.load(8, Ordering::Relaxed)?))
    }
}

/// A process that makes calls.
struct Process {
    pid: libc::pid_t,
    progress: Progress,
}

impl Process {
    fn start(args: &Args, index: u32, vms: &Progress) -> Result<Self> {
        let progress = Progress::new()?;
        // SAFETY: This process has no thread but this one, so the child is a
        // whole copy of it, with no lock held by a thread that is not there.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()).context("fork failed"),
            0 => {
                end_with_parent();
                let status = match call(args, index, &progress, vms) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("guest: process {index}: {error:#}");
                        1
                    }
                };
                std::process::exit(status);
            }
            _ => Ok(Self { pid, progress }),
        }
    }

    /// Whether it has come to its end, which must be a good one.
    fn is_over(&self) -> Result<bool> {
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        match unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } {
            0 => Ok(false),
            pid if pid == self.pid => {
                ensure!(
                    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
                    "a process that made calls ended with status {status:#x}"
                );
                Ok(true)
            }
            _ => Err(io::Error::last_os_error()).context("waitpid failed"),
        }
    }
}

/// Makes one process's share of the calls.
fn call(args: &Args, index: u32, progress: &Progress, vms: &Progress) -> Result<()> {
    let mut caller = Caller::new()?;
    let share = args.operations.div_ceil(args.processes.into());
    let mut succeeded = 0;
    for number in 0..share {
        while vms.get()?.0 < number * EPOCHS / share {
            thread::sleep(Duration::from_millis(1));
        }
        // So that a call does not depend on what became of those before it.
        let seed = (args.seed << 40) ^ (u64::from(index) << 32) ^ number;
        let mut random = fastrand::Rng::with_seed(seed);
        let done = caller.step(&mut random);
        succeeded += u64::from(done.with_context(|| format!("call {number}"))?);
        progress.set(number + 1, succeeded)?;
    }
    Ok(())
}

/// Has the calls made, and VMs come and go meanwhile.
pub fn run(args: &Args) -> Result<()> {
    // Otherwise the children would be the ones to say so, by the hundred.
    drop(Machine::new(
        Arc::new(Space::new(16 << 20, false)?),
        Shape::default(),
    )?);
    let mut random = fastrand::Rng::with_seed(args.seed);
    let started = Progress::new()?;
    let processes = (0..args.processes)
        .map(|index| Process::start(args, index, &started))
        .collect::<Result<Vec<_>>>()?;
    let mut running: Vec<&Process> = processes.iter().collect();
    let mut alive: Vec<(Victim, Instant)> = Vec::new();
    // It takes a VM longer to die than to be created.
    let mut dying: Vec<Victim> = Vec::new();
    let (mut vms, mut told) = (0, 0);
    while !running.is_empty() {
        while alive.len() < args.vms as usize && dying.len() < DYING {
            let delay = Duration::from_micros(random.u64(0..=args.within * 1000));
            let victim = Victim::start(random.u32(1..=2), random.u32(..))?;
            alive.push((victim, Instant::now() + delay));
            vms += 1;
            started.set(vms, 0)?;
        }
        thread::sleep(Duration::from_millis(2));
        let now = Instant::now();
        while let Some(next) = alive.iter().position(|(_, dies)| *dies <= now) {
            let (victim, _) = alive.swap_remove(next);
            victim.shoot()?;
            dying.push(victim);
        }
        let mut index = 0;
        while index < dying.len() {
            if dying[index].is_dead()? {
                dying.swap_remove(index);
            } else {
                index += 1;
            }
        }
        let mut index = 0;
        while index < running.len() {
            if running[index].is_over()? {
                running.swap_remove(index);
            } else {
                index += 1;
            }
        }
        let tenth = 10 * sum(&processes)?.0 / args.operations;
        if tenth > told {
            told = tenth;
            writeln!(io::stdout(), "fuzz {}0 percent", told.min(10))?;
        }
    }
    for victim in alive.into_iter().map(|(victim, _)| victim).chain(dying) {
        victim.kill()?;
    }
    settle()?;
    let (operations, succeeded) = sum(&processes)?;
    writeln!(
        io::stdout(),
        "fuzz seed {} operations {operations} succeeded {succeeded} vms {vms}",
        args.seed
    )?;
    Ok(())
}

/// Calls made, and those that succeeded.
fn sum(processes: &[Process]) -> Result<(u64, u64)> {
    processes.iter().try_fold((0, 0), |sum, process| {
        let (done, succeeded) = process.progress.get()?;
        Ok((sum.0 + done, sum.1 + succeeded))
    })
}

/// The knobs hold what they may hold, and then what they hold by default.
fn settle() -> Result<()> {
    for (name, default, others) in [
        ("exits", "1", &["0"][..]),
        ("latency", "0", &["1"]),
        ("autostart", "none", &["wss", "sample", "both"]),
    ] {
        let path = format!("{KNOBS}/{name}");
        let word = match fs::read_to_string(&path) {
            Ok(word) => word,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {path}")),
        };
        let word = word.trim_end_matches('\n');
        if word != default && !others.contains(&word) {
            bail!("{path} holds {word:?}");
        }
        fs::write(&path, default).with_context(|| format!("writing {default} to {path}"))?;
    }
    Ok(())
}
