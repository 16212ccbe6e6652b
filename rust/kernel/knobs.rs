// SPDX-License-Identifier: GPL-2.0

//! The words that may be written to a knob. Anything else is refused, so that
//! a typing error never does something else instead.

use crate::leaves::Numbering;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// Reasons that were seen.
    Seen,
    /// Every reason there is.
    All,
    /// Reasons that were seen, for each VM and vCPU.
    Vms,
}

/// The word in a write: all of it but one newline, which `echo` adds.
fn word(written: &[u8]) -> &[u8] {
    written.strip_suffix(b"\n").unwrap_or(written)
}

/// Parses a write to `dump`: "1", "all" or "vm".
pub fn dump(written: &[u8]) -> Option<Dump> {
    match word(written) {
        b"1" => Some(Dump::Seen),
        b"all" => Some(Dump::All),
        b"vm" => Some(Dump::Vms),
        _ => None,
    }
}

/// Parses a write to a VM's `cpuid`: "off", "a" or "b".
pub fn leaves(written: &[u8]) -> Option<Option<Numbering>> {
    match word(written) {
        b"off" => Some(None),
        b"a" => Some(Some(Numbering::A)),
        b"b" => Some(Some(Numbering::B)),
        _ => None,
    }
}

/// Parses a write to a switch, "0" or "1"; and to what can only be switched on.
pub fn switch(written: &[u8]) -> Option<bool> {
    match word(written) {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}
