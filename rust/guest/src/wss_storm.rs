// SPDX-License-Identifier: GPL-2.0

//! Tracking switched on and off from outside, in VMs that are killed in the
//! middle of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

use crate::machine::{Machine, Shape, Space};
use crate::pages::{self, Program, DATA, MAX_VCPUS, PAGE};
use crate::tracking::Tracking;

/// Track VMs that come and go, from another process, and kill them at random
///
/// Each VM is a process of its own whose guest writes without end until it is sent
/// SIGKILL, which may also come while it is still being set up. This process
/// starts and stops its tracking at random, changes the parameters, and reads
/// what there is to read. Prints `wss-storm vms N switched N read N late N`: how
/// often tracking was switched, and files were read, of a VM that was there; and
/// how many files that were open when their VM was killed were read after that.
#[derive(clap::Args)]
pub struct Args {
    /// How many VMs
    #[arg(long, value_name = "N", default_value_t = 100)]
    vms: u32,
    /// vCPUs in each
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// How many exist at a time
    #[arg(long, value_name = "P", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// A VM is killed at most so many milliseconds after it was started
    #[arg(long, value_name = "MS", default_value_t = 400)]
    within: u64,
    /// Seed of the random moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A VM in a child process.
struct Victim {
    pid: libc::pid_t,
    /// Where it says which descriptor its VM has.
    shared: MmapRegion,
    dies: Instant,
}

#[derive(Default)]
struct Tally {
    switched: u64,
    read: u64,
    late: u64,
}

/// Creates, tracks and kills the VMs.
pub fn run(args: &Args) -> Result<()> {
    // Otherwise the children would be the ones to say so, by the hundred.
    drop(Machine::new(
        Arc::new(Space::new(16 << 20, false)?),
        Shape::default(),
    )?);
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut alive: Vec<Victim> = Vec::new();
    let mut tally = Tally::default();
    let mut started = 0;
    while started < args.vms || !alive.is_empty() {
        while started < args.vms && alive.len() < args.parallel as usize {
            let delay = Duration::from_micros(random.u64(0..=args.within * 1000));
            alive.push(Victim::start(args, random.u32(..), delay)?);
            started += 1;
        }
        thread::sleep(Duration::from_micros(random.u64(0..2000)));
        let chosen = random.usize(0..alive.len());
        alive[chosen].disturb(&mut random, &mut tally)?;
        let now = Instant::now();
        while let Some(next) = alive.iter().position(|victim| victim.dies <= now) {
            alive.swap_remove(next).kill(&mut tally)?;
        }
    }
    writeln!(
        io::stdout(),
        "wss-storm vms {} switched {} read {} late {}",
        args.vms,
        tally.switched,
        tally.read,
        tally.late
    )?;
    Ok(())
}

impl Victim {
    fn start(args: &Args, seed: u32, delay: Duration) -> Result<Self> {
        let shared = MmapRegion::build(
            None,
            PAGE as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        )
        .context("no memory")?;
        // SAFETY: This process has no thread but this one, so the child is a
        // whole copy of it, with no lock held by a thread that is not there.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()).context("fork failed"),
            0 => {
                let Err(error) = scribble(args, seed, &shared);
                eprintln!("guest: {error:#}");
                std::process::exit(1);
            }
            _ => Ok(Self {
                pid,
                shared,
                dies: Instant::now() + delay,
            }),
        }
    }

    /// Its tracking, once there is a VM.
    fn tracking(&self) -> Result<Option<Tracking>> {
        let fd: u32 = self.shared.as_volatile_slice().load(0, Ordering::Acquire)?;
        Ok((fd != 0).then(|| Tracking::of(self.pid as u32, fd as i32)))
    }

    fn disturb(&self, random: &mut fastrand::Rng, tally: &mut Tally) -> Result<()> {
        let Some(tracking) = self.tracking()? else {
            return Ok(());
        };
        let file = ["estimate", "history", "pages", "active"][random.usize(0..4)];
        match random.u32(0..6) {
            0..3 => tracking.set("active", random.u64(0..=1))?,
            3 => {
                tracking.set("period_ms", random.u64(10..=30))?;
                tracking.set("intervals", random.u64(1..=10))?;
                return Ok(());
            }
            _ => {
                tracking
                    .read(file)
                    .with_context(|| format!("reading wss/{file}"))?;
                tally.read += 1;
                return Ok(());
            }
        }
        tally.switched += 1;
        Ok(())
    }

    fn kill(self, tally: &mut Tally) -> Result<()> {
        // Opened while it lives, read when it is dead.
        let open = match self.tracking()? {
            Some(tracking) => ["estimate", "history", "pages"]
                .into_iter()
                .map(|name| tracking.open(name))
                .collect::<io::Result<Vec<File>>>()
                .context("opening a file of a VM that lives")?,
            None => Vec::new(),
        };
        // SAFETY: The process is a child of ours that has not been waited for,
        // so the number is still its own.
        let failed = unsafe { libc::kill(self.pid, libc::SIGKILL) };
        ensure!(failed == 0, "kill failed: {}", io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        ensure!(waited == self.pid, "a VM's process is gone unwaited for");
        ensure!(
            libc::WIFSIGNALED(status),
            "a VM ended by itself before it was killed"
        );
        for mut file in open {
            // An error or an end are both right: the file is gone from debugfs.
            let _ = file.read_to_end(&mut Vec::new());
            tally.late += 1;
        }
        Ok(())
    }
}

/// Runs a guest that never ends; returns only if it could not be run.
fn scribble(args: &Args, seed: u32, shared: &MmapRegion) -> Result<std::convert::Infallible> {
    let space = Arc::new(Space::new(32 << 20, false)?);
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let fd = machine.fd.as_raw_fd() as u32;
    shared.as_volatile_slice().store(fd, 0, Ordering::Release)?;
    let mut vcpus = Vec::new();
    for index in 0..args.vcpus {
        let vcpu = machine.vcpu(index, Program::Scribble)?;
        vcpu.set(pages::SEED, seed.wrapping_add(index))?;
        vcpu.set(pages::WORD, 4 * index)?;
        vcpu.set(pages::BASE, DATA as u32)?;
        vcpu.set(pages::COUNT, 2000)?;
        vcpu.set(pages::PACE, 100)?;
        vcpu.start()?;
        vcpus.push(vcpu);
    }
    for vcpu in &vcpus {
        vcpu.wait()?;
    }
    bail!("the endless guest came to an end")
}
