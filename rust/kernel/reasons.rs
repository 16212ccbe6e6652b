// SPDX-License-Identifier: GPL-2.0

//! Exit reasons: their names, and the slot each is counted in.
//!
//! Names come from the kernel's own headers at build time (`reasons.sh`), so
//! that a new base kernel never leaves a stale table behind. The few reasons
//! that the headers leave unnamed stand in [`VMX_UNNAMED`] and [`SVM_UNNAMED`].
//!
//! A slot is an index into a vCPU's counters:
//!
//! | slots | VMX | SVM |
//! |---|---|---|
//! | below [`DIRECT`] | the basic exit reason | the exit code |
//! | from [`DIRECT`] | unused | codes too large to be an index, in the header's order |
//! | from [`VMFAIL`] | what is no exit, or none that is known | the same |

use core::fmt;

include!(concat!(
    env!("KVM_SCOPE_GENERATED"),
    "/reasons_generated.rs"
));

/// Reasons below this are their own slot, which C increments in place.
pub const DIRECT: usize = 224;

/// How many codes from [`DIRECT`] up can have a slot of their own.
const SPARSE: usize = 32;

/// VMLAUNCH or VMRESUME failed without entering the guest and without an exit
/// reason (SDM Vol. 3, "VM-Instruction Error Numbers").
pub const VMFAIL: usize = DIRECT + SPARSE;

/// KVM did not enter the guest: the guest's state is one that this CPU cannot
/// run, so KVM emulates instead.
pub const EMULATION_REQUIRED: usize = VMFAIL + 1;

/// An entry failed (bit 31 of the exit reason) for a reason that the SDM does
/// not list for failed entries. Those it lists, 33, 34 and 41, have no other
/// meaning and are counted as themselves.
pub const ENTRY_FAILED: usize = VMFAIL + 2;

/// A reason out of range.
pub const UNKNOWN: usize = VMFAIL + 3;

/// The number of slots.
pub const SLOTS: usize = VMFAIL + 4;

/// What KVM takes for the exit reason when VMLAUNCH or VMRESUME failed by VMfail
/// (`vmx_vcpu_enter_exit()`).
const VMX_FAIL: u32 = 0xdead;

/// Bit 31 of the VMX exit reason: the VM entry failed.
const FAILED_VMENTRY: u32 = 1 << 31;

/// VMX reasons without a name in the uapi header. Intel SDM Vol. 3, Appendix C,
/// Table C-1. Ascending.
const VMX_UNNAMED: &[(u32, &str)] = &[
    (5, "IO_SMI"),
    (6, "OTHER_SMI"),
    (11, "GETSEC"),
    (17, "RSM"),
    (66, "SPP_EVENT"),
    (69, "LOADIWKEY"),
    (70, "ENCLV"),
    (72, "ENQCMD_PASID"),
    (73, "ENQCMDS_PASID"),
    (76, "SEAMCALL"),
    (77, "TDCALL"),
    (78, "RDMSRLIST"),
    (79, "WRMSRLIST"),
    (80, "URDMSR"),
    (81, "UWRMSR"),
    (84, "MSR_READ_IMM"),
    (85, "MSR_WRITE_IMM"),
];

/// SVM codes without a name in the uapi header. AMD APM Vol. 2, Appendix C,
/// Table C-1. Ascending.
#[rustfmt::skip]
const SVM_UNNAMED: &[(u32, &str)] = &[
    (0x01, "READ_CR1"), (0x05, "READ_CR5"), (0x06, "READ_CR6"), (0x07, "READ_CR7"),
    (0x09, "READ_CR9"), (0x0a, "READ_CR10"), (0x0b, "READ_CR11"), (0x0c, "READ_CR12"),
    (0x0d, "READ_CR13"), (0x0e, "READ_CR14"), (0x0f, "READ_CR15"),
    (0x11, "WRITE_CR1"), (0x15, "WRITE_CR5"), (0x16, "WRITE_CR6"), (0x17, "WRITE_CR7"),
    (0x19, "WRITE_CR9"), (0x1a, "WRITE_CR10"), (0x1b, "WRITE_CR11"), (0x1c, "WRITE_CR12"),
    (0x1d, "WRITE_CR13"), (0x1e, "WRITE_CR14"), (0x1f, "WRITE_CR15"),
    (0x28, "READ_DR8"), (0x29, "READ_DR9"), (0x2a, "READ_DR10"), (0x2b, "READ_DR11"),
    (0x2c, "READ_DR12"), (0x2d, "READ_DR13"), (0x2e, "READ_DR14"), (0x2f, "READ_DR15"),
    (0x38, "WRITE_DR8"), (0x39, "WRITE_DR9"), (0x3a, "WRITE_DR10"), (0x3b, "WRITE_DR11"),
    (0x3c, "WRITE_DR12"), (0x3d, "WRITE_DR13"), (0x3e, "WRITE_DR14"), (0x3f, "WRITE_DR15"),
    (0xa0, "INVLPGB"), (0xa1, "INVLPGB_ILLEGAL"), (0xa3, "MCOMMIT"), (0xa4, "TLBSYNC"),
    (0xa5, "BUS_LOCK"), (0xa6, "IDLE_HLT"),
];

