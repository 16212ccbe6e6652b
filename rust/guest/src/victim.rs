// SPDX-License-Identifier: GPL-2.0

//! VMs in processes of their own that write without end until they are killed.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

use crate::machine::{Machine, Shape, Space};
use crate::pages::{self, Program, DATA, PAGE};

/// A VM in a child process.
pub struct Victim {
    /// The process.
    pub pid: libc::pid_t,
    /// Where it says which descriptor its VM has.
    shared: MmapRegion,
}

impl Victim {
    /// A VM of so many vCPUs. It may not be there yet when this returns.
    pub fn start(vcpus: u32, seed: u32) -> Result<Self> {
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
                end_with_parent();
                let Err(error) = scribble(vcpus, seed, &shared);
                eprintln!("guest: {error:#}");
                std::process::exit(1);
            }
            _ => Ok(Self { pid, shared }),
        }
    }

    /// The descriptor that its VM has in its process, once there is one.
    pub fn fd(&self) -> Result<Option<i32>> {
        let fd: u32 = self.shared.as_volatile_slice().load(0, Ordering::Acquire)?;
        Ok((fd != 0).then_some(fd as i32))
    }

    /// Kills it; it takes a while to die.
    pub fn shoot(&self) -> Result<()> {
        // SAFETY: The process is a child of ours that has not been waited for,
        // so the number is still its own.
        let failed = unsafe { libc::kill(self.pid, libc::SIGKILL) };
        ensure!(failed == 0, "kill failed: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Whether one that was shot is dead. Not to be asked again then.
    pub fn is_dead(&self) -> Result<bool> {
        self.reap(libc::WNOHANG)
    }

    /// Kills it and waits until it is dead.
    pub fn kill(self) -> Result<()> {
        self.shoot()?;
        self.reap(0).map(|_| ())
    }

    fn reap(&self, options: i32) -> Result<bool> {
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, options) };
        if waited == 0 {
            return Ok(false);
        }
        ensure!(waited == self.pid, "a VM's process is gone unwaited for");
        ensure!(
            libc::WIFSIGNALED(status),
            "a VM ended by itself before it was killed"
        );
        Ok(true)
    }
}

/// For a child that was forked just now: it is to end when its parent does, however
/// that comes.
pub fn end_with_parent() {
    // SAFETY: It is given a signal, and nothing else.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Gives this process a nice value: to have less than 0 is root's. One that kills or
/// switches what keeps the CPUs busy does little else than wait for one otherwise.
pub fn priority(nice: i32) -> Result<()> {
    // SAFETY: It is given numbers, and nothing else.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    ensure!(
        failed == 0,
        "setpriority failed: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Runs a guest that never ends; returns only if it could not be run.
fn scribble(count: u32, seed: u32, shared: &MmapRegion) -> Result<Infallible> {
    // What the parent has open ends with the parent's use of it.
    // SAFETY: Nothing in this process uses a descriptor beyond the standard ones.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    priority(0)?;
    let space = Arc::new(Space::new(32 << 20, false)?);
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let fd = machine.fd.as_raw_fd() as u32;
    shared.as_volatile_slice().store(fd, 0, Ordering::Release)?;
    let mut vcpus = Vec::new();
    for index in 0..count {
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
        vcpu.wait_for_ever()?;
    }
    bail!("the endless guest came to an end")
}
