// SPDX-License-Identifier: GPL-2.0

//! Which VMs are wanted.

use clap::Args;

use crate::filter::Filter;
use crate::snapshot::{About, VmId};

#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// Only these VMs: a process, PID-FD, or a guest's name
    #[arg(value_name = "PID|VM")]
    pub words: Vec<String>,
    /// Only VMs created by this process
    #[arg(short, long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Only this VM: PID-FD, or its guest's name
    #[arg(short = 'g', long = "vm", value_name = "VM")]
    pub vms: Vec<String>,
}

impl Which {
    pub fn is_all(&self) -> bool {
        self.words.is_empty() && self.pids.is_empty() && self.vms.is_empty()
    }

    pub fn wants(&self, id: VmId, about: &About) -> bool {
        let filter = Filter {
            pids: self.pids.clone(),
            vms: self.vms.clone(),
            ..Filter::default()
        };
        let named = |word: &String| {
            let pid = word.parse::<u32>();
            pid.is_ok_and(|pid| pid == id.pid || pid == about.process)
                || *word == about.name
                || *word == id.to_string()
        };
        filter.wants_vm(id, about) && (self.words.is_empty() || self.words.iter().any(named))
    }
}
