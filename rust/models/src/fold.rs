// SPDX-License-Identifier: GPL-2.0

//! A vCPU counts and goes, while somebody reads the totals and somebody resets them.
//!
//! Counters and totals are the kernel's own. What is modelled is the ledger around
//! them, `Ledger` in `rust/kernel/ffi.rs`: the live vCPUs and the books under one
//! mutex.

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::books::Books;
use crate::counters::{Counters, Table};

/// What is taken out, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// A vCPU is taken off the list and added to the books under one lock.
    OneLock,
    /// A vCPU that was added to the books is no longer on the list.
    Removal,
    /// What a vCPU counted is taken over once its thread has gone.
    ThreadGone,
    /// What a vCPU counted is taken over at all.
    Fold,
    /// A counter has one writer.
    OneWriter,
    /// A reset leaves counters alone.
    Baseline,
}

struct Ledger {
    live: Vec<Arc<Counters>>,
    books: Books,
}

struct Registry {
    ledger: Mutex<Ledger>,
    without: Without,
}

impl Registry {
    fn new(without: Without) -> (Arc<Self>, Arc<Counters>) {
        let vcpu = Arc::new(Counters::new());
        let ledger = Mutex::new(Ledger {
            live: vec![vcpu.clone()],
            books: Books::new(),
        });
        (Arc::new(Self { ledger, without }), vcpu)
    }

    /// kvm_scope_vcpu_retire()
    fn retire(&self) {
        let mut ledger = self.ledger.lock().unwrap();
        let vcpu = ledger.live.pop().expect("it is live");
        if self.without == Without::OneLock {
            drop(ledger);
            ledger = self.ledger.lock().unwrap();
        }
        if self.without != Without::Fold {
            ledger.books.retire(&vcpu);
        }
        if self.without == Without::Removal {
            ledger.live.push(vcpu);
        }
    }

    /// kvm_scope_show() of the system.
    fn total(&self) -> u64 {
        let ledger = self.ledger.lock().unwrap();
        let mut sum = Table::new();
        let live = ledger.live.iter().map(|vcpu| &**vcpu);
        ledger.books.since_reset(live, &mut sum);
        sum.all[0]
    }

    /// kvm_scope_reset()
    fn reset(&self) {
        let mut ledger = self.ledger.lock().unwrap();
        let Ledger { live, books } = &mut *ledger;
        if self.without == Without::Baseline {
            live.iter().for_each(|vcpu| vcpu.set(&Table::new()));
        } else {
            books.reset(live.iter().map(|vcpu| &**vcpu));
        }
    }
}

const EXITS: u64 = 2;

/// A vCPU counts some exits and retires; totals never go down and are never more
/// than that, and in the end exactly that.
pub fn totals(without: Without) {
    let (registry, vcpu) = Registry::new(without);
    let counts = {
        let (registry, vcpu) = (registry.clone(), vcpu.clone());
        thread::spawn(move || {
            (0..EXITS).for_each(|_| vcpu.all.count(0));
            if registry.without != Without::ThreadGone {
                registry.retire();
            }
        })
    };
    let other = (without == Without::OneWriter).then(|| {
        let vcpu = vcpu.clone();
        thread::spawn(move || vcpu.all.count(0))
    });
    if without == Without::ThreadGone {
        registry.retire();
    }

    let first = registry.total();
    let second = registry.total();
    let exits = EXITS + u64::from(other.is_some());
    assert!(first <= second && second <= exits, "{first}, then {second}");

    other.into_iter().for_each(|other| other.join().unwrap());
    counts.join().unwrap();
    if without != Without::OneWriter {
        assert_eq!(registry.total(), exits);
    } else {
        // What the other counted after the vCPU retired is nobody's business here.
        let mut sum = Table::new();
        vcpu.add_to(&mut sum);
        assert_eq!(sum.all[0], exits);
    }
}

/// A vCPU counts while somebody resets: each exit is before the reset or after it.
pub fn reset(without: Without) {
    let (registry, vcpu) = Registry::new(without);
    let counts = {
        let (registry, vcpu) = (registry.clone(), vcpu.clone());
        thread::spawn(move || {
            (0..EXITS).for_each(|_| vcpu.all.count(0));
            registry.retire();
        })
    };
    let before = registry.total();
    registry.reset();
    let after = registry.total();
    assert!(after <= EXITS - before, "{before} before, {after} since");
    counts.join().unwrap();
    let since = registry.total();
    assert!(
        after <= since && since <= EXITS - before,
        "{before} before, {after} and then {since} since"
    );

    // With nobody counting, a reset leaves nothing.
    registry.reset();
    assert_eq!(registry.total(), 0);
}
