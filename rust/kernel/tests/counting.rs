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
    Count { vcpu: usize, slot: usize },
    Retire { vcpu: usize },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Create),
        12 => (any::<usize>(), 0..SLOTS).prop_map(|(vcpu, slot)| Step::Count { vcpu, slot }),
        2 => any::<usize>().prop_map(|vcpu| Step::Retire { vcpu }),
        1 => Just(Step::Reset),
    ]
}

fn read(books: &Books, live: &[Box<Counters>]) -> Table {
    let mut table = [u64::MAX; SLOTS];
    books.since_reset(live.iter().map(|c| &**c), &mut table);
    table
}

proptest! {
    #[test]
    fn totals_are_what_was_counted(steps in prop::collection::vec(step(), 0..200)) {
        let mut books = Books::new();
        let mut live: Vec<Box<Counters>> = Vec::new();
        let mut expected = [0u64; SLOTS];

        for step in steps {
            match step {
                Step::Create => live.push(Box::default()),
                Step::Count { vcpu, slot } if !live.is_empty() => {
                    live[vcpu % live.len()].count(slot);
                    expected[slot] += 1;
                }
                Step::Retire { vcpu } if !live.is_empty() => {
                    let vcpu = live.swap_remove(vcpu % live.len());
                    books.retire(&vcpu);
                }
                Step::Reset => {
                    books.reset(live.iter().map(|c| &**c));
                    expected = [0; SLOTS];
                }
                _ => {}
            }
            prop_assert_eq!(&read(&books, &live)[..], &expected[..]);
        }
    }
}

#[test]
fn a_slot_out_of_range_is_ignored() {
    let counters = Counters::new();
    counters.count(SLOTS);
    counters.count(usize::MAX);

    let mut sum = [0; SLOTS];
    counters.add_to(&mut sum);
    assert_eq!(sum, [0; SLOTS]);
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
        let mut table = [0; SLOTS];
        vcpu.add_to(&mut table);
        table[10]
    };

    thread::scope(|scope| {
        scope.spawn(|| {
            (0..COUNT).for_each(|_| vcpu.count(10));
            done.store(true, Ordering::Release);
        });

        let mut books = Books::new();
        let mut table = [0; SLOTS];
        let mut between = 0..=0;
        while !done.load(Ordering::Acquire) {
            let before = total();
            books.reset([&vcpu].into_iter());
            between = before..=total();

            let mut previous = 0;
            for _ in 0..10 {
                books.since_reset([&vcpu].into_iter(), &mut table);
                assert!(table[10] >= previous, "{} after {previous}", table[10]);
                previous = table[10];
            }
        }

        books.since_reset([&vcpu].into_iter(), &mut table);
        assert!(
            between.contains(&(COUNT - table[10])),
            "{} of {COUNT} left, last reset at {between:?}",
            table[10]
        );
    });
}
