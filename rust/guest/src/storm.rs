// SPDX-License-Identifier: GPL-2.0

//! Guests that are killed in the middle of things.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::code::{Kind, Program};
use crate::victim::end_with_parent;
use crate::vm::{Memory, Vm, MAX_VCPUS};

/// Create VMs by the hundred and kill each at a random moment
///
/// Each VM is a process of its own that executes CPUID without end until it is
/// sent SIGKILL, which may also come while it is still being set up. Prints
/// `storm vms N vcpus N cpuid N`: the number of vCPUs in all of them, and the
/// sum of the CPUIDs that the guests saw completed. Each vCPU may have been
/// killed between an exit and counting it, so the true number of CPUID exits
/// lies between that sum and that sum plus the number of vCPUs.
#[derive(clap::Args)]
pub struct Args {
    /// How many VMs
    #[arg(long, value_name = "N", default_value_t = 200)]
    vms: u32,
    /// vCPUs in each
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// How many exist at a time
    #[arg(long, value_name = "P", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// A VM is killed at most so many milliseconds after it was started
    #[arg(long, value_name = "MS", default_value_t = 60)]
    within: u64,
    /// Seed of the random moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print a line per VM, too
    #[arg(long)]
    each: bool,
}

/// How many VMs may be dying at a time.
const DYING: usize = 16;

/// A VM in a child process.
struct Victim {
    pid: libc::pid_t,
    memory: Memory,
    dies: Instant,
}

/// Creates and kills the VMs, a few at a time.
pub fn run(args: &Args) -> Result<()> {
    // Otherwise the children would be the ones to say so, by the hundred.
    drop(Vm::new(&Memory::new()?, false)?);

    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut alive: Vec<Victim> = Vec::new();
    // Dying takes a VM longer than being created. To wait for it every time
    // would keep the others alive for equally long instead of at random.
    let mut dying = VecDeque::new();
    let (mut started, mut sum) = (0, 0);
    while started < args.vms || !alive.is_empty() {
        while started < args.vms && alive.len() < args.parallel as usize {
            let delay = Duration::from_micros(random.u64(0..=args.within * 1000));
            alive.push(Victim::start(args.vcpus, delay)?);
            started += 1;
        }
        let Some(next) = (0..alive.len()).min_by_key(|&i| alive[i].dies) else {
            break;
        };
        let victim = alive.swap_remove(next);
        thread::sleep(victim.dies.saturating_duration_since(Instant::now()));
        victim.kill()?;
        dying.push_back(victim);
        if dying.len() > DYING {
            sum += dying.pop_front().map_or(Ok(0), |dead| dead.count(args))?;
        }
    }
    for dead in dying {
        sum += dead.count(args)?;
    }
    let vcpus = u64::from(args.vms) * u64::from(args.vcpus);
    writeln!(
        io::stdout(),
        "storm vms {} vcpus {vcpus} cpuid {sum}",
        args.vms
    )?;
    Ok(())
}

impl Victim {
    fn start(vcpus: u32, delay: Duration) -> Result<Self> {
        let memory = Memory::new()?;
        // SAFETY: This process has no thread but this one, so the child is a
        // whole copy of it, with no lock held by a thread that is not there.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()).context("fork failed"),
            0 => {
                end_with_parent();
                let Err(error) = spin(&memory, vcpus);
                eprintln!("guest: {error:#}");
                std::process::exit(1);
            }
            _ => Ok(Self {
                pid,
                memory,
                dies: Instant::now() + delay,
            }),
        }
    }

    fn kill(&self) -> Result<()> {
        // SAFETY: The process is a child of ours that has not been waited for,
        // so the number is still its own.
        match unsafe { libc::kill(self.pid, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context("kill failed"),
        }
    }

    /// Waits until it is dead and returns how many CPUIDs its guest has counted.
    fn count(self, args: &Args) -> Result<u64> {
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        ensure!(waited == self.pid, "a VM's process is gone unwaited for");
        ensure!(
            libc::WIFSIGNALED(status),
            "a VM ended by itself before it was killed"
        );
        let mut sum = 0;
        for index in 0..args.vcpus {
            sum += u64::from(self.memory.page(index).get(Kind::Cpuid.done())?);
        }
        if args.each {
            writeln!(io::stdout(), "vm {} cpuid {sum}", self.pid)?;
        }
        Ok(sum)
    }
}

/// Runs a guest that never ends; returns only if it could not be run.
fn spin(memory: &Memory, vcpus: u32) -> Result<std::convert::Infallible> {
    let vm = Vm::new(memory, false)?;
    thread::scope(|scope| {
        for index in 0..vcpus {
            let mut vcpu = vm.vcpu(index, Program::Spin)?;
            scope.spawn(move || {
                // Also ends the other vCPUs, which would go on without it.
                if let Err(error) = vcpu.run() {
                    eprintln!("guest: {error:#}");
                    std::process::exit(1);
                }
            });
        }
        Ok(())
    })
    .and_then(|()| bail!("the endless guest came to an end"))
}
