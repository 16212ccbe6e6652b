// SPDX-License-Identifier: GPL-2.0

//! The kinds of foreign bytes there are, each with a function that takes any and
//! panics when something is wrong:
//!
//! - what is written to the kernel's knobs, and what guests ask for (`knobs`);
//! - what the sampler is told, and its ring, which userspace may write to (`sampler`);
//! - what the kernel writes and the command reads, against each other (`tables`,
//!   `estimator`);
//! - what the command reads of files, `/proc`, its command line and the network
//!   (`kvmscope_command::inputs`).

mod bytes;
mod estimator;
mod knobs;
mod sampler;
mod tables;

pub use kvmscope_command::inputs::Take;

/// All kinds, by name.
pub fn kinds() -> impl Iterator<Item = (&'static str, Take)> {
    let ours: [(&str, Take); 6] = [
        ("knobs", knobs::words),
        ("leaves", knobs::leaves),
        ("kernel_tables", tables::tables),
        ("estimator", estimator::estimator),
        ("ring", sampler::ring),
        ("sampler", sampler::sampler),
    ];
    ours.into_iter().chain(kvmscope_command::inputs::KINDS)
}

/// The kind of that name.
pub fn kind(name: &str) -> Option<Take> {
    kinds().find(|(its, _)| *its == name).map(|(_, take)| take)
}
