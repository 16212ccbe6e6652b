// SPDX-License-Identifier: GPL-2.0

//! A guest that sleeps in the kernel until its VMM wakes it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use kvm_bindings::{kvm_mp_state, KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE};
use kvm_ioctls::VcpuExit;

use crate::code::{Kind, Program, PORT_DONE};
use crate::vm::{self, Memory, Vm};

/// Have the guest halt, and wake it after a while, again and again
///
/// The guest has a local APIC in the kernel, so its HLTs sleep there. A signal to
/// the vCPU's thread ends each of them. Prints `sleep hlt N ns T`: how often it
/// slept, and how long it took from the first HLT to the end of the last, nearly
/// all of which it was asleep.
#[derive(clap::Args)]
pub struct Args {
    /// HLTs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Milliseconds from one signal to the next
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

/// Runs the guest, with a thread that wakes it.
pub fn run(args: &Args) -> Result<()> {
    vm::heed_wakes()?;
    // SAFETY: No more than the thread's own name for itself.
    let sleeper = unsafe { libc::pthread_self() };

    let done = AtomicBool::new(false);
    let (slept, took) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(args.every));
                // SAFETY: The thread waits for this one to end.
                unsafe { libc::pthread_kill(sleeper, vm::WAKE) };
            }
        });
        let result = sleep(args);
        done.store(true, Ordering::Relaxed);
        result
    })?;
    writeln!(io::stdout(), "sleep hlt {slept} ns {}", took.as_nanos())?;
    Ok(())
}

fn sleep(args: &Args) -> Result<(u32, Duration)> {
    let vm = Vm::new(&Memory::new()?, true)?;
    let mut vcpu = vm.vcpu(0, Program::Exits)?;
    vcpu.order(Kind::Hlt, args.times)?;

    let began = Instant::now();
    let mut slept = 0;
    loop {
        match vcpu.fd.run() {
            Ok(VcpuExit::IoOut(PORT_DONE, _)) => break,
            Ok(other) => bail!("the guest went astray: {other:?}"),
            Err(error) if error.errno() == libc::EINTR => {
                let state = vcpu.fd.get_mp_state().context("KVM_GET_MP_STATE failed")?;
                // Else the signal came before the HLT.
                if state.mp_state == KVM_MP_STATE_HALTED {
                    slept += 1;
                    vcpu.fd
                        .set_mp_state(kvm_mp_state {
                            mp_state: KVM_MP_STATE_RUNNABLE,
                        })
                        .context("KVM_SET_MP_STATE failed")?;
                }
            }
            Err(error) => bail!("KVM_RUN failed: {error}"),
        }
    }
    let took = began.elapsed();
    ensure!(
        slept == args.times && vcpu.done(Kind::Hlt)? == args.times,
        "slept {slept} times, not {}",
        args.times
    );
    Ok((slept, took))
}
