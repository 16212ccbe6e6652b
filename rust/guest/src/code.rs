// SPDX-License-Identifier: GPL-2.0

//! What the guests execute, and the page through which each vCPU is told what
//! to do and reports what it did.
//!
//! 32-bit flat protected mode without paging: the least set-up in which VMX and
//! SVM guests both run natively. A program exits by the instructions below and
//! by nothing else, apart from what every guest takes part in: EPT or NPT
//! faults on first touch, and the host's interrupts.

use core::arch::global_asm;

/// Where the code is loaded, and the physical address of vCPU 0's page.
pub const CODE: u64 = 0x1000;
/// vCPU n's page is n pages further.
pub const PAGES: u64 = 0x2000;

/// The port that [`Kind::Io`] writes to.
pub const PORT_IO: u16 = 0x10;
/// The port a program writes to when it has done what it was told.
pub const PORT_DONE: u16 = 0x11;

/// IA32_BIOS_SIGN_ID: KVM intercepts it and lets the guest read it and write
/// it, to no effect, on either vendor.
const MSR: u32 = 0x8b;
/// The interrupt command register of a local APIC in x2APIC mode.
const MSR_X2APIC_ICR: u32 = 0x830;
/// A local APIC that does not exist: the interrupt sent there disturbs nobody.
const NO_SUCH_APIC: u32 = 0xfe;

/// A hypercall that KVM carries out whatever it offers to guests, to no effect
/// (KVM_HC_VAPIC_POLL_IRQ).
const HYPERCALL: u32 = 1;
/// One that does not exist.
const NO_SUCH_HYPERCALL: u32 = 999;

/// An instruction that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CPUID, handled in the kernel.
    Cpuid,
    /// OUT, completed by the VMM.
    Io,
    /// HLT; without an interrupt controller in the kernel, the VMM's affair.
    Hlt,
    /// RDMSR, handled in the kernel.
    Rdmsr,
    /// WRMSR, handled in the kernel.
    Wrmsr,
    /// WRMSR to the x2APIC's ICR, which KVM handles in its exit fastpath: the
    /// guest is entered again without the common exit handler having run.
    Fastpath,
    /// VMCALL or VMMCALL, for a hypercall that KVM carries out.
    Hypercall,
    /// The same, for one that KVM refuses.
    Refused,
}

impl Kind {
    /// Every kind, in the order in which the program goes through them.
    pub const ALL: [Kind; 8] = [
        Kind::Cpuid,
        Kind::Io,
        Kind::Hlt,
        Kind::Rdmsr,
        Kind::Wrmsr,
        Kind::Fastpath,
        Kind::Hypercall,
        Kind::Refused,
    ];

    /// The word for it on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpuid => "cpuid",
            Kind::Io => "io",
            Kind::Hlt => "hlt",
            Kind::Rdmsr => "rdmsr",
            Kind::Wrmsr => "wrmsr",
            Kind::Fastpath => "fastpath",
            Kind::Hypercall => "hypercall",
            Kind::Refused => "refused",
        }
    }

    /// The field that says how often to execute it.
    pub fn order(self) -> u64 {
        4 * self as u64
    }

    /// The field in which the guest counts how often it did.
    pub fn done(self) -> u64 {
        DONE as u64 + 4 * self as u64
    }
}

// Fields of a vCPU's page, each 32 bits. The orders come first, at 4 * kind.
const DONE: u32 = 0x40;
/// Not zero: the endless program is to end.
pub const STOP: u64 = 0x80;
/// The TSC, low half first, before and after the timed loop.
pub const TSC_BEFORE: u64 = 0x90;
/// See [`TSC_BEFORE`].
pub const TSC_AFTER: u64 = 0x98;
/// The leaf of CPUID to ask for, and its index.
pub const LEAF: u64 = 0xa0;
/// See [`LEAF`].
pub const INDEX: u64 = 0xa4;
/// The answer: eax, ebx, ecx and edx.
pub const ANSWER: u64 = 0xb0;
/// Not zero: the CPU's hypercall is AMD's VMMCALL.
pub const VMMCALL: u64 = 0xc0;

