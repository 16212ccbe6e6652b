// SPDX-License-Identifier: GPL-2.0

//! Guests that touch the pages they are told to, and where things lie in their
//! memory.
//!
//! Everything that is not the pages to be touched lies below [`DATA`]: the code,
//! a control page and a list for each vCPU, and the page tables. So what a guest
//! touches besides what it is told is known to the page as well. Each program
//! exists twice, for 32-bit mode without paging and for 64-bit mode with page
//! tables of its own; a guest with page tables also writes to those (the CPU
//! takes a walk for a write where EPT has accessed and dirty bits).

use core::arch::global_asm;

pub use crate::code::PORT_DONE;

/// A page.
pub const PAGE: u64 = 4096;
/// As many vCPUs as there is room for below [`DATA`].
pub const MAX_VCPUS: u32 = 8;

/// Where the code is loaded; one page.
pub const CODE: u64 = 0x1000;
/// vCPU 0's control page; vCPU n's is n pages further.
const CONTROL: u64 = 0x2000;
/// Where a CPU enters system management mode unless told otherwise.
pub const SMM_CODE: u64 = 0x38000;
/// What system management mode is to write to: addresses, ending with 0.
pub const SMM_LIST: u64 = 0x39000;
/// The page that the CPU's state is saved to on entry to it.
pub const SMM_SAVE: u64 = 0x3f000;
/// vCPU 0's list; each has [`LIST_SIZE`].
const LISTS: u64 = 0x40000;
const LIST_SIZE: u64 = 0x10000;
/// The entries that fit in a list.
pub const LIST_ENTRIES: usize = (LIST_SIZE / 4) as usize;
/// The page tables.
pub const TABLES: u64 = 0x10_0000;
/// The pages to be touched, from here to the end of memory.
pub const DATA: u64 = 0x40_0000;

/// The control page of vCPU `index`.
pub const fn control(index: u32) -> u64 {
    CONTROL + PAGE * index as u64
}

/// The list of vCPU `index`.
pub const fn list(index: u32) -> u64 {
    LISTS + LIST_SIZE * index as u64
}

/// What to do with a page, in the low bits of its entry in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Load from it.
    Read = 1,
    /// Store to it.
    Write = 2,
    /// Load from it, then store to it.
    Both = 3,
    /// Execute [`RETURN`] in it.
    Execute = 4,
}

const HLT: u8 = 0xf4;

/// Where the code lies in a page that is executed.
pub const ENTRY: u64 = 8;
/// That code: a jump to where EDI or RDI points.
pub const RETURN: [u8; 2] = [0xff, 0xe7];

/// An entry of a list.
pub const fn entry(gfn: u64, touch: Touch) -> u32 {
    (gfn * PAGE) as u32 | touch as u32
}

// Fields of a control page, each of 32 bits unless said otherwise.
/// Sweep: how many entries the list has. Scribble and stride: how many pages.
pub const COUNT: u64 = 0x04;
/// Sweep: the number of the last pass to make.
pub const ORDER: u64 = 0x08;
/// Sweep: the number of the last pass made. Scribble: the last stamp written.
pub const DONE: u64 = 0x0c;
/// Sweep: not zero: wait for orders in the guest, rather than with an exit.
pub const SPIN: u64 = 0x10;
/// Scribble: not zero: it is to end.
pub const STOP: u64 = 0x14;
/// What is written to pages.
pub const STAMP: u64 = 0x18;
/// Stride, two words: the TSC before and after.
pub const TSC_BEFORE: u64 = 0x20;
/// See [`TSC_BEFORE`].
pub const TSC_AFTER: u64 = 0x28;
/// Scribble and stride: the address of the first page.
pub const BASE: u64 = 0x30;
/// Stride: from one page to the next, in bytes.
pub const STRIDE: u64 = 0x34;
/// Stride: how many passes, one if 0.
pub const PASSES: u64 = 0x60;
/// Scribble: how often to pause between two writes.
pub const PACE: u64 = 0x38;
/// Scribble: the seed of the random pages.
pub const SEED: u64 = 0x3c;
/// Scribble: which word of 32 bytes to write to.
pub const WORD: u64 = 0x40;
/// Sweep: not zero: a pass begins again when it is through.
pub const REPEAT: u64 = 0x44;
/// Sweep: how many passes have been made.
pub const MADE: u64 = 0x64;
/// Skew: an access is to a hot page when a random word is less.
pub const HOT_BELOW: u64 = 0x48;
/// Skew: the address of the first cold page, and how many there are. The hot ones are
/// at [`BASE`], [`COUNT`] of them.
pub const COLD_BASE: u64 = 0x4c;
/// See [`COLD_BASE`].
pub const COLD_COUNT: u64 = 0x50;
/// Skew: accesses until it is done.
pub const ACCESSES: u64 = 0x54;
/// Skew: how many of all accesses were to hot pages, and to cold ones.
pub const HOT_DONE: u64 = 0x58;
/// See [`HOT_DONE`].
pub const COLD_DONE: u64 = 0x5c;
const LIST: u64 = 0x00;

