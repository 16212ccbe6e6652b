// SPDX-License-Identifier: GPL-2.0

//! What is done in each interval: samples into the policy, its plan to the mover, and
//! what became of it back to the policy.

use std::io;
use std::time::Instant;

use anyhow::{anyhow, Result};

use crate::sample::device::monotonic_ns;
use crate::sample::sample::{Counts, Sample};
use crate::sample::session::{Session, State};
use crate::sample::PACE;
use crate::tier::memory::Memory;
use crate::tier::mover::{move_all, Failures, Mover};
use crate::tier::nodes::Nodes;
use crate::tier::policy::{Node, Place, Policy, Rules, Standing};

/// How often a session is looked at whose process is ending: ten seconds at most.
const LOOKS: u32 = 100;
/// Pages that are asked about at once, and in an interval.
const ASKED: usize = 4096;
const ASKED_IN_ALL: usize = 262_144;

pub struct Tiering<'a> {
    session: &'a mut dyn Session,
    mover: &'a mut dyn Mover,
    nodes: Nodes,
    rules: Rules,
    dry_run: bool,
    policy: Policy,
    memory: Memory,
    /// The region that is asked about next.
    next: u64,
    samples: Vec<Sample>,
    pub total: Moved,
}

/// Pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub to_fast: u64,
    pub to_slow: u64,
    pub failures: Failures,
}

impl Moved {
    fn add(&mut self, more: &Moved) {
        self.to_fast += more.to_fast;
        self.to_slow += more.to_slow;
        self.failures.add(&more.failures);
    }
}

/// What happened in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Of the session, until now.
    pub counts: Counts,
    /// That came in this interval.
    pub samples: u64,
    pub moved: Moved,
    pub standing: Standing,
}

