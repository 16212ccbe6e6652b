// SPDX-License-Identifier: GPL-2.0

//! Times add up, whoever is asked for them, and are printed as they were.

use kvmscope::counters::Table;
use kvmscope::latency::{nanoseconds, Latency};
use kvmscope::reasons::{Isa, EMULATION_REQUIRED, SLOTS};
use kvmscope::tables;
use proptest::prelude::*;

const MHZ: u32 = 1000;

fn latency_text(latency: Option<&Latency>, khz: u32) -> String {
    let mut text = String::new();
    tables::latency(&mut text, Isa::Vmx, latency, khz).unwrap();
    text
}

#[test]
fn the_table_of_times_looks_like_this() {
    let latency = Latency::default();
    latency.slot(10, false).account([700, 0, 0, 0]);
    latency.slot(10, false).account([300, 0, 0, 50]);
    latency.slot(10, true).account([2100, 0, 0, 0]);
    latency.slot(12, false).account([1000, 20, 3000, 0]);
    latency.slot(30, true).account([600, 10, 0, 0]);

    let expected = "\
kvmscope 1 latency VMX
number name samples kvm_ns user_ns sleep_ns preempt_ns min_ns max_ns nested nested_kvm_ns histogram
10 CPUID 3 3100000 0 0 50000 300000 2100000 1 2100000 256000:1,512000:1,2048000:1
12 HLT 1 1000000 20000 3000000 0 1000000 1000000 0 0 512000:1
30 IO_INSTRUCTION 1 600000 10000 0 0 600000 600000 1 600000 512000:1
";
    assert_eq!(latency_text(Some(&latency), MHZ), expected);
}

#[test]
fn the_table_of_exits_looks_like_this() {
    let mut table = Table::new();
    table.all[10] = 1000;
    table.all[48] = 12;
    table.nested[48] = 3;
    table.all[EMULATION_REQUIRED] = 1;
    let mut text = String::new();
    tables::exits(&mut text, Isa::Vmx, &table).unwrap();

    let expected = "\
kvmscope 1 exits VMX
number name exits nested
10 CPUID 1000 0
48 EPT_VIOLATION 12 3
- EMULATION_REQUIRED 1 0
";
    assert_eq!(text, expected);
}

#[test]
fn before_anything_is_timed_there_are_headings_only() {
    assert_eq!(latency_text(None, MHZ).lines().count(), 2);
    let empty = Latency::default();
    assert_eq!(latency_text(Some(&empty), MHZ).lines().count(), 2);
}

proptest! {
    /// The sum of two vCPUs' tables is the table of all their exits.
    #[test]
    fn sums_are_what_one_would_have_had(
        exits in prop::collection::vec(
            (any::<bool>(), 0..SLOTS, any::<bool>(), any::<[u32; 4]>()),
            0..100,
        )
    ) {
        let vcpus = [Box::<Latency>::default(), Box::default()];
        let all = Box::<Latency>::default();
        for (vcpu, slot, nested, who) in exits {
            let who = who.map(u64::from);
            vcpus[usize::from(vcpu)].slot(slot, nested).account(who);
            all.slot(slot, nested).account(who);
        }
        let sum = Box::<Latency>::default();
        vcpus.iter().for_each(|vcpu| vcpu.add_to(&sum));
        prop_assert_eq!(latency_text(Some(&sum), MHZ), latency_text(Some(&all), MHZ));
    }

    /// Exact to the nanosecond, without a 128-bit division in the kernel.
    #[test]
    fn ticks_become_nanoseconds(ticks in 0u64..1 << 60, khz in 1000u32..10_000_000) {
        let exact = u128::from(ticks) * 1_000_000 / u128::from(khz);
        prop_assume!(exact < u128::from(u64::MAX));
        prop_assert!(exact - u128::from(nanoseconds(ticks, khz)) <= 1);
    }

    /// Every exit is in the bucket that its time belongs to.
    #[test]
    fn buckets_bound_their_times(kvm in 1u64..1 << 50) {
        let latency = Box::<Latency>::default();
        latency.slot(1, false).account([kvm, 0, 0, 0]);
        let (lower, count) = latency.row(1).unwrap().histogram().next().unwrap();
        prop_assert_eq!(count, 1);
        prop_assert!(lower <= kvm && kvm < (lower * 2).max(2));
    }
}