// ESI holds the address of the control page throughout. The same text is
// assembled for either mode: addresses stay below 4 GiB.
global_asm!(
    r#"
    .pushsection .rodata.guest_pages, "a"
    guest_pages:

    .macro programs bits, forget
    .code\bits

    # A pass over the list whenever the order differs from what is done.
    guest_sweep\bits:
    1:  mov eax, [esi + {order}]
        cmp eax, [esi + {done}]
        jne 3f
        cmp dword ptr [esi + {spin}], 0
        jne 2f
        out {port_done}, al
        jmp 1b
    2:  pause
        jmp 1b
    3:  \forget
        mov ebx, [esi + {list}]
        mov ecx, [esi + {count}]
        mov ebp, [esi + {stamp}]
        jmp 7f
    4:  mov eax, [ebx]
        add ebx, 4
        mov edx, eax
        and edx, 0xfffff000
        test eax, {read}
        jz 5f
        mov edi, [edx]
    5:  test eax, {write}
        jz 6f
        mov [edx], ebp
    6:  test eax, {execute}
        jz 8f
        add edx, {entry}
        # Back to 8f: mov edi, and a jump to EDX or RDX.
        .byte 0xbf
        .long 8f - guest_pages + {code}
        .byte 0xff, 0xe2
    8:  dec ecx
    7:  test ecx, ecx
        jnz 4b
        inc dword ptr [esi + {made}]
        cmp dword ptr [esi + {repeat}], 0
        jne 3b
        mov eax, [esi + {order}]
        mov [esi + {done}], eax
        jmp 1b

    # Ever larger stamps to random words of random pages, until told to stop.
    guest_scribble\bits:
        mov edi, [esi + {seed}]
        mov ebp, [esi + {done}]
    1:  cmp dword ptr [esi + {stop}], 0
        jne 3f
        imul edi, edi, 1664525
        add edi, 1013904223
        mov eax, edi
        mul dword ptr [esi + {count}]
        shl edx, 12
        add edx, [esi + {base}]
        mov eax, edi
        and eax, 0xfe0
        add edx, eax
        add edx, [esi + {word}]
        inc ebp
        mov [edx], ebp
        mov [esi + {done}], ebp
        mov ecx, [esi + {pace}]
    2:  test ecx, ecx
        jz 1b
        pause
        dec ecx
        jmp 2b
    3:  out {port_done}, al
        jmp 1b

    # The TSC around a store to each of some pages at equal distances.
    guest_stride\bits:
        rdtsc
        mov [esi + {before}], eax
        mov [esi + {before} + 4], edx
        mov ebx, [esi + {stride}]
        mov edi, [esi + {stamp}]
        mov ebp, [esi + {passes}]
    1:  mov edx, [esi + {base}]
        mov ecx, [esi + {count}]
    2:  mov [edx], edi
        add edx, ebx
        dec ecx
        jnz 2b
        dec ebp
        jg 1b
        rdtsc
        mov [esi + {after}], eax
        mov [esi + {after} + 4], edx
        out {port_done}, al
        jmp guest_stride\bits

    # So many accesses, each to a random page of the hot or of the cold ones, half of
    # them stores.
    guest_skew\bits:
        mov edi, [esi + {seed}]
    1:  mov ebp, [esi + {accesses}]
    2:  imul edi, edi, 1664525
        add edi, 1013904223
        cmp edi, [esi + {hot_below}]
        jae 3f
        inc dword ptr [esi + {hot_done}]
        mov ebx, [esi + {base}]
        mov ecx, [esi + {count}]
        jmp 4f
    3:  inc dword ptr [esi + {cold_done}]
        mov ebx, [esi + {cold_base}]
        mov ecx, [esi + {cold_count}]
    4:  imul edi, edi, 1664525
        add edi, 1013904223
        mov eax, edi
        mul ecx
        shl edx, 12
        add edx, ebx
        test edi, 0x10000
        jz 5f
        mov [edx], edi
        jmp 6f
    5:  mov eax, [edx]
    6:  dec ebp
        jnz 2b
        out {port_done}, al
        jmp 1b
    .endm

    # A new CR3 makes the CPU forget all walks, so that a pass makes each anew.
    programs 32, "mov eax, cr3; mov cr3, eax"
    programs 64, "mov rax, cr3; mov cr3, rax"
    .purgem programs
    guest_pages_end:

    # What system management mode does: a store to each address of its list.
    .code16
    guest_smm:
        mov ebx, {smm_list}
    1:  mov eax, [ebx]
        test eax, eax
        jz 2f
        mov dword ptr [eax], 0x534d4d
        add ebx, 4
        jmp 1b
    2:  rsm
    guest_smm_end:
    .code64
    .popsection
    "#,
    list = const LIST,
    count = const COUNT,
    order = const ORDER,
    done = const DONE,
    spin = const SPIN,
    stop = const STOP,
    stamp = const STAMP,
    before = const TSC_BEFORE,
    after = const TSC_AFTER,
    base = const BASE,
    stride = const STRIDE,
    passes = const PASSES,
    pace = const PACE,
    seed = const SEED,
    word = const WORD,
    repeat = const REPEAT,
    made = const MADE,
    hot_below = const HOT_BELOW,
    cold_base = const COLD_BASE,
    cold_count = const COLD_COUNT,
    accesses = const ACCESSES,
    hot_done = const HOT_DONE,
    cold_done = const COLD_DONE,
    read = const Touch::Read as u32,
    write = const Touch::Write as u32,
    execute = const Touch::Execute as u32,
    entry = const ENTRY,
    code = const CODE,
    smm_list = const SMM_LIST,
    port_done = const PORT_DONE,
);

