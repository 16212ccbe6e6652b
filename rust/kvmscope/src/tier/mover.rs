// SPDX-License-Identifier: GPL-2.0

//! Moving pages of another process between NUMA nodes: move_pages(2), and what
//! became of each page.

use std::io;

use serde::Serialize;

/// Where a page is, as the kernel tells it: a node, or an error number below zero.
pub type Status = i32;

pub trait Mover {
    /// Where pages are.
    fn query(&mut self, pages: &[u64]) -> io::Result<Vec<Status>>;

    /// Has pages move to a node. Not all may be able to; which are tells `query`.
    /// Of those that are not, the statuses may say why.
    fn shift(&mut self, pages: &[u64], node: i32) -> io::Result<Vec<Status>>;
}

/// Of a process.
pub struct Process {
    pid: i32,
}

/// What no page has for a status.
const UNTOLD: Status = Status::MIN;

impl Process {
    pub fn new(pid: u32) -> Process {
        Process {
            pid: i32::try_from(pid).unwrap_or(i32::MAX),
        }
    }

    fn move_pages(&self, pages: &[u64], nodes: Option<&[i32]>) -> io::Result<Vec<Status>> {
        if let Some(nodes) = nodes {
            assert_eq!(nodes.len(), pages.len());
        }
        let mut status = vec![UNTOLD; pages.len()];
        let nodes = nodes.map_or(std::ptr::null(), <[i32]>::as_ptr);
        // SAFETY: The kernel reads `pages.len()` entries of `pages` and of `nodes`, if
        // there are any, and writes as many of `status`; all have that length. The
        // addresses are the other process's: the kernel checks them and moves what
        // they show, which does not change.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                libc::c_long::from(self.pid),
                pages.len(),
                pages.as_ptr(),
                nodes,
                status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        };
        // As many were not moved.
        if result >= 0 {
            return Ok(status);
        }
        Err(io::Error::last_os_error())
    }
}

/// Pages that the process alone maps.
const MPOL_MF_MOVE: libc::c_int = 2;

impl Mover for Process {
    fn query(&mut self, pages: &[u64]) -> io::Result<Vec<Status>> {
        self.move_pages(pages, None)
    }

    fn shift(&mut self, pages: &[u64], node: i32) -> io::Result<Vec<Status>> {
        self.move_pages(pages, Some(&vec![node; pages.len()]))
    }
}

/// Pages that could not be moved, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// In use by the kernel or a device at that moment.
    pub busy: u64,
    /// Gone meanwhile.
    pub absent: u64,
    /// Mapped by other processes as well.
    pub shared: u64,
    /// No memory that has a place: the zero page, or a device's.
    pub fault: u64,
    /// The node had no room.
    pub full: u64,
    pub other: u64,
}

impl Failures {
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, pages)| pages).sum()
    }

    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("busy", self.busy),
            ("absent", self.absent),
            ("shared", self.shared),
            ("without a place", self.fault),
            ("for lack of room", self.full),
            ("other", self.other),
        ]
    }

    pub fn add(&mut self, more: &Failures) {
        self.busy += more.busy;
        self.absent += more.absent;
        self.shared += more.shared;
        self.fault += more.fault;
        self.full += more.full;
        self.other += more.other;
    }

    fn count(&mut self, now: Status, told: Status, is_full: bool) {
        // What it is now says more than what was said when it was tried.
        let reason = if now < 0 { now } else { told };
        let of_kind = match -i64::from(reason) as i32 {
            libc::ENOENT => &mut self.absent,
            libc::EACCES => &mut self.shared,
            libc::EFAULT => &mut self.fault,
            libc::ENOMEM => &mut self.full,
            _ if is_full => &mut self.full,
            libc::EBUSY | libc::EAGAIN => &mut self.busy,
            // It is said of none that was in a batch with others.
            _ if told == UNTOLD || told >= 0 => &mut self.busy,
            _ => &mut self.other,
        };
        *of_kind += 1;
    }
}

/// What became of pages that were to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub moved: u64,
    pub failures: Failures,
}

/// Moves the pages that are on the node `from` to another, as far as can be.
pub fn move_all(mover: &mut dyn Mover, pages: &[u64], from: i32, to: i32) -> io::Result<Outcome> {
    const TRIES: u32 = 2;
    let mut outcome = Outcome::default();
    let before = mover.query(pages)?;
    let its = pages.iter().zip(before).filter(|(_, node)| *node == from);
    let mut left: Vec<u64> = its.map(|(page, _)| *page).collect();
    for last in (0..TRIES).rev() {
        if left.is_empty() {
            break;
        }
        let mut is_full = false;
        let told = match mover.shift(&left, to) {
            Ok(told) => told,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOMEM) => {
                    is_full = true;
                    vec![UNTOLD; left.len()]
                }
                // There is nothing that can be moved.
                Some(libc::ENOENT) => vec![-libc::ENOENT; left.len()],
                _ => return Err(error),
            },
        };
        let now = mover.query(&left)?;
        let mut rest = Vec::new();
        for ((page, now), told) in left.iter().zip(&now).zip(&told) {
            if *now == to {
                outcome.moved += 1;
            } else if last == 0 || is_full {
                outcome.failures.count(*now, *told, is_full);
            } else {
                rest.push(*page);
            }
        }
        left = rest;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process's own pages: two that are there, and one that is not.
    #[test]
    fn where_pages_are() {
        let memory = vec![1_u8; 3 * 4096];
        let page = (memory.as_ptr() as u64).next_multiple_of(4096);
        let mut own = Process::new(std::process::id());
        match own.query(&[page, page + 4096, 0x1000]) {
            Ok(status) => {
                assert!(status[0] >= 0 && status[1] >= 0, "{status:?}");
                assert!([-libc::EFAULT, -libc::ENOENT].contains(&status[2]));
            }
            // Where the kernel has no NUMA, or a sandbox does not let it.
            Err(error) => assert!(
                [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&error.raw_os_error()),
                "{error}"
            ),
        }
        drop(memory);
    }
}
