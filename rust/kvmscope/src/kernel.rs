// SPDX-License-Identifier: GPL-2.0

//! Where the kernel shows its tables and knobs, and how they are read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail, ensure, Context, Result};

use crate::format::{read_exits, read_latency};
use crate::snapshot::{About, Snapshot, Vm, VmId};
use crate::table::Table;

pub struct Kernel {
    root: PathBuf,
    began: Instant,
    /// What was found out about VMs, which is asked once.
    about: RefCell<BTreeMap<VmId, About>>,
}

impl Kernel {
    /// `root` is `/`, or a directory that looks like it.
    pub fn new(root: &Path) -> Kernel {
        Kernel {
            root: root.to_path_buf(),
            began: Instant::now(),
            about: RefCell::default(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn knobs(&self) -> PathBuf {
        self.root.join("sys/kernel/kvmscope")
    }

    /// Of the machine.
    fn tables(&self) -> PathBuf {
        self.root.join("sys/kernel/debug/kvmscope")
    }

    /// Where KVM has a directory for each VM.
    fn vms(&self) -> PathBuf {
        self.root.join("sys/kernel/debug/kvm")
    }

    /// Reads every table.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut system = Table::default();
        let isa = match read_tables(&self.tables(), &mut system) {
            Ok(Some(isa)) => isa,
            Ok(None) => return Err(self.why_missing()),
            Err(error) => return Err(self.why_unreadable(error)),
        };

        let mut vms = Vec::new();
        for (id, path) in self.vm_directories()? {
            vms.extend(self.vm(id, &path, &isa)?);
        }

        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Snapshot {
            time_ns: now.map_or(0, |t| t.as_nanos() as u64),
            clock_ns: self.began.elapsed().as_nanos() as u64,
            isa,
            counting: self.knob("exits")?,
            latency: self.knob("latency")?,
            system,
            vms,
        })
    }

    /// The directory of each VM, whether or not there is anything of kvmscope's in it.
    pub fn vm_directories(&self) -> Result<Vec<(VmId, PathBuf)>> {
        let mut vms = Vec::new();
        for (name, path) in directories(&self.vms()).map_err(|e| self.why_unreadable(e.into()))? {
            let Some((pid, fd)) = vm_name(&name) else {
                continue;
            };
            if let Some(inode) = inode(&path) {
                vms.push((VmId { pid, fd, inode }, path));
            }
        }
        vms.sort();
        Ok(vms)
    }

    /// For who named none of them.
    pub fn which_vms(&self) -> Result<String> {
        let vms = self.vm_directories()?;
        if vms.is_empty() {
            return Ok("no VM is running".to_string());
        }
        let name = |id: VmId| format!("{id} ({:?})", self.about(id).name);
        let mut names: Vec<String> = vms.iter().take(8).map(|(id, _)| name(*id)).collect();
        if vms.len() > 8 {
            names.push(format!("{} more", vms.len() - 8));
        }
        Ok(format!("there are {}", names.join(", ")))
    }

    /// Fails where the kernel has no tables to read, and says why.
    pub fn check(&self) -> Result<()> {
        match read_if_there(&self.tables().join("exits")) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.why_missing()),
            Err(error) => Err(self.why_unreadable(error)),
        }
    }

    /// None when the VM ended before all of it was read.
    fn vm(&self, id: VmId, path: &Path, isa: &str) -> Result<Option<Vm>> {
        let mut table = Table::default();
        if !read_tables_of(isa, path, &mut table)? {
            return Ok(None);
        }

        let mut vcpus = BTreeMap::new();
        for (name, path) in directories(path).unwrap_or_default() {
            let Some(vcpu) = name.strip_prefix("vcpu").and_then(|n| n.parse().ok()) else {
                continue;
            };
            let mut table = Table::default();
            if read_tables_of(isa, &path, &mut table)? {
                vcpus.insert(vcpu, table);
            }
        }

        // Not half of one VM and half of another that took its name.
        if inode(path) != Some(id.inode) {
            return Ok(None);
        }
        Ok(Some(Vm {
            id,
            about: self.about(id),
            table,
            vcpus,
        }))
    }

    pub fn about(&self, id: VmId) -> About {
        let about = self.about.borrow().get(&id).cloned();
        about.unwrap_or_else(|| {
            let found = self.find_out(id.pid);
            self.about.borrow_mut().insert(id, found.clone());
            found
        })
    }

    fn find_out(&self, pid: u32) -> About {
        let proc = self.root.join("proc").join(pid.to_string());
        let read = |file| fs::read(proc.join(file)).unwrap_or_default();
        about(pid, &read("status"), &read("cmdline"), &read("comm"))
    }

    /// Whether a knob is on. One that the kernel does not have is off.
    pub fn knob(&self, name: &str) -> Result<bool> {
        let path = self.knobs().join(name);
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim_end() {
                "0" => Ok(false),
                "1" => Ok(true),
                other => bail!("{} reads {other:?}, not 0 or 1", path.display()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(for_root(&path)),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub fn write_knob(&self, name: &str, value: &str) -> Result<()> {
        let path = self.knobs().join(name);
        // Opened without O_CREAT: what is not there must not be made.
        let file = fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound if !self.knobs().exists() => self.why_missing(),
                ErrorKind::NotFound => anyhow!(
                    "this kernel's kvmscope has no {}: build and boot the present one",
                    path.display()
                ),
                ErrorKind::PermissionDenied => for_root(&path),
                _ => anyhow!(error).context(format!("{}: {value:?} was refused", path.display())),
            })
    }

    /// Why there are no tables.
    fn why_missing(&self) -> anyhow::Error {
        let debugfs = self.root.join("sys/kernel/debug");
        if !self.knobs().exists() {
            return if self.root.join("sys/module/kvm").exists() {
                anyhow!(
                    "this kernel's KVM is not kvmscope's, or neither kvm-intel nor kvm-amd is \
                     loaded: boot the kernel with CONFIG_KVM_SCOPE=y and load one of them"
                )
            } else {
                anyhow!(
                    "KVM is not loaded, so this may or may not be kvmscope's kernel: \
                     run modprobe kvm-intel (or kvm-amd) and try again"
                )
            };
        }
        let mounted = match fs::read_dir(&debugfs) {
            Ok(entries) => entries.count() != 0,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return for_root(&debugfs);
            }
            Err(_) => false,
        };
        if mounted {
            anyhow!(
                "{} is missing although this is kvmscope's kernel: it is older than this \
                 command, so build and boot the present one",
                self.tables().join("exits").display()
            )
        } else {
            anyhow!(
                "debugfs is not mounted: run mount -t debugfs none {}",
                debugfs.display()
            )
        }
    }

    /// Why the tables that there are cannot be read.
    fn why_unreadable(&self, error: anyhow::Error) -> anyhow::Error {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind != Some(ErrorKind::PermissionDenied) {
            return error;
        }
        if !self.knobs().exists() {
            return self.why_missing();
        }
        let lockdown = self.root.join("sys/kernel/security/lockdown");
        let lockdown = fs::read_to_string(lockdown).unwrap_or_default();
        if lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]") {
            anyhow!(
                "the kernel is locked down, which closes debugfs even to root: \
                 boot without lockdown, or read KVM's binary statistics instead"
            )
        } else {
            for_root(&self.root.join("sys/kernel/debug"))
        }
    }
}

