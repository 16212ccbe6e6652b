// SPDX-License-Identifier: GPL-2.0

//! The ring of samples: vCPUs put records in, and a reader takes them out, by read(2)
//! or from memory that it has mapped.
//!
//! The ring's numbers are the kernel's own, `Ring` in `rust/kernel/sample.rs`. What is
//! modelled is `arch/x86/kvm/kvm_scope_sample.c` around them: sample_record() and
//! sample_consume(), the header page that is shared with userspace, and a reader as
//! its documentation asks for one.

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use crate::plain::Plain;
use crate::safeguard::{guard_if, ordering_if};
use crate::sample::Ring;

/// The fewest that can be full and half full.
const RECORDS: u64 = 2;

/// What is taken out, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// One vCPU at a time puts a record in.
    Lock,
    /// A record is visible before the head that tells of it.
    ReleaseOfHead,
    /// See [`Without::ReleaseOfHead`]; the reader's part.
    AcquireOfHead,
    /// A place is used again once it was read; the reader's part.
    ReleaseOfTail,
    /// See [`Without::ReleaseOfTail`]. In C this is what the branch on the room that
    /// there is does: a store does not come before a load that it depends on.
    AcquireOfTail,
    /// There is room for a record.
    Room,
    /// One reader at a time.
    OneReader,
    /// Records are copied before they are consumed.
    CopyFirst,
}

struct Session {
    /// s->lock, and what it protects.
    lock: Mutex<()>,
    ring: Plain<Ring>,
    records: Vec<Plain<u64>>,
    /// s->readers
    readers: Mutex<()>,
    /// s->shared->head and ->tail
    head: AtomicU64,
    tail: AtomicU64,
    without: Without,
}

impl Session {
    fn new(without: Without) -> Arc<Self> {
        let ring = Ring {
            records: RECORDS,
            ..Ring::default()
        };
        Arc::new(Self {
            lock: Mutex::new(()),
            ring: Plain::new(ring),
            records: (0..RECORDS).map(|_| Plain::new(u64::MAX)).collect(),
            readers: Mutex::new(()),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            without,
        })
    }

    fn unless(&self, without: Without, ordering: Ordering) -> Ordering {
        ordering_if(self.without != without, ordering)
    }

    fn guard<'a>(&self, mutex: &'a Mutex<()>, without: Without) -> Option<MutexGuard<'a, ()>> {
        guard_if(self.without != without, mutex)
    }

    /// sample_heed()
    fn heed(&self) {
        let tail = self.tail.load(self.unless(Without::AcquireOfTail, Acquire));
        self.ring.change(|ring| ring.heed(tail));
    }

    /// sample_record(): a record is its number among the samples.
    fn record(&self) {
        let _guard = self.guard(&self.lock, Without::Lock);
        self.heed();
        let sequence = self.ring.look(Ring::taken);
        let room = match self.without {
            Without::Room => Some(sequence % RECORDS),
            _ => self.ring.change(Ring::room),
        };
        let Some(at) = room else {
            return;
        };
        self.records[at as usize].set(sequence);
        self.ring.change(Ring::put);
        let head = self.ring.look(|ring| ring.head);
        self.head
            .store(head, self.unless(Without::ReleaseOfHead, Release));
    }

    /// sample_consume(), all that is in a row.
    fn read(&self, out: &mut Vec<u64>) {
        let _readers = self.guard(&self.readers, Without::OneReader);
        let (at, count) = {
            let _guard = self.lock.lock().unwrap();
            self.heed();
            self.ring.look(|ring| ring.next(RECORDS))
        };
        if self.without == Without::CopyFirst {
            self.consume(count);
        }
        // copy_to_user() may sleep: without the lock.
        let from = self.records.iter().skip(at as usize).take(count as usize);
        out.extend(from.map(Plain::get));
        if self.without != Without::CopyFirst {
            self.consume(count);
        }
    }

    fn consume(&self, count: u64) {
        let _guard = self.lock.lock().unwrap();
        self.ring.change(|ring| ring.consume(count, 0));
        self.tail.store(self.ring.look(|ring| ring.tail), Relaxed);
    }

    /// A reader that has mapped the ring takes what there is.
    fn take(&self, out: &mut Vec<u64>) {
        let head = self.head.load(self.unless(Without::AcquireOfHead, Acquire));
        let mut tail = self.tail.load(Relaxed);
        while tail != head {
            out.push(self.records[(tail % RECORDS) as usize].get());
            tail += 1;
        }
        self.tail
            .store(tail, self.unless(Without::ReleaseOfTail, Release));
    }

    /// What was taken is delivered or lost, and comes in turn.
    fn check(&self, samples: u64, delivered: &[u64]) {
        assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
        let ring = self.ring.look(|ring| *ring);
        assert_eq!(ring.taken(), samples);
        assert_eq!(ring.lost + delivered.len() as u64, samples, "{delivered:?}");
    }
}

/// Two vCPUs, and a reader that has mapped the ring.
pub fn mapped(without: Without) {
    let session = Session::new(without);
    let vcpus = [2, 1].map(|samples| {
        let session = session.clone();
        thread::spawn(move || (0..samples).for_each(|_| session.record()))
    });
    let mut delivered = Vec::new();
    session.take(&mut delivered);
    vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
    session.take(&mut delivered);
    session.check(3, &delivered);
}

/// A vCPU, and two readers by read(2): each has what it read in turn, and the two
/// together have it all.
pub fn read(without: Without) {
    let session = Session::new(without);
    let vcpu = {
        let session = session.clone();
        thread::spawn(move || (0..3).for_each(|_| session.record()))
    };
    let other = {
        let session = session.clone();
        thread::spawn(move || {
            let mut delivered = Vec::new();
            session.read(&mut delivered);
            delivered
        })
    };
    let mut delivered = Vec::new();
    session.read(&mut delivered);
    vcpu.join().unwrap();
    delivered.extend(other.join().unwrap());
    session.read(&mut delivered);
    session.read(&mut delivered);
    delivered.sort_unstable();
    session.check(3, &delivered);
}
