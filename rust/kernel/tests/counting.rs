// SPDX-License-Identifier: GPL-2.0

//! Nothing is lost and nothing is counted twice, whatever vCPUs come and go and
//! whenever somebody resets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kvmscope::books::Books;
use kvmscope::counters::{Counters, Table};
use kvmscope::reasons::SLOTS;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Create,
    Count {
        vcpu: usize,
        slot: usize,
        nested: bool,
    },
    Retire {
        vcpu: usize,
    },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Create),
        12 => (any::<usize>(), 0..SLOTS, any::<bool>())
            .prop_map(|(vcpu, slot, nested)| Step::Count { vcpu, slot, nested }),
        2 => any::<usize>().prop_map(|vcpu| Step::Retire { vcpu }),
        1 => Just(Step::Reset),
    ]
}

fn read(books: &Books, live: &[Box<Counters>]) -> Table {
    let mut table = Table {
        all: [u64::MAX; SLOTS],
        nested: [u64::MAX; SLOTS],
    };
    books.since_reset(live.iter().map(|c| &**c), &mut table);
    table
}

proptest! {
    #[test]
    fn totals_are_what_was_counted(steps in prop::collection::vec(step(), 0..200)) {
        let mut books = Books::new();
        let mut live: Vec<Box<Counters>> = Vec::new();
        let mut expected = Table::new();

        for step in steps {
            match step {
                Step::Create => live.push(Box::default()),
                Step::Count { vcpu, slot, nested } if !live.is_empty() => {
                    let vcpu = &live[vcpu % live.len()];
                    vcpu.all.count(slot);
                    expected.all[slot] += 1;
                    if nested {
                        vcpu.nested.count(slot);
                        expected.nested[slot] += 1;
                    }
                }
                Step::Retire { vcpu } if !live.is_empty() => {
                    let vcpu = live.swap_remove(vcpu % live.len());
                    books.retire(&vcpu);
                }
                Step::Reset => {
                    books.reset(live.iter().map(|c| &**c));
                    expected = Table::new();
                }
                _ => {}
            }
            prop_assert!(read(&books, &live) == expected);
        }
    }
}

#[test]
fn a_slot_out_of_range_is_ignored() {
    let counters = Counters::new();
    counters.all.count(SLOTS);
    counters.nested.count(usize::MAX);

    let mut sum = Table::new();
    counters.add_to(&mut sum);
    assert!(sum == Table::new());
}

/// The vCPU runs while somebody else resets, again and again. An exit is either
/// before a reset or after it: what is left at the end is all that came after
/// the last one, which took place between two looks at the counter.
#[test]
fn resets_under_fire_lose_nothing() {
    const COUNT: u64 = 2_000_000;
    let vcpu = Counters::new();
    let done = AtomicBool::new(false);
    let total = || {
        let mut table = Table::new();
        vcpu.add_to(&mut table);
        table.all[10]
    };

    thread::scope(|scope| {
        scope.spawn(|| {
            (0..COUNT).for_each(|_| vcpu.all.count(10));
            done.store(true, Ordering::Release);
        });

        let mut books = Books::new();
        let mut table = Table::new();
        let mut between = 0..=0;
        while !done.load(Ordering::Acquire) {
            let before = total();
            books.reset([&vcpu].into_iter());
            between = before..=total();

            let mut previous = 0;
            for _ in 0..10 {
                books.since_reset([&vcpu].into_iter(), &mut table);
                assert!(
                    table.all[10] >= previous,
                    "{} after {previous}",
                    table.all[10]
                );
                previous = table.all[10];
            }
        }

        books.since_reset([&vcpu].into_iter(), &mut table);
        assert!(
            between.contains(&(COUNT - table.all[10])),
            "{} of {COUNT} left, last reset at {between:?}",
            table.all[10]
        );
    });
}
