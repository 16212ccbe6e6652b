// SPDX-License-Identifier: GPL-2.0

//! Which VMs, vCPUs and reasons are wanted. Kinds of filters must all match;
//! of several of one kind, any.

use regex_lite::Regex;

use crate::snapshot::{About, VmId};
use crate::table::{Reason, Table};

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub pids: Vec<u32>,
    /// As `kvmscope` shows them, `PID-FD`, or the guest's name.
    pub vms: Vec<String>,
    pub vcpus: Vec<u32>,
    pub reason: Option<Regex>,
}

/// Compiles a filter of reasons, which is not about upper and lower case.
pub fn reason_regex(pattern: &str) -> Result<Regex, String> {
    let regex = Regex::new(&format!("(?i:{pattern})"));
    // Compiled alone too: `a)(b` is a pattern only between our parentheses.
    match Regex::new(pattern).and(regex) {
        Ok(regex) => Ok(regex),
        Err(error) => Err(format!("not a regular expression: {error}")),
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
            .is_none_or(|regex| regex.is_match(&reason.name))
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
