// SPDX-License-Identifier: GPL-2.0

//! What threads share in the kernel's half of kvmscope, in cases so small that loom
//! can try every interleaving of their accesses, and every value that a load may
//! give by the orderings that were asked for. Each model is run once as it is, and
//! once without each of its safeguards, which must be noticed (`tests/`):
//!
//! - [`fold`]: counters of vCPUs that run and go, readers, and resets: the kernel's
//!   own files, `rust/kernel/counters.rs` and `books.rs`;
//! - [`log`]: the log of written pages that a vCPU hands over to the worker;
//! - [`ring`]: the ring of samples, from vCPUs to readers, with `rust/kernel/sample.rs`.
//!
//! x86 orders more than what is asked for here: what holds in a model holds on any
//! CPU.

// As kvmscope.rs has them, for the files of rust/kernel that are compiled here.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
}
mod reasons {
    pub(crate) const SLOTS: usize = 1;
}
#[path = "../../kernel/books.rs"]
mod books;
#[path = "../../kernel/counters.rs"]
mod counters;
#[allow(dead_code, reason = "the ring's numbers are all that is shared")]
#[path = "../../kernel/sample.rs"]
mod sample;

pub mod fold;
pub mod log;
mod plain;
pub mod ring;
mod safeguard;
