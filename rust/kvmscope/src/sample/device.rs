// SPDX-License-Identifier: GPL-2.0

//! The kernel's sampler, /dev/kvm_ept_sample: a session for as long as it is open.
//! All that is unsafe about it is in this file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};

use crate::kernel::{for_root, Kernel};
use crate::sample::sample::{Access, Counts, Sample, Slot};
use crate::sample::session::{Session, Setup, State, Strategy};
use crate::sample::uapi::*;

const RECORD: usize = size_of::<kvm_ept_sample_record>();
/// Read at once.
const RECORDS: usize = 2048;
/// No VM has as many; KVM allows 32764.
const SLOTS_MAX: u32 = 65_536;

pub struct Device {
    file: File,
    config: kvm_ept_sample_config,
    buffer: Vec<u8>,
}

impl Device {
    /// Starts a session.
    pub fn start(kernel: &Kernel, setup: &Setup) -> Result<Device> {
        let path = kernel.root().join("dev/kvm_ept_sample");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| why_not_open(kernel, &path, error))?;
        let version = control(&file, IOCTL_GET_VERSION, None::<&mut u32>);
        match version {
            Ok(version) if version == KVM_EPT_SAMPLE_VERSION as i32 => {}
            Ok(version) => bail!(
                "the interface of {} is version {version}, and this kvmscope knows version \
                 {KVM_EPT_SAMPLE_VERSION}: use the kvmscope that came with the kernel",
                path.display()
            ),
            Err(_) => bail!(
                "{} is not the kernel's sampler: load the kvm module of this kernel",
                path.display()
            ),
        }
        let mut config = kvm_ept_sample_config {
            size: size_of::<kvm_ept_sample_config>() as u32,
            pid: i32::try_from(setup.pid).unwrap_or(i32::MAX),
            vm_fd: setup
                .vm_fd
                .map_or(-1, |fd| i32::try_from(fd).unwrap_or(i32::MAX)),
            strategy: match setup.strategy {
                Strategy::Sweep => KVM_EPT_SAMPLE_SWEEP,
                Strategy::Random => KVM_EPT_SAMPLE_RANDOM,
            },
            access: setup.access.bits().into(),
            rate: setup.rate,
            budget_ppm: setup.budget_ppm,
            ..Default::default()
        };
        control(&file, IOCTL_START, Some(&mut config))
            .map_err(|error| why_not_start(setup, error))?;
        Ok(Device {
            file,
            config,
            buffer: vec![0; RECORDS * RECORD],
        })
    }
}

impl Session for Device {
    fn slots(&mut self) -> Result<Vec<Slot>> {
        let mut capacity = 64;
        loop {
            let mut slots = vec![kvm_ept_sample_slot::default(); capacity as usize];
            let mut request = kvm_ept_sample_slots {
                size: size_of::<kvm_ept_sample_slots>() as u32,
                capacity,
                slots: slots.as_mut_ptr() as u64,
                ..Default::default()
            };
            control(&self.file, IOCTL_MEMSLOTS, Some(&mut request))
                .context("the VM's memory slots cannot be read")?;
            if request.count <= capacity {
                slots.truncate(request.count as usize);
                return Ok(slots.iter().map(slot).collect());
            }
            ensure!(
                request.count <= SLOTS_MAX,
                "{} memory slots are too many",
                request.count
            );
            capacity = request.count;
        }
    }

    fn counts(&mut self) -> Result<Counts> {
        let mut stats = kvm_ept_sample_stats {
            size: size_of::<kvm_ept_sample_stats>() as u32,
            ..Default::default()
        };
        control(&self.file, IOCTL_STATS, Some(&mut stats))
            .context("the counts of samples cannot be read")?;
        Ok(Counts {
            armed: stats.armed,
            taken: stats.taken,
            filtered: stats.filtered,
            disarmed: stats.disarmed,
            delivered: stats.delivered,
            lost: stats.lost,
            waiting: stats.waiting,
            flushes: stats.flushes,
            batches: stats.batches,
            spent_ns: stats.spent_ns,
            elapsed_ns: stats.elapsed_ns,
            rate_now: stats.rate_now,
        })
    }

    fn read(&mut self, wait: Duration, samples: &mut Vec<Sample>) -> Result<State> {
        if !wait_for_input(self.file.as_raw_fd(), wait)? {
            return Ok(State::Running);
        }
        match self.file.read(&mut self.buffer) {
            Ok(0) => Ok(State::Ended),
            Ok(bytes) => {
                samples.extend(self.buffer[..bytes].chunks_exact(RECORD).map(sample));
                Ok(State::Running)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(State::Running),
                _ if error.raw_os_error() == Some(libc::ENODEV) => Ok(State::Ended),
                _ => Err(error).context("samples cannot be read"),
            },
        }
    }

    fn pause(&mut self) -> Result<()> {
        self.config.rate = 0;
        match control(&self.file, IOCTL_CHANGE, Some(&mut self.config)) {
            Ok(_) => Ok(()),
            // No more are taken of a VM that is no more.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(error) => Err(error).context("sampling cannot be paused"),
        }
    }
}

fn slot(slot: &kvm_ept_sample_slot) -> Slot {
    Slot {
        gpa: slot.gpa,
        hva: slot.hva,
        pages: slot.pages,
        id: slot.id,
        readonly: slot.flags & KVM_EPT_SAMPLE_SLOT_READONLY != 0,
    }
}

