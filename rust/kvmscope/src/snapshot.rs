// SPDX-License-Identifier: GPL-2.0

//! One reading of every table there is: the machine's, each VM's, each vCPU's.
//! All counts are totals since something began; see `interval` for what lies
//! between two readings.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::table::Table;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Since the Unix epoch.
    pub time_ns: u64,
    /// By a clock that nobody sets, with an arbitrary beginning.
    pub clock_ns: u64,
    /// VMX or SVM.
    pub isa: String,
    /// Whether exits are being counted, and timed.
    pub counting: bool,
    pub latency: bool,
    /// Since the last reset, with the VMs that ended since.
    pub system: Table,
    pub vms: Vec<Vm>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    #[serde(flatten)]
    pub id: VmId,
    #[serde(flatten)]
    pub about: About,
    /// Since the VM was created.
    pub table: Table,
    pub vcpus: BTreeMap<u32, Table>,
}

/// Tells VMs apart, also one from an earlier one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmId {
    /// Of the task that created it, and the file descriptor it got.
    pub pid: u32,
    pub fd: u32,
    /// The inode of its directory.
    pub inode: u64,
}

/// What else is known of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The process of the task that created it.
    pub process: u32,
    /// The guest's name if its command line gives one, else the program's.
    pub name: String,
}

/// As its directory is named.
impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.fd)
    }
}
