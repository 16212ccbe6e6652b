// SPDX-License-Identifier: GPL-2.0

//! Words that are written to the kernel's knobs, and leaves that guests ask for.

use kernel::knobs::{self, Dump};
use kernel::leaves::{question, Numbering, Question};
use kernel::reasons::{reason, slot, Isa, SLOTS};

/// Each knob takes its few words, with one end of line or none, and nothing else.
pub fn words(written: &[u8]) {
    let dumps: [(&[u8], Dump); 6] = [
        (b"1", Dump::Seen),
        (b"1\n", Dump::Seen),
        (b"all", Dump::All),
        (b"all\n", Dump::All),
        (b"vm", Dump::Vms),
        (b"vm\n", Dump::Vms),
    ];
    is_one_of(&dumps, written, knobs::dump(written));
    let switches: [(&[u8], bool); 4] =
        [(b"0", false), (b"0\n", false), (b"1", true), (b"1\n", true)];
    is_one_of(&switches, written, knobs::switch(written));
    let numberings: [(&[u8], Option<Numbering>); 6] = [
        (b"off", None),
        (b"off\n", None),
        (b"a", Some(Numbering::A)),
        (b"a\n", Some(Numbering::A)),
        (b"b", Some(Numbering::B)),
        (b"b\n", Some(Numbering::B)),
    ];
    is_one_of(&numberings, written, knobs::leaves(written));
}

fn is_one_of<T: Copy + PartialEq + std::fmt::Debug>(
    words: &[(&[u8], T)],
    written: &[u8],
    parsed: Option<T>,
) {
    let expected = words.iter().find(|(word, _)| *word == written);
    assert_eq!(parsed, expected.map(|(_, value)| *value));
}

/// A leaf and an index, and an exit reason with all its bits: none of them leads
/// beyond the counters.
pub fn leaves(bytes: &[u8]) {
    let mut words = bytes.chunks_exact(4);
    let mut next = || {
        let word = words.next()?.try_into().ok()?;
        Some(u32::from_le_bytes(word))
    };
    while let (Some(leaf), Some(number)) = (next(), next()) {
        for isa in [Isa::Vmx, Isa::Svm] {
            let slot = slot(isa, number);
            assert!(slot < SLOTS);
            assert!(
                reason(isa, slot).is_some(),
                "{isa:?} {number:#x} has no name"
            );
            for numbering in [Numbering::A, Numbering::B] {
                let asked = question(numbering, isa, leaf, number);
                assert_eq!(asked.is_some(), (0x4fff_fffc..=0x4fff_ffff).contains(&leaf));
                if let Some(Question::Exits(Some(slot)) | Question::Ticks(Some(slot))) = asked {
                    // By exactly this number.
                    assert_eq!(
                        reason(isa, slot).and_then(|reason| reason.number),
                        Some(number)
                    );
                }
            }
        }
    }
}
