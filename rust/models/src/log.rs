// SPDX-License-Identifier: GPL-2.0

//! A vCPU logs what its guest writes, in pages that it hands over; the worker drains
//! them, ends sub-intervals, and tracking is stopped and started.
//!
//! This is C in the kernel, and told once more here, statement by statement:
//! `kvm_scope_wss.h` has [`Log::publish`] and [`first`], `kvm_scope_wss.c`
//! [`Log::start`], [`Log::drain`], [`Log::swap`], [`Wss::drain_all`] and
//! [`Wss::restart`], `vmx/vmx.c` [`Log::exit`]. The lines that matter stand beside
//! the statement that mirrors them, after `C:`, and `tests/source.rs` fails when one of
//! them is no longer in the source.

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use crate::plain::Plain;
use crate::safeguard::{guard_if, ordering_if};

/// KVM_SCOPE_LOG_PAGES, _ENTRIES and _ROOM: the fewest with which everything occurs.
const PAGES: u64 = 2;
const ENTRIES: u16 = 3;
const ROOM: u16 = 2;

/// What is taken out, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// Entries are visible before the index that tells of them.
    ReleaseOfPublished,
    /// See [`Without::ReleaseOfPublished`].
    AcquireOfPublished,
    /// A page is filled again once it was read.
    ReleaseOfTail,
    /// See [`Without::ReleaseOfTail`].
    AcquireOfTail,
    /// A page is filled again once it was drained.
    FreeSlot,
    /// A vCPU that drains its own log keeps the worker away.
    LockInPlace,
    /// The number of entries that a page was handed over with.
    First,
    /// A vCPU says how far it has come before it is seen outside of the guest.
    PublishedInTime,
    /// A log that is of another run is not drained.
    RunOfLog,
    /// Nor by the vCPU itself.
    RunOfLogInPlace,
    /// A log begins anew while nobody drains.
    LockOfStart,
}

/// The log of a vCPU.
struct Log {
    published: AtomicU64,
    tail: AtomicU64,
    run: AtomicU64,
    /// The vCPU's alone.
    head: Plain<u64>,
    /// Under the lock.
    taken: Plain<u16>,
    first: Vec<Plain<u16>>,
    pages: Vec<Vec<Plain<u64>>>,
}

/// What the VM has for it.
struct Wss {
    lock: Mutex<()>,
    /// Under the lock: what was drained since the run began.
    estimator: Plain<Vec<u64>>,
    run: AtomicU64,
    log: Log,
    /// Held by the vCPU while its guest runs; who makes a request of all vCPUs waits
    /// for it.
    guest: Mutex<()>,
    /// KVM_REQ_UPDATE_CPU_DIRTY_LOGGING
    request: AtomicU64,
    /// Entries that the CPU has logged in this run; what the model knows.
    logged: AtomicU64,
    without: Without,
}

/// C: return (u16)((u16)published + 1);
fn first(published: u64) -> u16 {
    (published as u16).wrapping_add(1)
}

impl Wss {
    fn new(without: Without) -> Arc<Self> {
        let page = || (0..ENTRIES).map(|_| Plain::new(0)).collect();
        Arc::new(Self {
            lock: Mutex::new(()),
            estimator: Plain::new(Vec::new()),
            run: AtomicU64::new(0),
            log: Log {
                published: AtomicU64::new(0),
                tail: AtomicU64::new(0),
                run: AtomicU64::new(0),
                head: Plain::new(0),
                taken: Plain::new(0),
                first: (0..PAGES).map(|_| Plain::new(0)).collect(),
                pages: (0..PAGES).map(|_| page()).collect(),
            },
            guest: Mutex::new(()),
            request: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            without,
        })
    }

    fn unless(&self, without: Without, ordering: Ordering) -> Ordering {
        ordering_if(self.without != without, ordering)
    }

