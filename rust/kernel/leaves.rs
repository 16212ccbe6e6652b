// SPDX-License-Identifier: GPL-2.0

//! The leaves of CPUID by which a guest reads how often it exited, and how long
//! that took.
//!
//! Two numberings are in circulation:
//!
//! | leaf | A | B |
//! |---|---|---|
//! | 0x4FFFFFFC | ticks for the reason in ecx | all exits |
//! | 0x4FFFFFFD | exits for the reason in ecx | all ticks |
//! | 0x4FFFFFFE | all ticks | exits for the reason in ecx |
//! | 0x4FFFFFFF | all exits | ticks for the reason in ecx |
//!
//! A reason is the hardware's number for it, as in every table of ours.

use crate::reasons::{reason, slot, Isa};

/// Which leaf is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The last leaf has the total.
    A,
    /// The first leaf has the total.
    B,
}

/// What a leaf asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Exits for all reasons, or counted in one slot.
    Exits(Option<usize>),
    /// What they took, in ticks of the TSC.
    Ticks(Option<usize>),
    /// A number that no manual defines as a reason.
    Undefined,
}

/// The first of the four leaves.
const FIRST: u32 = 0x4fff_fffc;

/// What the leaf with this `index`, in ecx, asks for; none if it is not one of these.
pub fn question(numbering: Numbering, isa: Isa, leaf: u32, index: u32) -> Option<Question> {
    let of_reason = |question: fn(Option<usize>) -> Question| {
        defined(isa, index).map_or(Question::Undefined, |slot| question(Some(slot)))
    };

    Some(match (numbering, leaf.checked_sub(FIRST)?) {
        (Numbering::A, 3) | (Numbering::B, 0) => Question::Exits(None),
        (Numbering::A, 2) | (Numbering::B, 1) => Question::Ticks(None),
        (Numbering::A, 1) | (Numbering::B, 2) => of_reason(Question::Exits),
        (Numbering::A, 0) | (Numbering::B, 3) => of_reason(Question::Ticks),
        _ => return None,
    })
}

/// The slot of a reason with exactly this number, without any modifier.
fn defined(isa: Isa, number: u32) -> Option<usize> {
    let slot = slot(isa, number);
    reason(isa, slot)
        .filter(|reason| reason.defined && reason.number == Some(number))
        .map(|_| slot)
}