extern "C" {
    static guest_pages: u8;
    static guest_pages_end: u8;
    static guest_smm: u8;
    static guest_smm_end: u8;
    static guest_sweep32: u8;
    static guest_sweep64: u8;
    static guest_scribble32: u8;
    static guest_scribble64: u8;
    static guest_stride32: u8;
    static guest_stride64: u8;
    static guest_skew32: u8;
    static guest_skew64: u8;
}

/// A guest program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Passes over a list of pages, as ordered.
    Sweep,
    /// Stamps to random pages, until stopped.
    Scribble,
    /// Stores to pages at equal distances, timed.
    Stride,
    /// Accesses to hot and to cold pages, so many at a time.
    Skew,
}

impl Program {
    /// Its address in the guest, for 64-bit mode if `long`.
    pub fn entry(self, long: bool) -> u64 {
        let label = match (self, long) {
            (Program::Sweep, false) => &raw const guest_sweep32,
            (Program::Sweep, true) => &raw const guest_sweep64,
            (Program::Scribble, false) => &raw const guest_scribble32,
            (Program::Scribble, true) => &raw const guest_scribble64,
            (Program::Stride, false) => &raw const guest_stride32,
            (Program::Stride, true) => &raw const guest_stride64,
            (Program::Skew, false) => &raw const guest_skew32,
            (Program::Skew, true) => &raw const guest_skew64,
        };
        CODE + (label as u64 - &raw const guest_pages as u64)
    }
}

fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: Only called with two labels of the one piece of .rodata that the
    // assembly above makes, the end after the start; nothing writes to it.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

fn bytes() -> &'static [u8] {
    between(&raw const guest_pages, &raw const guest_pages_end)
}

/// The page at [`CODE`]: the programs, and HLT everywhere else, where a guest that goes
/// astray stops. Its RIP says then how it came there, and that the page is what it runs.
pub fn code() -> [u8; PAGE as usize] {
    let mut page = [HLT; PAGE as usize];
    page[..bytes().len()].copy_from_slice(bytes());
    page
}

/// What to load at [`SMM_CODE`].
pub fn smm_bytes() -> &'static [u8] {
    between(&raw const guest_smm, &raw const guest_smm_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        assert!(CODE + bytes().len() as u64 <= CONTROL);
        assert!(control(MAX_VCPUS) <= SMM_CODE);
        assert!(SMM_CODE + smm_bytes().len() as u64 <= SMM_LIST);
        assert!(SMM_SAVE + PAGE <= list(0));
        assert!(list(MAX_VCPUS) <= TABLES);
    }

    #[test]
    fn entries_are_in_the_code() {
        let code = CODE..CODE + bytes().len() as u64;
        for program in [
            Program::Sweep,
            Program::Scribble,
            Program::Stride,
            Program::Skew,
        ] {
            assert!(code.contains(&program.entry(false)), "{program:?}");
            assert!(code.contains(&program.entry(true)), "{program:?}");
        }
    }

    #[test]
    fn an_entry_has_both_its_parts() {
        assert_eq!(entry(0x12345, Touch::Both), 0x1234_5003);
    }
}