    fn guard(&self, without: Without) -> Option<MutexGuard<'_, ()>> {
        guard_if(self.without != without, &self.lock)
    }

    /// wss_drain_all(), under the lock.
    fn drain_all(&self) {
        // C: if (log && READ_ONCE(log->run) == wss->run)
        let current = self.log.run.load(Relaxed) == self.run.load(Relaxed);
        if current || self.without == Without::RunOfLog {
            self.log.drain(self);
        }
    }

    /// What wss_start() does for a run, and kvm_make_all_cpus_request().
    fn restart(&self) {
        {
            let _guard = self.lock.lock().unwrap();
            // C: wss->run++;
            self.run.store(self.run.load(Relaxed) + 1, Relaxed);
            self.estimator.change(Vec::clear);
        }
        self.request.store(1, Release);
        drop(self.guest.lock().unwrap());
    }

    /// What wss_end_interval() drains: all that the CPUs have logged once they are
    /// out of the guest.
    fn end_interval(&self) {
        let _guard = self.lock.lock().unwrap();
        // C: kvm_make_all_cpus_request(kvm, KVM_REQ_OUTSIDE_GUEST_MODE);
        let logged = {
            let _outside = self.guest.lock().unwrap();
            self.logged.load(Relaxed)
        };
        self.drain_all();
        self.estimator.look(|all| {
            assert!(
                all.len() as u64 >= logged,
                "{logged} logged, drained {all:?}"
            );
        });
    }

    /// The vCPU's thread: each number is how many pages the guest writes until it
    /// exits.
    fn vcpu(&self, bursts: &[u16]) {
        for &burst in bursts {
            loop {
                let guest = self.guest.lock().unwrap();
                if self.request.swap(0, Acquire) != 0 {
                    drop(guest);
                    self.log.start(self);
                    continue;
                }
                self.log.fill(self, burst);
                if self.without == Without::PublishedInTime {
                    drop(guest);
                    self.log.exit(self, burst);
                } else {
                    self.log.exit(self, burst);
                    drop(guest);
                }
                break;
            }
            self.log.flush(self);
        }
    }

    /// All that is drained is of this run, each entry once and in turn.
    fn check(&self) -> u64 {
        self.estimator.look(|all| {
            let run = self.run.load(Relaxed);
            for (number, &entry) in (0..).zip(all) {
                assert_eq!(entry, (run << 32) | number, "drained {all:x?}");
            }
            all.len() as u64
        })
    }
}

impl Log {
    fn page(&self, number: u64) -> &[Plain<u64>] {
        // C: page = log->pages[head % KVM_SCOPE_LOG_PAGES];
        &self.pages[(number % PAGES) as usize]
    }

    fn head(&self) -> u64 {
        self.head.get()
    }

    /// kvm_scope_wss_publish()
    fn publish(&self, wss: &Wss, index: u16) {
        // C: smp_store_release(&log->published, log->head << 16 | index);
        let release = wss.unless(Without::ReleaseOfPublished, Release);
        self.published
            .store((self.head() << 16) | u64::from(index), release);
    }

    /// What the CPU does: entries downward, from the index that it has.
    fn fill(&self, wss: &Wss, count: u16) {
        let mut next = first(self.published.load(Relaxed));
        let run = self.run.load(Relaxed);
        for _ in 0..count {
            next = next
                .checked_sub(1)
                .expect("a log that is full makes the CPU exit");
            let number = wss.logged.load(Relaxed);
            let entry = &self.page(self.head())[usize::from(next)];
            entry.set((run << 32) | number);
            wss.logged.store(number + 1, Relaxed);
        }
    }

    /// What vmx_vcpu_run_logged() does when the guest has exited.
    fn exit(&self, wss: &Wss, count: u16) {
        let index = (self.published.load(Relaxed) as u16).wrapping_sub(count);
        // C: kvm_scope_wss_publish(log, vmcs_read16(GUEST_PML_INDEX));
        self.publish(wss, index);
    }

    /// vmx_scope_flush_log()
    fn flush(&self, wss: &Wss) {
        // C: if (first >= KVM_SCOPE_LOG_ROOM)
        if first(self.published.load(Relaxed)) < ROOM {
            self.swap(wss);
        }
    }

    /// kvm_scope_wss_swap()
    fn swap(&self, wss: &Wss) {
        let head = self.head();
        let acquire = wss.unless(Without::AcquireOfTail, Acquire);
        // C: return log->head + 1 - smp_load_acquire(&log->tail) >= KVM_SCOPE_LOG_PAGES;
        if head + 1 - self.tail.load(acquire) >= PAGES && wss.without != Without::FreeSlot {
            let _guard = wss.guard(Without::LockInPlace);
            // C: if (log->run != wss->run) {
            let current = self.run.load(Relaxed) == wss.run.load(Relaxed);
            if !current && wss.without != Without::RunOfLogInPlace {
                // C: log->tail = log->head;
                self.tail.store(head, Relaxed);
                // C: log->taken = kvm_scope_wss_first(log->published);
                let first = first(self.published.load(Relaxed));
                self.taken.set(first);
            // C: } else if (wss_is_full(log)) {
            } else if head + 1 - self.tail.load(Acquire) >= PAGES {
                self.drain(wss);
            }
        }

        // C: log->first[log->head % KVM_SCOPE_LOG_PAGES] = kvm_scope_wss_first(log->published);
        let at = (head % PAGES) as usize;
        let of_page = match wss.without {
            Without::First => 0,
            _ => first(self.published.load(Relaxed)),
        };
        self.first[at].set(of_page);
        // C: log->head++;
        self.head.set(head + 1);
        // C: kvm_scope_wss_publish(log, KVM_SCOPE_LOG_ENTRIES - 1);
        self.publish(wss, ENTRIES - 1);
    }

