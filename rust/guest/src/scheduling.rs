// SPDX-License-Identifier: GPL-2.0

//! Who runs where and before whom: threads of a test, and the kernel's worker.

use std::fs;
use std::io;

use anyhow::{bail, ensure, Result};

/// Binds a thread, this one if 0, to a CPU, one of the first 64.
pub fn bind(thread: libc::pid_t, cpu: u32) -> Result<()> {
    let cpus = 1_u64.checked_shl(cpu).unwrap_or(0);
    // SAFETY: One word of CPUs is read, which is how many bits the kernel is told of.
    let failed = unsafe { libc::sched_setaffinity(thread, 8, (&raw const cpus).cast()) };
    ensure!(
        failed == 0,
        "sched_setaffinity failed: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Has this thread, and those that it creates from now on, run before all ordinary ones.
pub fn fifo() -> Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: `priority` is there to be read.
    let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) };
    ensure!(
        failed == 0,
        "sched_setscheduler failed: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// The thread that the kernel has for the VM of this process.
pub fn worker() -> Result<libc::pid_t> {
    let name = format!("kvm-scope-wss/{}", std::process::id());
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(thread) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        // It may have ended meanwhile.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(thread);
        }
    }
    bail!("there is no thread {name}")
}
