// SPDX-License-Identifier: GPL-2.0

//! Every reason has a slot, every slot a name, and the names are the header's.

use std::collections::HashSet;
use std::fs;

use kvmscope::reasons::*;
use proptest::prelude::*;

/// The constants of a header with a prefix, read without bindgen's help.
fn constants(header: &str, prefix: &str) -> Vec<(u32, String)> {
    let path = format!("{}/{header}", env!("KVM_SCOPE_INCLUDE"));
    let text = fs::read_to_string(path).unwrap();

    text.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("#define ")?.split_whitespace();
            let name = words.next()?.strip_prefix(prefix)?;
            let value = words.next()?;
            let number = match value.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => value.parse::<i64>().ok()? as u32,
            };
            Some((number, name.to_owned()))
        })
        .collect()
}

fn is_named(isa: Isa, number: u32, name: &str) {
    let reason = reason(isa, slot(isa, number)).unwrap();
    assert_eq!((reason.number, reason.name), (Some(number), name));
    assert!(reason.defined);
}

#[test]
fn vmx_names_are_the_headers() {
    let header = constants("uapi/asm/vmx.h", "EXIT_REASON_");
    assert!(header.len() > 60, "{header:?}");
    for (number, name) in header {
        // These say that an entry failed, and come with bit 31 set.
        let failed = matches!(number, 33 | 34 | 41);
        let full = number | (u32::from(failed) << 31);
        assert_eq!(slot(Isa::Vmx, full), number as usize);
        is_named(Isa::Vmx, number, &name);
    }
}

#[test]
fn svm_names_are_the_headers() {
    let header = constants("uapi/asm/svm.h", "SVM_EXIT_");
    assert!(header.len() > 80, "{header:?}");
    for (number, name) in header {
        if !name.contains("EXCP") {
            is_named(Isa::Svm, number, &name);
        }
    }
    for (number, name) in constants("uapi/asm/svm.h", "SVM_VMGEXIT_") {
        if number >= 0x8000_0000 {
            is_named(Isa::Svm, number, &format!("VMGEXIT_{name}"));
        }
    }
    is_named(Isa::Svm, 0x400, "NPF");
    is_named(Isa::Svm, u32::MAX, "ERR");
    is_named(Isa::Svm, 0x4e, "EXCP_PF");
}

#[test]
fn reasons_the_headers_leave_out_are_named() {
    is_named(Isa::Vmx, 11, "GETSEC");
    is_named(Isa::Vmx, 17, "RSM");
    is_named(Isa::Svm, 0x0f, "READ_CR15");
    is_named(Isa::Vmx, 81, "UWRMSR");
    is_named(Isa::Svm, 0xa6, "IDLE_HLT");
    is_named(Isa::Svm, -2i32 as u32, "BUSY");
}

/// Whatever is in the unnamed tables but also in the headers is stale.
#[test]
fn no_name_stands_twice() {
    for isa in [Isa::Vmx, Isa::Svm] {
        let mut seen = HashSet::new();
        for slot in 0..SLOTS {
            if let Some(reason) = reason(isa, slot).filter(|r| r.defined) {
                assert!(seen.insert(reason.name), "{isa:?} {slot} {}", reason.name);
            }
        }
    }
}

#[test]
fn specials_are_apart() {
    assert_eq!(slot(Isa::Vmx, (1 << 31) | 10), ENTRY_FAILED);
    assert_eq!(slot(Isa::Vmx, (1 << 31) | 33), 33);
    assert_eq!(slot(Isa::Vmx, 0xffff), UNKNOWN);
    assert_eq!(slot(Isa::Vmx, 0xdead), VMFAIL);
    assert_eq!(slot(Isa::Svm, 0x1000), UNKNOWN);
    for special in [VMFAIL, EMULATION_REQUIRED, ENTRY_FAILED, UNKNOWN] {
        for isa in [Isa::Vmx, Isa::Svm] {
            assert_eq!(reason(isa, special).unwrap().number, None);
        }
    }
}

proptest! {
    /// No reason, however odd, is lost, and none lands on what is no reason.
    #[test]
    fn every_reason_is_counted(reason_bits: u32, small in 0u32..0x500) {
        for isa in [Isa::Vmx, Isa::Svm] {
            for bits in [reason_bits, small] {
                let slot = slot(isa, bits);
                prop_assert!(slot < SLOTS);
                prop_assert!((slot == VMFAIL) == (isa == Isa::Vmx && bits == 0xdead));
                prop_assert!(slot != EMULATION_REQUIRED);
                prop_assert!(reason(isa, slot).is_some());
            }
        }
    }

    /// Modifier bits (bus lock, enclave mode, ...) do not change the reason.
    #[test]
    fn modifiers_are_masked(basic in 0u32..DIRECT as u32, modifiers in 0u32..0x8000) {
        prop_assert_eq!(slot(Isa::Vmx, (modifiers << 16) | basic), basic as usize);
    }
}