// ESI holds the address of the vCPU's page throughout; CPUID overwrites EAX to
// EDX, so loops count in EDI. A count is bumped after its instruction: when the
// VMM reads c, c or c + 1 exits have been taken.
global_asm!(
    r#"
    .pushsection .rodata.guest, "a"
    .code32
    guest_code:

    .macro times kind, instructions
        mov edi, [esi + 4 * \kind]
        jmp 2f
    1:  \instructions
        inc dword ptr [esi + {done} + 4 * \kind]
        dec edi
    2:  test edi, edi
        jnz 1b
    .endm

    # Each instruction as often as ordered, then the word that it is done.
    guest_exits:
        times {cpuid}, "xor eax, eax; cpuid"
        times {io}, "out {port_io}, al"
        times {hlt}, "hlt"
        times {rdmsr}, "mov ecx, {msr}; rdmsr"
        times {wrmsr}, "mov ecx, {msr}; xor eax, eax; xor edx, edx; wrmsr"
        times {fastpath}, "mov ecx, {icr}; mov eax, 0x20; mov edx, {nobody}; wrmsr"
        cmp dword ptr [esi + {vmmcall}], 0
        jne guest_vmmcalls
        times {hypercall}, "mov eax, {hypercall_nr}; vmcall"
        times {refused}, "mov eax, {refused_nr}; vmcall"
        jmp guest_exits_done
    guest_vmmcalls:
        times {hypercall}, "mov eax, {hypercall_nr}; vmmcall"
        times {refused}, "mov eax, {refused_nr}; vmmcall"
    guest_exits_done:
        out {port_done}, al
        jmp guest_exits

    # CPUID without end, until told to stop.
    guest_spin:
    1:  xor eax, eax
        cpuid
        inc dword ptr [esi + {done} + 4 * {cpuid}]
        cmp dword ptr [esi + {stop}], 0
        je 1b
        out {port_done}, al
        jmp guest_spin

    # The ordered number of CPUIDs between two readings of the TSC.
    guest_timed:
        rdtsc
        mov [esi + {before}], eax
        mov [esi + {before} + 4], edx
        mov edi, [esi + 4 * {cpuid}]
    1:  xor eax, eax
        cpuid
        dec edi
        jnz 1b
        rdtsc
        mov [esi + {after}], eax
        mov [esi + {after} + 4], edx
        out {port_done}, al
        jmp guest_timed

    # The ordered number of CPUIDs, then one for the leaf that is asked for.
    guest_asks:
        mov edi, [esi + 4 * {cpuid}]
        jmp 2f
    1:  xor eax, eax
        cpuid
        dec edi
    2:  test edi, edi
        jnz 1b
        mov eax, [esi + {leaf}]
        mov ecx, [esi + {index}]
        cpuid
        mov [esi + {answer}], eax
        mov [esi + {answer} + 4], ebx
        mov [esi + {answer} + 8], ecx
        mov [esi + {answer} + 12], edx
        out {port_done}, al
        jmp guest_asks

    guest_code_end:
    .purgem times
    .code64
    .popsection
    "#,
    cpuid = const Kind::Cpuid as u32,
    io = const Kind::Io as u32,
    hlt = const Kind::Hlt as u32,
    rdmsr = const Kind::Rdmsr as u32,
    wrmsr = const Kind::Wrmsr as u32,
    fastpath = const Kind::Fastpath as u32,
    done = const DONE,
    stop = const STOP,
    before = const TSC_BEFORE,
    after = const TSC_AFTER,
    port_io = const PORT_IO,
    port_done = const PORT_DONE,
    msr = const MSR,
    icr = const MSR_X2APIC_ICR,
    nobody = const NO_SUCH_APIC,
    hypercall = const Kind::Hypercall as u32,
    refused = const Kind::Refused as u32,
    hypercall_nr = const HYPERCALL,
    refused_nr = const NO_SUCH_HYPERCALL,
    vmmcall = const VMMCALL,
    leaf = const LEAF,
    index = const INDEX,
    answer = const ANSWER,
);

extern "C" {
    static guest_code: u8;
    static guest_code_end: u8;
    static guest_exits: u8;
    static guest_spin: u8;
    static guest_timed: u8;
    static guest_asks: u8;
}

/// A guest program: an entry into [`bytes`].
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// Every kind as often as ordered, then [`PORT_DONE`], and again.
    Exits,
    /// CPUIDs until [`STOP`], then [`PORT_DONE`].
    Spin,
    /// The TSC around the ordered number of CPUIDs, then [`PORT_DONE`], and again.
    Timed,
    /// The ordered number of CPUIDs, then the one for [`LEAF`], then
    /// [`PORT_DONE`], and again.
    Asks,
}

impl Program {
    /// Its address in the guest.
    pub fn entry(self) -> u64 {
        let label = match self {
            Program::Exits => &raw const guest_exits,
            Program::Spin => &raw const guest_spin,
            Program::Timed => &raw const guest_timed,
            Program::Asks => &raw const guest_asks,
        };
        CODE + (label as u64 - &raw const guest_code as u64)
    }
}

/// The programs, to be loaded at [`CODE`].
pub fn bytes() -> &'static [u8] {
    let start = &raw const guest_code;
    let len = &raw const guest_code_end as usize - start as usize;
    // SAFETY: Both labels are in the one piece of .rodata that the assembly
    // above makes, the end after the start; nothing writes to it.
    unsafe { core::slice::from_raw_parts(start, len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_ends_before_the_pages() {
        assert!(CODE + bytes().len() as u64 <= PAGES);
    }

    #[test]
    fn entries_are_in_the_code() {
        let code = CODE..CODE + bytes().len() as u64;
        for program in [Program::Exits, Program::Spin, Program::Timed, Program::Asks] {
            assert!(code.contains(&program.entry()), "{program:?}");
        }
    }

    #[test]
    fn fields_do_not_overlap() {
        let mut fields: Vec<_> = Kind::ALL.iter().map(|kind| kind.order()).collect();
        fields.extend(Kind::ALL.iter().map(|kind| kind.done()));
        fields.extend([STOP, TSC_BEFORE, TSC_BEFORE + 4, TSC_AFTER, TSC_AFTER + 4]);
        fields.extend([LEAF, INDEX, VMMCALL]);
        fields.extend((0..4).map(|register| ANSWER + 4 * register));
        let count = fields.len();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields.len(), count);
    }
}
