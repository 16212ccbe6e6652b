// SPDX-License-Identifier: GPL-2.0

//! The files, and the words to write to them.

use std::ffi::CString;
use std::fs;

use fastrand::Rng;

/// The directory of the knobs.
pub const KNOBS: &str = "/sys/kernel/kvmscope";
const MACHINE: &str = "/sys/kernel/debug/kvmscope";
const VMS: &str = "/sys/kernel/debug/kvm";

const KNOB_NAMES: [&str; 4] = ["reset", "exits", "latency", "autostart"];
const VM_NAMES: [&str; 17] = [
    "scope/exits",
    "scope/latency",
    "scope/cpuid",
    "scope/wss/active",
    "scope/wss/period_ms",
    "scope/wss/intervals",
    "scope/wss/threshold",
    "scope/wss/reads",
    "scope/wss/split",
    "scope/wss/sample",
    "scope/wss/estimate",
    "scope/wss/history",
    "scope/wss/pages",
    "vcpu0/scope/exits",
    "vcpu0/scope/latency",
    "vcpu1/scope/exits",
    "vcpu1/scope/latency",
];
/// Streams: what is said to them is said by ioctl.
const DEVICES: [&str; 2] = ["/dev/kvm_ept_sample", "/proc/kvm_ept_sample"];

/// The VMs that there were when it was last looked: to read the directory for each
/// call would take longer than most calls do.
#[derive(Default)]
pub struct Vms(Vec<(i32, i32)>);

impl Vms {
    /// Looks which there are, by the names of their directories.
    pub fn look(&mut self) {
        self.0.clear();
        for entry in fs::read_dir(VMS).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if let Some((pid, fd)) = name.split_once('-') {
                self.0.extend(pid.parse().ok().zip(fd.parse().ok()));
            }
        }
        self.0.sort_unstable();
    }

    /// One of them, which may be gone: process and descriptor.
    pub fn one(&self, random: &mut Rng) -> Option<(i32, i32)> {
        let number = random.usize(..);
        (!self.0.is_empty()).then(|| self.0[number % self.0.len()])
    }
}

/// The path of one of the files, perhaps of a VM that is gone by the time it is used.
pub fn path(vms: &Vms, random: &mut Rng) -> CString {
    let path = match random.u32(0..100) {
        // It fills the kernel's log.
        0 => format!("{KNOBS}/dump"),
        1..20 => format!("{KNOBS}/{}", random.choice(KNOB_NAMES).unwrap_or("exits")),
        20..28 => format!("{MACHINE}/{}", ["exits", "latency"][random.usize(0..2)]),
        28..48 => DEVICES[random.usize(0..2)].to_string(),
        _ => {
            let name = random.choice(VM_NAMES).unwrap_or("scope/exits");
            let (pid, fd) = vms.one(random).unwrap_or((1, 1));
            format!("{VMS}/{pid}-{fd}/{name}")
        }
    };
    CString::new(path).unwrap_or_default()
}

const WORDS: [&str; 14] = [
    "0", "1", "all", "vm", "wss", "sample", "both", "none", "off", "a", "b", "10", "20", "200",
];

/// What to write: a word that means something to some file, or nearly so, or
/// nothing of the kind.
pub fn words(random: &mut Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = match random.u32(0..10) {
        0..6 => random.choice(WORDS).unwrap_or("1").into(),
        6 => random.u64(..).to_string().into(),
        7 => format!("-{}", random.u16(..)).into(),
        8 => random.u32(0..1000).to_string().into(),
        _ => (0..random.usize(0..100)).map(|_| random.u8(..)).collect(),
    };
    match random.u32(0..8) {
        0..4 => bytes.push(b'\n'),
        4 => bytes.insert(random.usize(0..=bytes.len()), random.u8(..)),
        5 if !bytes.is_empty() => {
            let at = random.usize(0..bytes.len());
            bytes[at] ^= 1 << random.u32(0..8);
        }
        _ => {}
    }
    bytes
}