/// One of the kernel's records.
fn sample(bytes: &[u8]) -> Sample {
    fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        let mut word = [0; N];
        word.copy_from_slice(&bytes[at..at + N]);
        word
    }
    let u64_at = |at| u64::from_ne_bytes(word(bytes, at));
    let flags = u16::from_ne_bytes(word(bytes, offset_of!(kvm_ept_sample_record, flags)));
    Sample {
        time_ns: u64_at(offset_of!(kvm_ept_sample_record, time_ns)),
        sequence: u64_at(offset_of!(kvm_ept_sample_record, sequence)),
        vcpu: u32::from_ne_bytes(word(bytes, offset_of!(kvm_ept_sample_record, vcpu))),
        gfn: u64_at(offset_of!(kvm_ept_sample_record, gfn)),
        access: Access::from_bits(bytes[offset_of!(kvm_ept_sample_record, access)]),
        level: bytes[offset_of!(kvm_ept_sample_record, level)],
        table: u32::from(flags) & KVM_EPT_SAMPLE_TABLE != 0,
    }
}

/// An ioctl of the sampler's, whose argument, if any, is a struct of the header's.
fn control<T>(file: &File, request: u32, argument: Option<&mut T>) -> io::Result<i32> {
    let argument = argument.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: The kernel reads and writes at most the struct's own `size` bytes, which
    // its callers set to that of the struct; and of `slots` as many entries as its
    // `capacity` says, for which `Device::slots` keeps a vector of that length alive.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request.into(), argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Whether there is something to read, if only the end.
fn wait_for_input(fd: RawFd, wait: Duration) -> Result<bool> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: One struct is passed, and it is there to be written to.
    let ready = unsafe { libc::poll(&raw mut poll, 1, wait) };
    if ready >= 0 {
        return Ok(poll.revents != 0);
    }
    let error = io::Error::last_os_error();
    // A signal: whoever catches it tells.
    if error.kind() == ErrorKind::Interrupted {
        return Ok(false);
    }
    Err(error).context("cannot wait for samples")
}

fn why_not_open(kernel: &Kernel, path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => for_root(path),
        ErrorKind::NotFound => match kernel.check() {
            // What is wrong with the kernel altogether comes first.
            Err(why) if !kernel.root().join("sys/kernel/kvmscope").exists() => why,
            _ => anyhow!(
                "there is no {}: build and boot a kernel with CONFIG_KVM_SCOPE_SAMPLE=y",
                path.display()
            ),
        },
        _ => anyhow!(error).context(path.display().to_string()),
    }
}

/// What the kernel's refusal means.
pub fn why_not_start(setup: &Setup, error: io::Error) -> anyhow::Error {
    let pid = setup.pid;
    match error.raw_os_error() {
        Some(libc::ESRCH) => anyhow!("there is no process {pid}"),
        Some(libc::EINVAL) => match setup.vm_fd {
            Some(fd) => anyhow!("process {pid} has no VM at file descriptor {fd}"),
            None => anyhow!("process {pid} has no VM: give the process that runs the guest"),
        },
        Some(libc::EPERM | libc::EACCES) => {
            anyhow!("not allowed to trace process {pid}: run it as root")
        }
        Some(libc::EBUSY) => {
            anyhow!("the VM of process {pid} is being sampled already: end that first")
        }
        Some(libc::EOPNOTSUPP) => anyhow!(
            "the VM of process {pid} cannot be sampled: dmesg says why, in a line with \
             \"kvmscope: no sampling\""
        ),
        _ => anyhow!(error).context(format!("the VM of process {pid} cannot be sampled")),
    }
}

/// CLOCK_MONOTONIC, which samples are stamped with.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is there to be written to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernels() {
        let mut bytes = Vec::new();
        for word in [7_u64, 0x12_3456_789a, 3] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(5_u32.to_ne_bytes());
        bytes.extend([2, 2]);
        bytes.extend(1_u16.to_ne_bytes());
        assert_eq!(bytes.len(), RECORD);
        let expected = Sample {
            time_ns: 7,
            gfn: 0x12_3456_789a,
            sequence: 3,
            vcpu: 5,
            level: 2,
            access: Access::WRITE,
            table: true,
        };
        assert_eq!(sample(&bytes), expected);
    }

    /// Every refusal says what to do next, or who is in the way.
    #[test]
    fn refusals() {
        let mut setup = Setup {
            pid: 812,
            vm_fd: None,
            strategy: Strategy::Random,
            access: Access::READ,
            rate: 1,
            budget_ppm: 1,
        };
        let said = |setup: &Setup, errno| {
            why_not_start(setup, io::Error::from_raw_os_error(errno)).to_string()
        };
        assert_eq!(said(&setup, libc::ESRCH), "there is no process 812");
        assert!(said(&setup, libc::EINVAL).contains("has no VM: give the process"));
        assert!(said(&setup, libc::EPERM).contains("run it as root"));
        assert!(said(&setup, libc::EBUSY).contains("is being sampled already"));
        assert!(said(&setup, libc::EOPNOTSUPP).contains("dmesg says why"));
        setup.vm_fd = Some(11);
        assert!(said(&setup, libc::EINVAL).ends_with("no VM at file descriptor 11"));
    }
}
