// SPDX-License-Identifier: GPL-2.0

//! What happened between snapshots.
//!
//! Every table is subtracted from its own predecessor, so that the intervals of
//! a run add up to exactly its last reading less its first, however it was cut.

use std::collections::BTreeMap;

use crate::snapshot::{About, Snapshot, Vm, VmId};
use crate::table::Table;

/// What was added to each table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// When it ended, since the Unix epoch.
    pub time_ns: u64,
    /// How long it took; zero when it began with the counting itself.
    pub elapsed_ns: u64,
    pub isa: String,
    pub counting: bool,
    pub latency: bool,
    pub system: Table,
    pub vms: BTreeMap<VmId, Change>,
    /// Whether a VM was gone that had been there.
    pub vanished: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub about: About,
    pub table: Table,
    pub vcpus: BTreeMap<u32, Table>,
}

impl Interval {
    /// The same VMs and nothing counted: what an interval may be appended to.
    pub fn emptied(&self) -> Interval {
        let vm = |(id, change): (&VmId, &Change)| {
            let nothing = Change {
                about: change.about.clone(),
                ..Change::default()
            };
            (*id, nothing)
        };
        Interval {
            time_ns: self.time_ns,
            isa: self.isa.clone(),
            counting: self.counting,
            latency: self.latency,
            vms: self.vms.iter().map(vm).collect(),
            ..Interval::default()
        }
    }

    /// What VMs counted that ended before they could be read once more, or at
    /// all, where VMs are seen by their own tables or by their vCPUs'. Known by
    /// what the machine counted beyond those, so there are no times, and what
    /// the others did between two readings goes with it: never more than that,
    /// however long the interval, as it evens out on the way.
    pub fn ended(&self, by_vcpu: bool) -> Table {
        // Without a VM that ended, that is all there would be.
        if !self.vanished {
            return Table::default();
        }
        let mut seen = Table::default();
        for change in self.vms.values() {
            if by_vcpu {
                change.vcpus.values().for_each(|table| seen.merge(table));
            } else {
                seen.merge(&change.table);
            }
        }
        self.system.beyond(&seen)
    }

    /// Appends the interval that follows.
    pub fn merge(&mut self, next: &Interval) {
        self.time_ns = next.time_ns;
        self.elapsed_ns = self.elapsed_ns.saturating_add(next.elapsed_ns);
        self.isa.clone_from(&next.isa);
        self.counting = next.counting;
        self.latency = next.latency;
        self.system.merge(&next.system);
        self.vanished |= next.vanished;
        for (id, change) in &next.vms {
            let sum = self.vms.entry(*id).or_default();
            sum.about.clone_from(&change.about);
            sum.table.merge(&change.table);
            for (vcpu, table) in &change.vcpus {
                sum.vcpus.entry(*vcpu).or_default().merge(table);
            }
        }
    }
}

/// Remembers the last reading of every table.
#[derive(Default)]
pub struct Tracker {
    clock_ns: Option<u64>,
    system: Table,
    /// Also of VMs that were missing since: one may only have been unreadable.
    vms: BTreeMap<VmId, Vm>,
    /// Which of them the last snapshot had.
    present: Vec<VmId>,
}

impl Tracker {
    /// The interval from the snapshot before, or from when counting began.
    pub fn advance(&mut self, snapshot: Snapshot) -> Interval {
        let mut interval = Interval {
            time_ns: snapshot.time_ns,
            elapsed_ns: self
                .clock_ns
                .map_or(0, |before| snapshot.clock_ns.saturating_sub(before)),
            isa: snapshot.isa,
            counting: snapshot.counting,
            latency: snapshot.latency,
            system: snapshot.system.since(&self.system),
            ..Interval::default()
        };
        self.clock_ns = Some(snapshot.clock_ns);
        self.system = snapshot.system;

        let present: Vec<VmId> = snapshot.vms.iter().map(|vm| vm.id).collect();
        for vm in snapshot.vms {
            let change = self.change(&vm);
            interval.vms.insert(vm.id, change);
            self.remember(vm);
        }

        interval.vanished = self.present.iter().any(|id| !present.contains(id));
        self.present = present;
        interval
    }

    fn change(&self, vm: &Vm) -> Change {
        let none = Table::default();
        let before = self.vms.get(&vm.id);
        let vcpu = |(&n, table): (&u32, &Table)| {
            let before = before.and_then(|vm| vm.vcpus.get(&n)).unwrap_or(&none);
            (n, table.since(before))
        };
        Change {
            about: vm.about.clone(),
            table: vm.table.since(before.map_or(&none, |vm| &vm.table)),
            vcpus: vm.vcpus.iter().map(vcpu).collect(),
        }
    }

    fn remember(&mut self, vm: Vm) {
        match self.vms.get_mut(&vm.id) {
            None => drop(self.vms.insert(vm.id, vm)),
            Some(known) => {
                known.table = vm.table;
                // Not replaced as a whole, for the sake of one that is missing.
                known.vcpus.extend(vm.vcpus);
            }
        }
    }
}
