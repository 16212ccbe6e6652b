// SPDX-License-Identifier: GPL-2.0

//! The loop of tiering, on a VM made of a map: what cannot be moved, what ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::sample::device::monotonic_ns;
use crate::sample::sample::{Access, Counts, Sample, Slot, PAGE};
use crate::sample::session::{Session, State};
use crate::tests::sample::sample;
use crate::tier::mover::{Failures, Mover, Status};
use crate::tier::nodes::Nodes;
use crate::tier::policy::Rules;
use crate::tier::tiering::{Moved, Tiering};

const BASE: u64 = 0x7f00_0000_0000;
/// Of a region, and of the guest; the last four are hot.
const PAGES: u64 = 16;
const REGIONS: u64 = 16;

#[derive(Default)]
struct Vm {
    nodes: BTreeMap<u64, Status>,
    /// Pages that say so when they are to move.
    stubborn: BTreeMap<u64, Status>,
    /// How many pages the fast node can take.
    room: Option<usize>,
    /// Calls until the process is no more, and how that is told.
    lives: Option<(u32, i32)>,
    /// Its VM does not end with it.
    lives_on: bool,
    ended: bool,
}

type Shared = Rc<RefCell<Vm>>;

struct Fake(Shared);

fn vm() -> Shared {
    let page = |n: u64| (BASE + n * PAGE, 1);
    Rc::new(RefCell::new(Vm {
        nodes: (0..REGIONS * PAGES).map(page).collect(),
        ..Vm::default()
    }))
}

impl Vm {
    fn live(&mut self) -> io::Result<()> {
        if let Some((lives, error)) = &mut self.lives {
            *lives = lives.saturating_sub(1);
            if *lives == 0 {
                let error = io::Error::from_raw_os_error(*error);
                self.ended = !self.lives_on;
                return Err(error);
            }
        }
        Ok(())
    }

    fn on(&self, node: Status) -> usize {
        self.nodes.values().filter(|its| **its == node).count()
    }
}

impl Session for Fake {
    fn slots(&mut self) -> Result<Vec<Slot>> {
        Ok(vec![Slot {
            gpa: 0,
            hva: BASE,
            pages: REGIONS * PAGES,
            id: 0,
            readonly: false,
        }])
    }

    fn counts(&mut self) -> Result<Counts> {
        Ok(Counts::default())
    }

    fn read(&mut self, wait: Duration, samples: &mut Vec<Sample>) -> Result<State> {
        std::thread::sleep(wait);
        let hot = (REGIONS - 4) * PAGES..REGIONS * PAGES;
        samples.extend(hot.map(|gfn| sample(monotonic_ns(), gfn, Access::WRITE)));
        Ok(match self.0.borrow().ended {
            true => State::Ended,
            false => State::Running,
        })
    }

