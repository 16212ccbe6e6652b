// SPDX-License-Identifier: GPL-2.0

//! What a user calls the VM that is to be sampled.

use std::str::FromStr;

use anyhow::{bail, ensure, Result};

use crate::kernel::{vm_name, Kernel};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process that runs it.
    Process(u32),
    /// As `kvmscope` shows it, `PID-FD`.
    Vm(u32, u32),
    /// Its guest's name.
    Name(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(word: &str) -> Result<Target, String> {
        const PIDS: std::ops::RangeInclusive<u32> = 1..=0x7fff_ffff;
        let target = match (word.parse(), vm_name(word)) {
            (Ok(pid), _) => Target::Process(pid),
            (_, Some((pid, fd))) => Target::Vm(pid, fd),
            _ => Target::Name(word.to_string()),
        };
        match &target {
            Target::Process(pid) | Target::Vm(pid, _) if !PIDS.contains(pid) => {
                Err(format!("{pid} is no process"))
            }
            Target::Name(name) if name.is_empty() || name.starts_with('-') => {
                Err("neither a process, PID-FD nor a guest's name".to_string())
            }
            _ => Ok(target),
        }
    }
}

impl Target {
    /// Its process and, if that was said, which of the process's VMs it is, by its file
    /// descriptor: `fd` is what was said besides.
    pub fn find(&self, kernel: &Kernel, fd: Option<u32>) -> Result<(u32, Option<u32>)> {
        match self {
            Target::Process(pid) => Ok((*pid, fd)),
            Target::Vm(pid, its) => {
                ensure!(
                    fd.is_none_or(|fd| fd == *its),
                    "{pid}-{its} is the VM at file descriptor {its}: leave out --vm"
                );
                Ok((*pid, Some(*its)))
            }
            Target::Name(name) => {
                kernel.check()?;
                let mut named = kernel.vm_directories()?;
                named.retain(|(id, _)| {
                    kernel.about(*id).name == *name && fd.is_none_or(|fd| fd == id.fd)
                });
                match &named[..] {
                    [(id, _)] => Ok((id.pid, Some(id.fd))),
                    [] => bail!("no VM is called {name:?}; {}", kernel.which_vms()?),
                    [(one, _), (other, _), ..] => {
                        bail!("{one} and {other} are both called {name:?}: give one of these")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let is = |word: &str| word.parse::<Target>();
        assert_eq!(is("812"), Ok(Target::Process(812)));
        assert_eq!(is("812-11"), Ok(Target::Vm(812, 11)));
        assert_eq!(is("web-1"), Ok(Target::Name("web-1".to_string())));
        assert_eq!(is("812-"), Ok(Target::Name("812-".to_string())));
        for bad in ["", "0", "2147483648", "0-11", "-1", "-x"] {
            assert!(is(bad).is_err(), "{bad:?}");
        }
    }
}
