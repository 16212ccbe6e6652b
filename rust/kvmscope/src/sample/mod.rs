// SPDX-License-Identifier: GPL-2.0

//! kvmscope sample: which pages of its memory a guest accesses, and how.
//!
//! - `target` is the VM that the user means;
//! - `device` is the kernel's sampler, whose header is `uapi`; a `session` is what the
//!   rest knows of it, and hands out each `sample` once;
//! - `wanted` filters, `heat` adds up what decays;
//! - `recording` stores samples; `map` makes periods of them, for `kvmscope heatmap`;
//! - `sink`, `columns` and `screen` show them.

pub mod columns;
pub mod device;
pub mod heat;
pub mod map;
pub mod recording;
#[allow(clippy::module_inception)]
pub mod sample;
pub mod screen;
pub mod session;
pub mod sink;
pub mod target;
pub mod uapi;
pub mod wanted;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::cli::Sample as Args;
use crate::kernel::Kernel;
use crate::output::open;
use crate::recording::{Reader, SAMPLES};
use crate::say;
use crate::screen::is_possible;
use crate::signals::Stop;
use crate::snapshot::{About, VmId};
use device::{monotonic_ns, Device};
use recording::{read_begin, Begin, End, Line};
use session::{finish, Session, Setup, State};
use sink::Sink;
use target::Target;

/// How long a signal may have to wait.
pub const PACE: Duration = Duration::from_millis(100);

pub fn run(kernel: &Kernel, args: &Args) -> Result<()> {
    match (&args.from, &args.target) {
        (Some(file), _) => replay(file, args),
        (None, Some(target)) => live(kernel, args, target),
        (None, None) => bail!("there is no VM named to be sampled"),
    }
}

fn live(kernel: &Kernel, args: &Args, target: &Target) -> Result<()> {
    let stop = Stop::install()?;
    let setup = args.setup(target.find(kernel, args.which.vm_fd)?);
    // Nothing is sampled before.
    let begin_ns = monotonic_ns();
    let mut device = Device::start(kernel, &setup)?;
    let (vm, about) = identify(kernel, &setup)?;
    let begin = Begin {
        vm,
        about,
        setup,
        begin_ns,
        slots: device.slots()?,
    };
    let on_screen = is_possible() && args.heat && !args.json;
    let mut sink = Sink::new(args, begin, None, on_screen)?;
    let end = args.duration.map(|time| Instant::now() + time);
    let in_time = || end.is_none_or(|end| Instant::now() < end);
    let state = if on_screen {
        screen::run(&mut device, &mut sink, &|| !in_time())?
    } else {
        follow(&mut device, &mut sink, &|| {
            stop.wait(Duration::ZERO).is_err() || !in_time()
        })?
    };
    if state == State::Ended {
        say(&format!("{vm} has ended"));
    }
    let mut rest = Vec::new();
    let counts = finish(&mut device, &mut rest)?;
    // Nothing is sampled any more, however long the reader takes.
    drop(device);
    sink.take(&rest)?;
    sink.finish(Some(End {
        end_ns: monotonic_ns(),
        counts,
    }))
}

/// Until it is over, or the VM has ended.
fn follow(session: &mut dyn Session, sink: &mut Sink, is_over: &dyn Fn() -> bool) -> Result<State> {
    let mut samples = Vec::new();
    let mut state = State::Running;
    while state == State::Running && !is_over() {
        samples.clear();
        state = session.read(PACE, &mut samples)?;
        sink.take(&samples)?;
    }
    Ok(state)
}

/// The VM as KVM's directory of it has it, where there is one.
pub fn identify(kernel: &Kernel, setup: &Setup) -> Result<(VmId, About)> {
    for (id, _) in kernel.vm_directories().unwrap_or_default() {
        let about = kernel.about(id);
        let is_of_process = about.process == setup.pid || id.pid == setup.pid;
        if is_of_process && setup.vm_fd.is_none_or(|fd| fd == id.fd) {
            return Ok((id, about));
        }
    }
    let id = VmId {
        pid: setup.pid,
        fd: setup.vm_fd.unwrap_or(0),
        inode: 0,
    };
    Ok((id, kernel.about(id)))
}

/// What a recording holds.
fn replay(file: &Path, args: &Args) -> Result<()> {
    let name = file.display();
    let read = || -> Result<()> {
        let mut reader = Reader::new(open(file)?, &SAMPLES)?;
        let begin = read_begin(&mut reader)?;
        let mut sink = Sink::new(args, begin, Some(&reader.head), false)?;
        let mut end = None;
        let mut samples = Vec::new();
        while let Some(line) = reader.read()? {
            match line {
                Line::Sample(sample) => samples.push(sample),
                Line::End(its) => end = Some(its),
                Line::Session(_) | Line::Region(_) => {}
            }
            if samples.len() >= 4096 {
                sink.take(&samples)?;
                samples.clear();
            }
        }
        sink.take(&samples)?;
        sink.finish(end)
    };
    read().with_context(|| name.to_string())
}