    fn pause(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Mover for Fake {
    fn query(&mut self, pages: &[u64]) -> io::Result<Vec<Status>> {
        let mut vm = self.0.borrow_mut();
        vm.live()?;
        let of = |page: &u64| vm.nodes.get(page).copied().unwrap_or(-libc::ENOENT);
        Ok(pages.iter().map(of).collect())
    }

    fn shift(&mut self, pages: &[u64], node: i32) -> io::Result<Vec<Status>> {
        let mut vm = self.0.borrow_mut();
        vm.live()?;
        let mut statuses = Vec::new();
        for page in pages {
            if let Some(status) = vm.stubborn.get(page).copied() {
                statuses.push(status);
                continue;
            }
            if node == 0 && vm.room.is_some_and(|room| vm.on(0) >= room) {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            vm.nodes.insert(*page, node);
            statuses.push(node);
        }
        Ok(statuses)
    }
}

fn rules() -> Rules {
    Rules {
        half_life: Duration::from_secs(10),
        read: 1.0,
        write: 1.0,
        execute: 1.0,
        delay: Duration::ZERO,
        bandwidth: 1 << 40,
        fast_ratio: 0.25,
        tolerance: 0.5,
        pages: PAGES,
        interval: Duration::from_millis(2),
    }
}

/// So many intervals, or until the VM has ended: None.
fn run(vm: &Shared, intervals: u32, dry_run: bool) -> Option<Moved> {
    run_by(rules(), vm, intervals, dry_run)
}

fn run_by(rules: Rules, vm: &Shared, intervals: u32, dry_run: bool) -> Option<Moved> {
    let (mut session, mut mover) = (Fake(vm.clone()), Fake(vm.clone()));
    let nodes = Nodes { fast: 0, slow: 1 };
    let mut tiering = Tiering::new(&mut session, &mut mover, nodes, rules, dry_run).unwrap();
    tiering.survey(&|| false).unwrap()?;
    for _ in 0..intervals {
        tiering.interval(&|| false).unwrap()?;
    }
    Some(tiering.total)
}

fn hot_pages() -> BTreeSet<u64> {
    let hot = (REGIONS - 4) * PAGES..REGIONS * PAGES;
    hot.map(|n| BASE + n * PAGE).collect()
}

#[test]
fn hot_pages_move_once() {
    let vm = vm();
    let moved = run(&vm, 10, false).unwrap();
    assert_eq!((moved.to_fast, moved.to_slow), (4 * PAGES, 0));
    assert_eq!(moved.failures, Failures::default());
    let fast = vm.borrow().nodes.clone().into_iter();
    let fast: BTreeSet<u64> = fast
        .filter(|(_, node)| *node == 0)
        .map(|(p, _)| p)
        .collect();
    assert_eq!(fast, hot_pages());
}

#[test]
fn a_dry_run_moves_nothing() {
    let vm = vm();
    let moved = run(&vm, 10, true).unwrap();
    assert_eq!((moved.to_fast, moved.to_slow), (4 * PAGES, 0));
    assert_eq!(vm.borrow().on(0), 0);
}

/// As a guest's that boots.
#[test]
fn a_dry_run_finds_what_was_touched_later() {
    let vm = vm();
    let touched = std::mem::take(&mut vm.borrow_mut().nodes);
    let (mut session, mut mover) = (Fake(vm.clone()), Fake(vm.clone()));
    let nodes = Nodes { fast: 0, slow: 1 };
    let mut tiering = Tiering::new(&mut session, &mut mover, nodes, rules(), true).unwrap();
    tiering.survey(&|| false).unwrap().unwrap();
    tiering.interval(&|| false).unwrap().unwrap();
    assert_eq!(tiering.total, Moved::default());
    vm.borrow_mut().nodes = touched;
    for _ in 0..9 {
        tiering.interval(&|| false).unwrap().unwrap();
    }
    assert_eq!(tiering.total.to_fast, 4 * PAGES);
    assert_eq!(vm.borrow().on(0), 0);
}

#[test]
fn pages_that_cannot_move_are_counted() {
    let vm = vm();
    let hot: Vec<u64> = hot_pages().into_iter().collect();
    let reasons = [
        libc::EBUSY,
        libc::EACCES,
        libc::EFAULT,
        libc::ENOENT,
        libc::EIO,
    ];
    let stubborn = hot.iter().zip(reasons).map(|(page, errno)| (*page, -errno));
    vm.borrow_mut().stubborn = stubborn.collect();
    // They are tried again after ten intervals, which a busy machine may be late by.
    let rules = Rules {
        interval: Duration::from_millis(100),
        ..rules()
    };
    let moved = run_by(rules, &vm, 2, false).unwrap();
    assert_eq!(moved.to_fast, 4 * PAGES - 5);
    let expected = Failures {
        busy: 1,
        absent: 1,
        shared: 1,
        fault: 1,
        full: 0,
        other: 1,
    };
    assert_eq!(moved.failures, expected);
    assert_eq!(vm.borrow().on(0) as u64, 4 * PAGES - 5);
}

#[test]
fn a_node_that_is_full_is_left_alone() {
    let vm = vm();
    vm.borrow_mut().room = Some(2 * PAGES as usize + 3);
    let begun = Instant::now();
    let moved = run(&vm, 5, false).unwrap();
    assert_eq!(moved.to_fast, 2 * PAGES + 3);
    // Of the one region that was tried then, and may be again after ten intervals.
    let tries = begun.elapsed().as_millis() as u64 / 20 + 1;
    assert_eq!(moved.failures.full % (PAGES - 3), 0);
    assert!((1..=tries).contains(&(moved.failures.full / (PAGES - 3))));
    assert_eq!(moved.failures.total(), moved.failures.full);
}

/// Whenever that is.
#[test]
fn a_vm_that_ends() {
    for lives in 1..60 {
        for error in [libc::ESRCH, libc::EINVAL] {
            let vm = vm();
            vm.borrow_mut().lives = Some((lives, error));
            assert_eq!(run(&vm, 20, false), None, "after {lives} calls");
        }
    }
    let vm = vm();
    vm.borrow_mut().ended = true;
    assert_eq!(run(&vm, 20, false), None);
}

#[test]
#[should_panic(expected = "run it as root")]
fn one_that_may_not_be_moved() {
    let vm = vm();
    vm.borrow_mut().lives = Some((30, libc::EPERM));
    run(&vm, 20, false);
}

#[test]
#[should_panic(expected = "its cpuset lacks a node")]
fn one_whose_cpuset_lacks_a_node() {
    let vm = vm();
    vm.borrow_mut().lives = Some((30, libc::EACCES));
    run(&vm, 20, false);
}

#[test]
#[should_panic(expected = "the first thread of the VM's process has ended")]
fn a_vm_whose_first_thread_ends() {
    let vm = vm();
    vm.borrow_mut().lives = Some((30, libc::EINVAL));
    vm.borrow_mut().lives_on = true;
    run(&vm, 20, false);
}
