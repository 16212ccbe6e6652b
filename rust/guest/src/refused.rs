// SPDX-License-Identifier: GPL-2.0

//! Guests that the CPU cannot run.

use std::fs;
use std::io::{self, Write};

use anyhow::{bail, ensure, Context, Result};
use kvm_ioctls::VcpuExit;

use crate::code::{Kind, Program};
use crate::vm::{Memory, Vcpu, Vm};

/// Ask for what the CPU refuses, to provoke the rows that no exit reason names
///
/// Prints `refused HOW times N kvm_exits N`, where kvm_exits is KVM's own count
/// of the attempts, or `-` without debugfs.
#[derive(clap::Args)]
pub struct Args {
    /// How
    #[arg(value_enum)]
    how: How,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum How {
    /// Guest state that fails the checks on VM entry (VMX and SVM): a code
    /// segment that is both 64-bit and 32-bit
    Entry,
    /// An event to inject that fails the checks on the VMCS controls, so that
    /// VMLAUNCH itself fails (VMX): #UD with an error code
    Vmfail,
    /// Guest state that KVM knows the CPU would refuse and so emulates (VMX with
    /// kvm-intel's unrestricted_guest=0): no task register. Each emulated OUT
    /// takes an attempt, so does the one that says the guest is done, and one
    /// more whenever the host interrupts the emulation
    Emulation,
}

const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = (1 << 8) | (1 << 10);
const VECTOR_UD: u8 = 6;
const UNRESTRICTED_GUEST: &str = "/sys/module/kvm_intel/parameters/unrestricted_guest";

/// Asks for it as often as told.
pub fn run(args: &Args) -> Result<()> {
    let vm = Vm::new(&Memory::new()?, false)?;
    let mut vcpu = vm.vcpu(0, Program::Exits)?;
    match args.how {
        How::Entry => {
            let mut sregs = vcpu.fd.get_sregs().context("KVM_GET_SREGS failed")?;
            sregs.cr0 |= CR0_PG;
            sregs.cr4 |= CR4_PAE;
            sregs.efer |= EFER_LME_LMA;
            sregs.cs.l = 1;
            sregs.cs.db = 1;
            vcpu.fd
                .set_sregs(&sregs)
                .context("KVM_SET_SREGS refuses the state before the CPU can")?;
            for _ in 0..args.times {
                expect_refusal(&mut vcpu)?;
            }
        }
        How::Vmfail => {
            for _ in 0..args.times {
                let mut events = vcpu
                    .fd
                    .get_vcpu_events()
                    .context("KVM_GET_VCPU_EVENTS failed")?;
                events.exception.injected = 1;
                events.exception.nr = VECTOR_UD;
                events.exception.has_error_code = 1;
                vcpu.fd
                    .set_vcpu_events(&events)
                    .context("KVM_SET_VCPU_EVENTS refuses the event before the CPU can")?;
                expect_refusal(&mut vcpu)?;
            }
        }
        How::Emulation => {
            let unrestricted = fs::read_to_string(UNRESTRICTED_GUEST).unwrap_or_default();
            ensure!(
                unrestricted.trim() == "N",
                "nothing would be emulated: load kvm-intel with unrestricted_guest=0"
            );
            let mut sregs = vcpu.fd.get_sregs().context("KVM_GET_SREGS failed")?;
            sregs.tr.unusable = 1;
            vcpu.fd.set_sregs(&sregs).context("KVM_SET_SREGS failed")?;
            vcpu.order(Kind::Io, args.times - 1)?;
            let seen = vcpu.run()?;
            ensure!(seen.io == args.times - 1, "the guest did {} OUTs", seen.io);
        }
    }
    let how = match args.how {
        How::Entry => "entry",
        How::Vmfail => "vmfail",
        How::Emulation => "emulation",
    };
    let exits = vm.exits_by_kvm().map_or("-".into(), |n| n.to_string());
    writeln!(
        io::stdout(),
        "refused {how} times {} kvm_exits {exits}",
        args.times
    )?;
    Ok(())
}

fn expect_refusal(vcpu: &mut Vcpu) -> Result<()> {
    match vcpu.fd.run() {
        Ok(VcpuExit::FailEntry(..)) => Ok(()),
        Ok(other) => bail!("the CPU did not refuse the guest: {other:?}"),
        Err(error) => bail!("KVM_RUN failed: {error}"),
    }
}