/// As [`SVM_UNNAMED`], for codes that cannot be their own slot: -4, -3, -2.
const SVM_UNNAMED_SPARSE: &[(u32, &str)] = &[
    (0xffff_fffc, "INVALID_PMC"),
    (0xffff_fffd, "IDLE_REQUIRED"),
    (0xffff_fffe, "BUSY"),
];

/// The part of the header's SVM table that cannot be its own slot.
const SVM_SPARSE: &[(u32, &str)] = {
    let mut i = 0;
    while i < SVM_HEADER.len() && (SVM_HEADER[i].0 as usize) < DIRECT {
        i += 1;
    }
    SVM_HEADER.split_at(i).1
};
const _: () = assert!(SVM_SPARSE.len() + SVM_UNNAMED_SPARSE.len() <= SPARSE);

/// All SVM codes that have a slot from [`DIRECT`] up, in the order of the slots.
fn svm_sparse() -> impl Iterator<Item = &'static (u32, &'static str)> {
    SVM_SPARSE.iter().chain(SVM_UNNAMED_SPARSE)
}

/// The virtualization extension of the CPU, whose reasons are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

impl Isa {
    /// "VMX" or "SVM".
    pub fn name(self) -> &'static str {
        match self {
            Isa::Vmx => "VMX",
            Isa::Svm => "SVM",
        }
    }
}

/// The slot of an exit reason that C did not find below [`DIRECT`]: for VMX the
/// VMCS field with all its bits, for SVM the low half of the exit code.
pub fn slot(isa: Isa, reason: u32) -> usize {
    match isa {
        Isa::Vmx => slot_vmx(reason),
        Isa::Svm => slot_svm(reason),
    }
}

/// Bits 16 and up modify a reason (bus lock, enclave mode, ...), and bit 31
/// says that the entry failed (SDM Vol. 3, "Basic VM-Exit Information").
fn slot_vmx(full: u32) -> usize {
    let basic = (full & 0xffff) as usize;

    if full == VMX_FAIL {
        VMFAIL
    } else if full & FAILED_VMENTRY != 0 && !matches!(basic, 33 | 34 | 41) {
        ENTRY_FAILED
    } else if basic < DIRECT {
        basic
    } else {
        UNKNOWN
    }
}

/// Linear on purpose: nested page faults, most of the sparse exits, come first.
fn slot_svm(code: u32) -> usize {
    if (code as usize) < DIRECT {
        return code as usize;
    }
    let mut slots = (DIRECT..VMFAIL).zip(svm_sparse());
    slots
        .find(|(_, &(c, _))| c == code)
        .map_or(UNKNOWN, |(slot, _)| slot)
}

/// What is counted in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The hardware's number for it; none for what is no exit.
    pub number: Option<u32>,
    /// Its name, without the header's prefix.
    pub name: &'static str,
    /// Whether the manuals define it. When not, a count was seen all the same.
    pub defined: bool,
}

/// A reason's number as text: none is "-", those of SVM's failed VMRUNs are
/// negative, and a number too large to mean something in decimal is hexadecimal.
pub struct Number(pub Option<u32>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("-"),
            // SVM's failed VMRUNs.
            Some(number) if number as i32 >= -4 && number > i32::MAX as u32 => {
                fmt::Display::fmt(&(number as i32), f)
            }
            Some(number) if number > 0xffff => write!(f, "{number:#010x}"),
            Some(number) => fmt::Display::fmt(&number, f),
        }
    }
}

/// What is counted in `slot`, if anything can be.
pub fn reason(isa: Isa, slot: usize) -> Option<Reason> {
    let special = |name| {
        Some(Reason {
            number: None,
            name,
            defined: true,
        })
    };

    match slot {
        VMFAIL => special("VMFAIL"),
        EMULATION_REQUIRED => special("EMULATION_REQUIRED"),
        ENTRY_FAILED => special("ENTRY_FAILED"),
        UNKNOWN => special("UNKNOWN"),
        0..DIRECT => {
            let number = slot as u32;
            let name = name(isa, number);
            Some(Reason {
                number: Some(number),
                name: name.unwrap_or("RESERVED"),
                defined: name.is_some(),
            })
        }
        _ if isa == Isa::Svm => {
            let mut slots = (DIRECT..VMFAIL).zip(svm_sparse());
            let (_, &(code, name)) = slots.find(|&(s, _)| s == slot)?;
            Some(Reason {
                number: Some(code),
                name,
                defined: true,
            })
        }
        _ => None,
    }
}

/// The name of a reason, by its number.
fn name(isa: Isa, number: u32) -> Option<&'static str> {
    let tables = match isa {
        Isa::Vmx => [VMX_HEADER, VMX_UNNAMED],
        Isa::Svm => [SVM_HEADER, SVM_UNNAMED],
    };

    let mut all = tables.into_iter().flatten();
    all.find(|&&(n, _)| n == number).map(|&(_, name)| name)
}
