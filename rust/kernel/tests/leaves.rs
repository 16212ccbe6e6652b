// SPDX-License-Identifier: GPL-2.0

//! Each leaf of CPUID asks for what it asks for in its numbering, and no other
//! leaf for anything.

use kvmscope::leaves::{question, Numbering, Question};
use kvmscope::reasons::{reason, slot, Isa, SLOTS};
use proptest::prelude::*;

const LEAVES: [u32; 4] = [0x4fff_fffc, 0x4fff_fffd, 0x4fff_fffe, 0x4fff_ffff];

fn questions(numbering: Numbering, isa: Isa, index: u32) -> [Question; 4] {
    LEAVES.map(|leaf| question(numbering, isa, leaf, index).unwrap())
}

#[test]
fn numberings() {
    let slot = Some(10);
    assert_eq!(
        questions(Numbering::A, Isa::Vmx, 10),
        [
            Question::Ticks(slot),
            Question::Exits(slot),
            Question::Ticks(None),
            Question::Exits(None)
        ]
    );
    assert_eq!(
        questions(Numbering::B, Isa::Vmx, 10),
        [
            Question::Exits(None),
            Question::Ticks(None),
            Question::Exits(slot),
            Question::Ticks(slot)
        ]
    );
}

/// Reasons that no manual defines, and numbers beyond all reasons. A total does
/// not depend on ecx.
#[test]
fn undefined_reasons() {
    for (isa, index) in [
        (Isa::Vmx, 35),
        (Isa::Vmx, 38),
        (Isa::Vmx, 200),
        (Isa::Vmx, 0xdead),
        (Isa::Vmx, (1 << 31) | 33),
        (Isa::Vmx, (1 << 27) | 10),
        (Isa::Vmx, u32::MAX),
        (Isa::Svm, 0xdf),
        (Isa::Svm, 0x1000),
    ] {
        let [ticks, exits, all_ticks, all_exits] = questions(Numbering::A, isa, index);
        assert_eq!((ticks, exits), (Question::Undefined, Question::Undefined));
        assert_eq!(
            (all_ticks, all_exits),
            (Question::Ticks(None), Question::Exits(None))
        );
    }
}

/// KVM enables neither, and yet they are reasons.
#[test]
fn reasons_that_kvm_does_not_enable() {
    for number in [11, 17, 73] {
        let [_, exits, ..] = questions(Numbering::A, Isa::Vmx, number);
        assert_eq!(exits, Question::Exits(Some(number as usize)));
    }
}

#[test]
fn large_numbers_of_svm() {
    for number in [0x400, 0xffff_ffff, 0x8000_0001] {
        let [_, exits, ..] = questions(Numbering::A, Isa::Svm, number);
        assert_eq!(exits, Question::Exits(Some(slot(Isa::Svm, number))));
    }
}

proptest! {
    #[test]
    fn no_other_leaf_is_answered(leaf: u32, index: u32) {
        for numbering in [Numbering::A, Numbering::B] {
            let answered = question(numbering, Isa::Vmx, leaf, index).is_some();
            prop_assert_eq!(answered, LEAVES.contains(&leaf));
        }
    }

    /// A question for a reason is for the row that has its number in the table.
    #[test]
    fn a_reason_is_its_row(small in 0u32..0x500, large: u32) {
        for isa in [Isa::Vmx, Isa::Svm] {
            for index in [small, large] {
                match question(Numbering::B, isa, 0x4fff_fffe, index) {
                    Some(Question::Exits(Some(slot))) => {
                        prop_assert_eq!(reason(isa, slot).unwrap().number, Some(index));
                    }
                    other => {
                        prop_assert_eq!(other, Some(Question::Undefined));
                        let named = (0..SLOTS).filter_map(|slot| reason(isa, slot));
                        let mut named = named.filter(|r| r.defined && r.number == Some(index));
                        prop_assert!(named.next().is_none());
                    }
                }
            }
        }
    }
}
