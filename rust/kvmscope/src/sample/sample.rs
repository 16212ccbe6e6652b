// SPDX-License-Identifier: GPL-2.0

//! A sample: one access of a guest to a page of its memory; and what else the kernel
//! tells of a session.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Pages have 4 KiB.
pub const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// By CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Its number in the session; those that are missing were lost.
    pub sequence: u64,
    pub vcpu: u32,
    /// The page, in the guest.
    pub gfn: u64,
    pub access: Access,
    /// Of the mapping that was taken away: 1 is 4 KiB, 2 is 2 MiB.
    pub level: u8,
    /// The CPU's walk of a page table of the guest's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub table: bool,
}

fn is_false(bit: &bool) -> bool {
    !bit
}

/// Kinds of access: any of read, write and execute, as `rwx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Access(u8);

impl Access {
    pub const READ: Access = Access(1);
    pub const WRITE: Access = Access(2);
    pub const EXECUTE: Access = Access(4);
    const LETTERS: [(Access, char); 3] = [
        (Access::READ, 'r'),
        (Access::WRITE, 'w'),
        (Access::EXECUTE, 'x'),
    ];

    /// The kernel's bits.
    pub fn from_bits(bits: u8) -> Access {
        Access(bits & 7)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn has(self, kind: Access) -> bool {
        self.0 & kind.0 != 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |(kind, letter): (Access, char)| if self.has(kind) { letter } else { '-' };
        let text: String = Access::LETTERS.into_iter().map(letter).collect();
        f.pad(&text)
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Access, String> {
        let mut access = Access(0);
        for c in text.chars().filter(|c| *c != '-') {
            let kind = Access::LETTERS.iter().find(|(_, letter)| *letter == c);
            let (kind, _) = kind.ok_or("not made of the letters r, w and x")?;
            access.0 |= kind.0;
        }
        if access.0 == 0 {
            return Err("at least one of the letters r, w and x".to_string());
        }
        Ok(access)
    }
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Access, String> {
        text.parse()
    }
}

impl From<Access> for String {
    fn from(access: Access) -> String {
        access.to_string()
    }
}

/// Memory of the guest's, and where the VM's process has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub gpa: u64,
    pub hva: u64,
    /// Of 4 KiB.
    pub pages: u64,
    pub id: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub readonly: bool,
}

impl Slot {
    pub fn gfns(&self) -> std::ops::Range<u64> {
        let first = self.gpa / PAGE;
        first..first.saturating_add(self.pages)
    }
}

/// What the kernel counted in a session: what was taken is delivered, lost, or
/// waiting to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pages whose access was taken away.
    pub armed: u64,
    /// Accesses seen to them.
    pub taken: u64,
    /// Seen, and of a kind that was not asked for.
    pub filtered: u64,
    /// Mapped again by something else than an access.
    pub disarmed: u64,
    pub delivered: u64,
    /// For lack of room.
    pub lost: u64,
    pub waiting: u64,
    pub flushes: u64,
    pub batches: u64,
    /// What it cost the guest, as the kernel estimates.
    pub spent_ns: u64,
    pub elapsed_ns: u64,
    /// Samples per second that are aimed at.
    pub rate_now: u64,
}