pub fn for_root(path: &Path) -> anyhow::Error {
    anyhow!("{} is for root only: run it as root", path.display())
}

/// Reads the tables of one scope directory. None when it is not there (any
/// more); a kernel that does not measure latency has only one of the two.
fn read_tables(scope: &Path, table: &mut Table) -> Result<Option<String>> {
    let path = scope.join("exits");
    let Some(text) = read_if_there(&path)? else {
        return Ok(None);
    };
    let isa = read_exits(&text, table).with_context(|| path.display().to_string())?;

    let path = scope.join("latency");
    if let Some(text) = read_if_there(&path)? {
        read_latency(&text, table).with_context(|| path.display().to_string())?;
    }
    Ok(Some(isa))
}

/// Reads the tables of a VM or vCPU. False when they are not there (any more).
fn read_tables_of(isa: &str, path: &Path, table: &mut Table) -> Result<bool> {
    let its = read_tables(&path.join("scope"), table)?;
    // Reasons of two kinds of CPU do not add up.
    let alike = its.as_ref().is_none_or(|its| its == isa);
    ensure!(alike, "{} is not of {isa}, as the rest is", path.display());
    Ok(its.is_some())
}

/// None when it is not there (any more). A VM may end at any time, and its files
/// with it: then they cannot be opened, or what was opened gives EIO.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    Ok(read_bytes_if_there(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

pub fn read_bytes_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(anyhow!(error).context(path.display().to_string())),
    }
}

/// Whether a file's VM is no more.
pub fn has_gone(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const ENODEV: i32 = 19;
    error.kind() == ErrorKind::NotFound || matches!(error.raw_os_error(), Some(EIO | ENODEV))
}

/// Tells a directory from a later one of its name.
pub fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).map(|meta| meta.ino()).ok()
}

fn directories(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // One that has gone meanwhile is none.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// The pid and file descriptor that KVM names a VM's directory after.
pub fn vm_name(name: &str) -> Option<(u32, u32)> {
    let (pid, fd) = name.split_once('-')?;
    Some((pid.parse().ok()?, fd.parse().ok()?))
}

/// What these files of a task's in /proc say.
pub fn about(pid: u32, status: &[u8], cmdline: &[u8], comm: &[u8]) -> About {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
    let status = text(status);
    let process = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    let words: Vec<String> = cmdline.split(|byte| *byte == 0).map(text).collect();
    About {
        process: process.unwrap_or(pid),
        name: guest_name(&words).unwrap_or_else(|| text(comm)),
    }
}

/// QEMU's: `-name web,process=...` or `-name guest=web,...`.
fn guest_name(words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| word == "-name")?;
    let first = words.get(at + 1)?.split(',').next()?;
    let name = first.strip_prefix("guest=").unwrap_or(first);
    (!name.is_empty()).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vms() {
        assert_eq!(vm_name("812-11"), Some((812, 11)));
        for other in ["", "-", "812", "812-", "-11", "a-b", "1-2-3", "-1--1"] {
            assert_eq!(vm_name(other), None, "{other:?}");
        }
    }

    #[test]
    fn names_of_guests() {
        let name = |line: &str| guest_name(&line.split(' ').map(String::from).collect::<Vec<_>>());
        assert_eq!(name("qemu -name web -m 1G").as_deref(), Some("web"));
        assert_eq!(
            name("qemu -name guest=db,debug-threads=on").as_deref(),
            Some("db")
        );
        assert_eq!(name("qemu -m 1G"), None);
        assert_eq!(name("qemu -name"), None);
        assert_eq!(name("qemu -name guest=,x"), None);
    }
}
