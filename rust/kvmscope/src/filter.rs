// SPDX-License-Identifier: GPL-2.0

//! Which VMs, vCPUs and reasons are wanted. Kinds of filters must all match;
//! of several of one kind, any.

use std::str::FromStr;

use regex_lite::{Regex, RegexBuilder};

use crate::snapshot::{About, VmId};
use crate::table::{Reason, Table};

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub pids: Vec<u32>,
    /// As `kvmscope` shows them, `PID-FD`, or the guest's name.
    pub vms: Vec<String>,
    pub vcpus: Vec<u32>,
    pub reason: Option<Pattern>,
}

/// A regular expression of reasons' names, which is not about upper and lower case.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    regex: Regex,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        let regex = RegexBuilder::new(text).case_insensitive(true).build();
        Ok(Pattern {
            text: text.to_string(),
            regex: regex.map_err(|error| format!("not a regular expression: {error}"))?,
        })
    }
}

impl Filter {
    /// Whether it leaves out any VM or vCPU, so that the machine's own table is
    /// not what is asked for.
    pub fn selects_vms(&self) -> bool {
        !(self.pids.is_empty() && self.vms.is_empty() && self.vcpus.is_empty())
    }

    pub fn wants_vm(&self, id: VmId, about: &About) -> bool {
        let pid = self.pids.is_empty()
            || self.pids.contains(&id.pid)
            || self.pids.contains(&about.process);
        let vm = self.vms.is_empty()
            || self.vms.contains(&about.name)
            || self.vms.contains(&id.to_string());
        pid && vm
    }

    pub fn wants_vcpu(&self, vcpu: u32) -> bool {
        self.vcpus.is_empty() || self.vcpus.contains(&vcpu)
    }

    fn wants_reason(&self, reason: &Reason) -> bool {
        self.reason
            .as_ref()
            .is_none_or(|pattern| pattern.regex.is_match(&reason.name))
    }

    /// The rows of the wanted reasons.
    pub fn reasons(&self, table: &Table) -> Table {
        let mut wanted = Table::default();
        for (reason, cost) in table.rows() {
            if self.wants_reason(reason) {
                wanted.cost_mut(reason.clone()).merge(cost);
            }
        }
        wanted
    }
}