impl<'a> Tiering<'a> {
    pub fn new(
        session: &'a mut dyn Session,
        mover: &'a mut dyn Mover,
        nodes: Nodes,
        rules: Rules,
        dry_run: bool,
    ) -> Result<Tiering<'a>> {
        let memory = Memory::new(session.slots()?, rules.pages);
        Ok(Tiering {
            session,
            mover,
            nodes,
            rules,
            dry_run,
            policy: Policy::new(rules),
            memory,
            next: 0,
            samples: Vec::new(),
            total: Moved::default(),
        })
    }

    /// Asks where all pages are, which of a large guest's takes a while. None when the VM
    /// has ended, as with what follows.
    pub fn survey(&mut self, is_over: &dyn Fn() -> bool) -> Result<Option<()>> {
        for region in self.memory.regions() {
            if is_over() {
                break;
            }
            if self.look_up(region)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn look_up(&mut self, region: u64) -> Result<Option<usize>> {
        let addresses = self.memory.addresses(region);
        let mut place = Place::default();
        for some in addresses.chunks(ASKED) {
            let result = self.mover.query(some);
            let Some(statuses) = self.alive(result)? else {
                return Ok(None);
            };
            for status in statuses {
                place.fast += u64::from(status == self.nodes.fast);
                place.slow += u64::from(status == self.nodes.slow);
            }
        }
        self.policy.place(region, place);
        Ok(Some(addresses.len()))
    }

    /// What others have done meanwhile: the guest may have got memory, or lost some,
    /// and the kernel may have moved pages itself.
    fn look_around(&mut self) -> Result<Option<()>> {
        let Ok(slots) = self.session.slots() else {
            // The next reading of samples will tell why.
            return Ok(Some(()));
        };
        self.memory = Memory::new(slots, self.rules.pages);
        let regions = self.memory.regions();
        self.policy.retain(|gfn| regions.contains(&gfn));
        let mut asked = 0;
        let round = regions.range(self.next..).chain(regions.range(..self.next));
        for &region in round {
            if asked >= ASKED_IN_ALL {
                self.next = region;
                break;
            }
            // In a dry run pages are not where it has moved them, but those that were
            // nowhere may have been touched meanwhile.
            if self.dry_run && !self.policy.is_nowhere(region) {
                continue;
            }
            match self.look_up(region)? {
                Some(pages) => asked += pages,
                None => return Ok(None),
            }
        }
        Ok(Some(()))
    }

    /// An interval, or less if it is over before.
    pub fn interval(&mut self, is_over: &dyn Fn() -> bool) -> Result<Option<Report>> {
        let until = Instant::now() + self.rules.interval;
        let mut report = Report::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.samples.clear();
            let state = self.session.read(left.min(PACE), &mut self.samples)?;
            for sample in &self.samples {
                self.policy.sample(sample);
            }
            report.samples += self.samples.len() as u64;
            if state == State::Ended {
                return Ok(None);
            }
            if is_over() {
                break;
            }
            if left.is_zero() {
                if self.look_around()?.is_none() {
                    return Ok(None);
                }
                match self.make_moves()? {
                    Some(moved) => report.moved = moved,
                    None => return Ok(None),
                }
                break;
            }
        }
        self.total.add(&report.moved);
        report.standing = self.policy.standing(monotonic_ns());
        report.counts = self.session.counts()?;
        Ok(Some(report))
    }

    /// None when the process is no more.
    fn alive<T>(&mut self, result: io::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(None),
                Some(libc::EINVAL) => self.ending(),
                Some(libc::EPERM) => Err(anyhow!(
                    "not allowed to move pages of the VM: run it as root"
                )),
                Some(libc::EACCES) => Err(anyhow!(
                    "not allowed to move pages of the VM: its cpuset lacks a node (see \
                     Mems_allowed_list in /proc/PID/status), or a security module forbids it"
                )),
                _ => Err(anyhow!(error).context("pages of the VM cannot be moved")),
            },
        }
    }

    /// The process has no memory any more, which move_pages(2) tells so (find_mm_struct in
    /// mm/migrate.c): it is ending, or just its first thread has and others run the VM.
    fn ending<T>(&mut self) -> Result<Option<T>> {
        let wait = self.rules.interval.min(PACE);
        for _ in 0..LOOKS {
            self.samples.clear();
            if self.session.read(wait, &mut self.samples)? == State::Ended {
                return Ok(None);
            }
        }
        Err(anyhow!(
            "the first thread of the VM's process has ended, so that no pages can be moved"
        ))
    }

    fn make_moves(&mut self) -> Result<Option<Moved>> {
        let now_ns = monotonic_ns();
        let mut all = Moved::default();
        let mut full = false;
        for planned in self.policy.plan(now_ns) {
            let to_fast = planned.to == Node::Fast;
            if self.dry_run {
                *all.towards(to_fast) += planned.pages;
                continue;
            }
            // It would not do better with the next.
            if full && to_fast {
                if self.look_up(planned.gfn)?.is_none() {
                    return Ok(None);
                }
                continue;
            }
            let (from, to) = match planned.to {
                Node::Fast => (self.nodes.slow, self.nodes.fast),
                Node::Slow => (self.nodes.fast, self.nodes.slow),
            };
            let addresses = self.memory.addresses(planned.gfn);
            let result = move_all(self.mover, &addresses, from, to);
            let Some(outcome) = self.alive(result)? else {
                return Ok(None);
            };
            *all.towards(to_fast) += outcome.moved;
            all.failures.add(&outcome.failures);
            if outcome.failures.total() != 0 {
                // Where it is now, whatever was planned.
                if self.look_up(planned.gfn)?.is_none() {
                    return Ok(None);
                }
                self.policy.failed(planned.gfn, now_ns);
                full |= to_fast && outcome.failures.full != 0;
            }
        }
        if full {
            self.policy.is_full(now_ns);
        }
        Ok(Some(all))
    }
}

impl Moved {
    fn towards(&mut self, fast: bool) -> &mut u64 {
        if fast {
            &mut self.to_fast
        } else {
            &mut self.to_slow
        }
    }
}