    /// wss_drain(), under the lock.
    fn drain(&self, wss: &Wss) {
        let acquire = wss.unless(Without::AcquireOfPublished, Acquire);
        // C: published = smp_load_acquire(&log->published);
        let published = self.published.load(acquire);
        // C: head = published >> 16;
        let head = published >> 16;

        // C: while (log->tail < head) {
        while self.tail.load(Relaxed) < head {
            let tail = self.tail.load(Relaxed);
            // C: first = log->first[log->tail % KVM_SCOPE_LOG_PAGES];
            let first = self.first[(tail % PAGES) as usize].get();
            self.take(wss, tail, first);
            // C: log->taken = KVM_SCOPE_LOG_ENTRIES;
            self.taken.set(ENTRIES);
            let release = wss.unless(Without::ReleaseOfTail, Release);
            // C: smp_store_release(&log->tail, log->tail + 1);
            self.tail.store(tail + 1, release);
        }

        // C: first = kvm_scope_wss_first(published);
        let first = first(published);
        self.take(wss, head, first);
        // C: log->taken = first;
        self.taken.set(first);
    }

    /// kvm_scope_wss_logged(): the entries from `first` up to what was taken before.
    fn take(&self, wss: &Wss, page: u64, first: u16) {
        // C: kvm_scope_wss_logged(wss->estimator, page + first, log->taken - first);
        let taken = self.taken.get();
        let entries = &self.page(page)[usize::from(first)..usize::from(taken)];
        // Downward, as they were logged.
        let entries = entries.iter().rev().map(Plain::get);
        wss.estimator.change(|all| all.extend(entries));
    }

    /// kvm_scope_wss_start_log()
    fn start(&self, wss: &Wss) {
        // C: run = READ_ONCE(kvm->arch.scope_wss->run);
        let run = wss.run.load(Relaxed);
        // C: if (!log || log->run == run)
        if self.run.load(Relaxed) == run {
            return;
        }
        // C: WRITE_ONCE(log->run, 0);
        self.run.store(0, Relaxed);
        // C: guard(mutex)(&wss->lock);
        let _guard = wss.guard(Without::LockOfStart);
        // C: log->head = 0;
        self.head.set(0);
        // C: log->tail = 0;
        self.tail.store(0, Relaxed);
        // C: log->taken = KVM_SCOPE_LOG_ENTRIES;
        self.taken.set(ENTRIES);
        // C: kvm_scope_wss_publish(log, KVM_SCOPE_LOG_ENTRIES - 1);
        self.publish(wss, ENTRIES - 1);
        wss.logged.store(0, Relaxed);
        // C: WRITE_ONCE(log->run, run);
        self.run.store(run, Relaxed);
    }
}

/// One run: the vCPU hands over two pages, one with room left and one without, and
/// gets to the first again, while the worker ends sub-intervals.
pub fn hand_over(without: Without) {
    let wss = Wss::new(without);
    wss.restart();
    let vcpu = {
        let wss = wss.clone();
        thread::spawn(move || wss.vcpu(&[1, 1, 3, 1]))
    };
    wss.end_interval();
    {
        let _guard = wss.lock.lock().unwrap();
        wss.drain_all();
    }
    vcpu.join().unwrap();
    wss.end_interval();
    assert_eq!(wss.check(), 6);
}

/// Tracking is stopped and started while the vCPU runs.
pub fn restart(without: Without) {
    let wss = Wss::new(without);
    wss.restart();
    let vcpu = {
        let wss = wss.clone();
        thread::spawn(move || wss.vcpu(&[2, 2, 1]))
    };
    wss.restart();
    {
        let _guard = wss.lock.lock().unwrap();
        wss.drain_all();
        wss.check();
    }
    vcpu.join().unwrap();
    let _guard = wss.lock.lock().unwrap();
    wss.drain_all();
    wss.check();
}
