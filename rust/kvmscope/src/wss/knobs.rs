// SPDX-License-Identifier: GPL-2.0

//! The directory of a VM's working set: reading what is in it, and writing its
//! parameters.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, ensure, Context, Result};

use crate::kernel::{for_root, has_gone, inode, read_bytes_if_there, read_if_there};
use crate::snapshot::VmId;
use crate::wss::estimate::{read_estimate, read_history, Estimate};
use crate::wss::pages::{read_pages, Pages};

/// What is asked for; the VM keeps what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    pub period_ms: Option<u64>,
    pub intervals: Option<u64>,
    pub threshold: Option<u64>,
    pub reads: Option<u64>,
    pub split: Option<u64>,
}

pub struct Knobs {
    vm: VmId,
    directory: PathBuf,
    wss: PathBuf,
}

/// Why a VM cannot be tracked: others may be.
#[derive(Debug)]
pub enum Refusal {
    /// It has ended.
    Gone,
    /// The kernel has no working sets at all.
    Missing(PathBuf),
    /// It cannot track this one.
    Unsupported,
    /// It went wrong.
    Failed(anyhow::Error),
}

impl Knobs {
    /// Of the VM that has this directory.
    pub fn new(vm: VmId, directory: &Path) -> Knobs {
        Knobs {
            vm,
            directory: directory.to_path_buf(),
            wss: directory.join("scope/wss"),
        }
    }

    /// Whether there is anything.
    pub fn refusal(&self) -> Option<Refusal> {
        if !self.is_there() {
            Some(Refusal::Gone)
        } else if !self.wss.exists() {
            Some(Refusal::Missing(self.wss.clone()))
        } else {
            None
        }
    }

    /// A later VM may have got its name.
    pub fn is_there(&self) -> bool {
        inode(&self.directory) == Some(self.vm.inode)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.wss.join(name)
    }

    /// None when the VM has ended, as with all that follow.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path(name);
        let Some(text) = read_if_there(&path).map_err(|error| denied(error, &path))? else {
            return Ok(None);
        };
        let number = text.trim_end().parse();
        let number = number.with_context(|| format!("{} is no number", path.display()))?;
        Ok(Some(number))
    }

    pub fn estimate(&self) -> Result<Option<Estimate>> {
        self.parse("estimate", read_estimate)
    }

    pub fn history(&self) -> Result<Option<Vec<Estimate>>> {
        self.parse("history", read_history)
    }

    fn parse<T>(&self, name: &str, parse: fn(&str) -> Result<T>) -> Result<Option<T>> {
        let path = self.path(name);
        let text = read_if_there(&path).map_err(|error| denied(error, &path))?;
        let parsed = text.map(|text| parse(&text)).transpose();
        parsed.with_context(|| path.display().to_string())
    }

    pub fn pages(&self) -> Result<Option<Pages>> {
        let path = self.path("pages");
        let bytes = read_bytes_if_there(&path)?.unwrap_or_default();
        read_pages(&bytes).with_context(|| path.display().to_string())
    }

    /// The refusal is that of a VM that has ended or cannot be tracked.
    pub fn write(&self, name: &str, value: u64) -> Result<Result<(), Refusal>> {
        const EOPNOTSUPP: i32 = 95;
        if !self.is_there() {
            return Ok(Err(Refusal::Gone));
        }
        let path = self.path(name);
        // As a shell's echo, but without O_CREAT: what is not there must not be made.
        let file = OpenOptions::new().write(true).truncate(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(value.to_string().as_bytes()));
        match written {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => Ok(Err(Refusal::Unsupported)),
            Err(error) if has_gone(&error) => Ok(Err(Refusal::Gone)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(for_root(&path)),
            Err(error) => Err(anyhow!(error).context(format!(
                "{}: {:?} was refused",
                path.display(),
                value.to_string()
            ))),
        }
    }

    /// Writes what is asked for and differs, and notes in `before` what was there
    /// first, also when it fails half way. False when the VM has ended.
    pub fn set_up(&self, wanted: &Setup, before: &mut Setup) -> Result<bool> {
        if *wanted == Setup::default() {
            return Ok(true);
        }
        let old = (self.number("period_ms")?, self.number("intervals")?);
        let (Some(old_period), Some(old_intervals)) = old else {
            return Ok(false);
        };
        let period = wanted.period_ms.unwrap_or(old_period);
        let intervals = wanted.intervals.unwrap_or(old_intervals);
        ensure!(
            intervals <= period,
            "a period of {period} ms is too short for {intervals} sub-intervals: \
             they have to last a millisecond each"
        );

        let mut parameters = [
            ("period_ms", wanted.period_ms, &mut before.period_ms),
            ("intervals", wanted.intervals, &mut before.intervals),
            ("threshold", wanted.threshold, &mut before.threshold),
            ("reads", wanted.reads, &mut before.reads),
            ("split", wanted.split, &mut before.split),
        ];
        // On the way, too, no sub-interval may be shorter than a millisecond.
        if period < old_period {
            parameters.swap(0, 1);
        }
        for (name, value, first) in parameters {
            let Some(value) = value else { continue };
            let Some(old) = self.number(name)? else {
                return Ok(false);
            };
            if old != value {
                if self.write(name, value)?.is_err() {
                    return Ok(false);
                }
                first.get_or_insert(old);
            }
        }
        Ok(true)
    }
}

fn denied(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|io| io.kind() == ErrorKind::PermissionDenied) {
        for_root(path)
    } else {
        error
    }
}
