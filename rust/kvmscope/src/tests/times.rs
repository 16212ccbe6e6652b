// SPDX-License-Identifier: GPL-2.0

//! What is said of times, against the times themselves.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::table::{Reason, Table, Time};

fn reason() -> Reason {
    Reason::new(Some(10), "CPUID")
}

/// The table that a kernel would show after these times.
fn table(times: &[u64]) -> Table {
    let mut time = Time {
        samples: times.len() as u64,
        kvm_ns: times.iter().sum(),
        min_ns: times.iter().copied().min().unwrap_or(0),
        max_ns: times.iter().copied().max().unwrap_or(0),
        ..Time::default()
    };
    for &ns in times {
        let lower = if ns == 0 { 0 } else { 1 << ns.ilog2() };
        time.histogram.add(lower, 1);
    }
    let mut table = Table::default();
    let cost = table.cost_mut(reason());
    cost.exits = time.samples;
    cost.time = time;
    table
}

fn percentile(times: &[u64], p: f64) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (times.len() as f64 * p).ceil().max(1.0);
    sorted[rank as usize - 1]
}

/// The same bucket, as far as whole nanoseconds tell.
fn close(a: u64, b: u64) -> bool {
    a.max(b) <= a.min(b).saturating_mul(2) + 2
}

fn times() -> impl Strategy<Value = Vec<u64>> {
    vec(
        (0..40u32, any::<u64>()).prop_map(|(bits, x)| x & ((1 << bits) - 1)),
        1..50,
    )
}

proptest! {
    #[test]
    fn an_interval_says_what_happened_in_it(before in times(), now in times()) {
        let all = [before.clone(), now.clone()].concat();
        let mut change = table(&all).since(&table(&before));
        let time = &change.cost_mut(reason()).time;

        prop_assert_eq!(time.samples, now.len() as u64);
        prop_assert_eq!(time.kvm_ns, now.iter().sum::<u64>());
        prop_assert_eq!(time.average_ns(), Some(now.iter().sum::<u64>() / now.len() as u64));

        let (min, max) = (*now.iter().min().unwrap(), *now.iter().max().unwrap());
        prop_assert!(time.min_ns <= min && close(time.min_ns, min), "{} for {min}", time.min_ns);
        prop_assert!(time.max_ns >= max && close(time.max_ns, max), "{} for {max}", time.max_ns);
        for p in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let (said, is) = (time.percentile_ns(p).unwrap(), percentile(&now, p));
            prop_assert!(close(said, is), "p{p}: {said} for {is}");
            prop_assert!((time.min_ns..=time.max_ns).contains(&said));
        }
    }

    #[test]
    fn from_the_beginning_shortest_and_longest_are_exact(times in times()) {
        let mut change = table(&times).since(&Table::default());
        let time = &change.cost_mut(reason()).time;
        prop_assert_eq!(time.min_ns, *times.iter().min().unwrap());
        prop_assert_eq!(time.max_ns, *times.iter().max().unwrap());
    }

    #[test]
    fn intervals_of_times_add_up(a in times(), b in times(), c in times()) {
        let ab = [a.clone(), b].concat();
        let abc = [ab.clone(), c].concat();
        let mut sum = table(&a).since(&Table::default());
        sum.merge(&table(&ab).since(&table(&a)));
        sum.merge(&table(&abc).since(&table(&ab)));
        prop_assert_eq!(sum, table(&abc));
    }

    /// No file that a kernel may show, true or not, upsets the arithmetic.
    #[test]
    fn nonsense_is_survived(numbers in vec(any::<[u64; 8]>(), 2..6)) {
        let table = |n: &[u64; 8]| {
            let mut table = Table::default();
            let cost = table.cost_mut(reason());
            (cost.exits, cost.nested) = (n[0], n[1]);
            cost.time = Time {
                samples: n[2] % 3,
                kvm_ns: n[3],
                user_ns: n[4],
                min_ns: n[5],
                max_ns: n[6],
                ..Time::default()
            };
            cost.time.histogram.add(n[7], n[0]);
            table
        };
        let mut sum = Table::default();
        for pair in numbers.windows(2) {
            let change = table(&pair[1]).since(&table(&pair[0]));
            sum.merge(&change);
            let time = change.total().time;
            let _ = (time.percentile_ns(0.5), time.percentile_ns(0.99), time.average_ns());
        }
    }
}
