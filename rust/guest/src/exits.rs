// SPDX-License-Identifier: GPL-2.0

//! Guests that execute each exiting instruction exactly as often as asked.

use std::io::{self, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::code::{Kind, Program};
use crate::vm::{Memory, Seen, Vcpu, Vm};

/// Exit exactly so many times for each reason
///
/// The guest executes each instruction as often as asked, then one OUT that
/// says it is done, so `io` is one more than asked for, per vCPU and round.
/// Prints `round R cpuid N io N ... kvm_exits N`, summed over the vCPUs, where
/// kvm_exits is KVM's own count of all exits in that round, host interrupts and
/// page faults included, or `-` without debugfs.
#[derive(clap::Args)]
pub struct Args {
    /// CPUIDs
    #[arg(long, value_name = "N", default_value_t = 0)]
    cpuid: u32,
    /// OUTs, completed in userspace
    #[arg(long, value_name = "N", default_value_t = 0)]
    io: u32,
    /// HLTs, which return to userspace
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "fastpath"
    )]
    hlt: u32,
    /// RDMSRs
    #[arg(long, value_name = "N", default_value_t = 0)]
    rdmsr: u32,
    /// WRMSRs
    #[arg(long, value_name = "N", default_value_t = 0)]
    wrmsr: u32,
    /// WRMSRs to the ICR of a local APIC in the kernel, handled in the exit
    /// fastpath (on SVM only where the CPU has NRIPS); not together with --hlt,
    /// which would then wait for ever
    #[arg(long, value_name = "N", default_value_t = 0)]
    fastpath: u32,
    /// Hypercalls that KVM carries out
    #[arg(long, value_name = "N", default_value_t = 0)]
    hypercall: u32,
    /// Hypercalls that KVM refuses
    #[arg(long, value_name = "N", default_value_t = 0)]
    refused: u32,
    /// vCPUs, each a thread that does all of the above
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::vm::MAX_VCPUS)))]
    vcpus: u32,
    /// Set the VM's clock over and over meanwhile, with so many more vCPUs, which never
    /// run: KVM lets none enter until it has told all of them (KVM_SET_CLOCK)
    #[arg(long, value_name = "V", default_value_t = 0)]
    set_clock: u32,
    /// Do it all once more after running CMD with sh, all vCPUs being outside
    /// the guest meanwhile; may be repeated
    #[arg(long, value_name = "CMD")]
    between: Vec<String>,
}

impl Args {
    fn times(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Cpuid => self.cpuid,
            Kind::Io => self.io,
            Kind::Hlt => self.hlt,
            Kind::Rdmsr => self.rdmsr,
            Kind::Wrmsr => self.wrmsr,
            Kind::Fastpath => self.fastpath,
            Kind::Hypercall => self.hypercall,
            Kind::Refused => self.refused,
        }
    }
}

/// Runs the guest once, and once more after each command.
pub fn run(args: &Args) -> Result<()> {
    let memory = Memory::new()?;
    let vm = Vm::new(&memory, args.fastpath > 0)?;
    let mut vcpus = (0..args.vcpus)
        .map(|index| vm.vcpu(index, Program::Exits))
        .collect::<Result<Vec<_>>>()?;
    for vcpu in &vcpus {
        for kind in Kind::ALL {
            vcpu.order(kind, args.times(kind))?;
        }
    }

    let _told = (args.vcpus..)
        .take(args.set_clock as usize)
        .map(|index| vm.fd.create_vcpu(index.into()))
        .collect::<Result<Vec<_>, _>>()
        .context("KVM_CREATE_VCPU failed")?;

    let mut exits_before = vm.exits_by_kvm();
    for round in 1..=args.between.len() + 1 {
        let (begun, over) = (Barrier::new(2), AtomicBool::new(false));
        thread::scope(|scope| {
            let setter =
                (args.set_clock > 0).then(|| scope.spawn(|| set_clock(&vm, &begun, &over)));
            if setter.is_some() {
                begun.wait();
            }
            let threads: Vec<_> = vcpus
                .iter_mut()
                .map(|vcpu| scope.spawn(move || run_checked(vcpu, args)))
                .collect();
            let mut results: Vec<_> = threads.into_iter().map(joined).collect();
            over.store(true, Ordering::Relaxed);
            results.extend(setter.map(joined));
            results.into_iter().collect::<Result<()>>()
        })?;

        let exits_now = vm.exits_by_kvm();
        print(args, round, exits_before.zip(exits_now))?;
        exits_before = exits_now;

        if let Some(command) = args.between.get(round - 1) {
            let status = Command::new("sh")
                .args(["-c", command])
                .status()
                .context("sh cannot be run")?;
            ensure!(status.success(), "`{command}` failed: {status}");
        }
    }
    Ok(())
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| bail!("a vCPU's thread panicked"))
}

/// Sets the VM's clock to what it is at first, until all is `over`.
fn set_clock(vm: &Vm, begun: &Barrier, over: &AtomicBool) -> Result<()> {
    let clock = vm.fd.get_clock();
    begun.wait();
    let clock = clock.context("KVM_GET_CLOCK failed")?;
    while !over.load(Ordering::Relaxed) {
        // So often that a vCPU is called off many times in a row, however it is scheduled;
        // then there is to be time for an entry, however fast all this is.
        for _ in 0..100 {
            vm.fd.set_clock(&clock).context("KVM_SET_CLOCK failed")?;
        }
        thread::sleep(Duration::from_micros(20));
    }
    Ok(())
}

/// One round of one vCPU. The guest's own count and what came out of it must
/// both be what was ordered, or there is nothing to hold kvmscope against.
fn run_checked(vcpu: &mut Vcpu, args: &Args) -> Result<()> {
    for kind in Kind::ALL {
        vcpu.page.set(kind.done(), 0)?;
    }
    let seen = vcpu.run()?;
    for kind in Kind::ALL {
        let (done, asked) = (vcpu.done(kind)?, args.times(kind));
        let name = kind.name();
        ensure!(done == asked, "the guest did {done} {name}, not {asked}");
    }
    let expected = Seen {
        io: args.io,
        hlt: args.hlt,
    };
    ensure!(seen == expected, "saw {seen:?} instead of {expected:?}");
    Ok(())
}

fn print(args: &Args, round: usize, exits: Option<(u64, u64)>) -> Result<()> {
    let mut line = format!("round {round}");
    for kind in Kind::ALL {
        let done_word = u64::from(kind == Kind::Io);
        let sum = (u64::from(args.times(kind)) + done_word) * u64::from(args.vcpus);
        line += &format!(" {} {sum}", kind.name());
    }
    let exits = exits.map_or("-".into(), |(before, now)| (now - before).to_string());
    writeln!(io::stdout(), "{line} kvm_exits {exits}")?;
    Ok(())
}
