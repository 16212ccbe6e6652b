// SPDX-License-Identifier: GPL-2.0

//! kvmscope: KVM explains itself.
//!
//! The Rust half of `CONFIG_KVM_SCOPE`, linked into `kvm.ko`. KVM's C code
//! calls in through the functions of [`ffi`]; everything else is logic that
//! knows neither the kernel nor unsafe code, and is compiled a second time on
//! the host for its tests (`Cargo.toml`):
//!
//! - [`reasons`]: which exit reasons there are, their names and their slots;
//! - [`counters`]: the counters of one vCPU, and sums of them;
//! - [`books`]: totals that survive the vCPUs they came from, and reset;
//! - [`latency`]: what exits cost, and who spent it;
//! - [`tables`]: what programs read in debugfs;
//! - [`dump`]: the table that `echo 1 > /sys/kernel/kvmscope/dump` prints;
//! - [`knobs`]: the words that may be written to a knob;
//! - [`leaves`]: what a guest asks for by CPUID;
//! - [`sample`]: which pages the access sampler looks at, when and how many;
//! - [`wss`]: working sets from the log of written pages;
//! - [`wss_tables`]: what programs read of them in debugfs.

/// The atomics of counters; `rust/models` has a model checker's in their place.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
}
pub mod books;
pub mod counters;
pub mod dump;
#[cfg(CONFIG_KVM_SCOPE)]
#[macro_use]
mod ffi;
pub mod knobs;
pub mod latency;
pub mod leaves;
pub mod reasons;
pub mod sample;
#[cfg(CONFIG_KVM_SCOPE_SAMPLE)]
mod sample_ffi;
pub mod tables;
pub mod wss;
#[cfg(CONFIG_KVM_SCOPE_WSS)]
mod wss_ffi;
pub mod wss_tables;

/// What `pr_info!` puts before each record; `module!` would have made this.
#[cfg(CONFIG_KVM_SCOPE)]
const __LOG_PREFIX: &[u8] = b"kvmscope\0";
