// SPDX-License-Identifier: GPL-2.0

//! What is to be seen of an interval: its costs by reason, VM or vCPU, filtered
//! and sorted. Every form of output begins here.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use crate::filter::Filter;
use crate::interval::{Change, Interval};
use crate::snapshot::VmId;
use crate::table::{Cost, Reason, Table};

/// What a line stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A line for each reason
    #[default]
    Reason,
    /// A line for each VM
    Vm,
    /// A line for each vCPU
    Vcpu,
    /// A line for each reason of each vCPU
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Exits, most first
    #[default]
    Count,
    /// Time spent in KVM, most first
    Time,
    /// Average time, longest first
    Avg,
    /// 99th percentile, longest first
    P99,
    /// Longest time, longest first
    Max,
    /// VM, vCPU and reason by name
    Name,
    /// VM, vCPU and reason by number
    Number,
}

/// Whose costs these are. What a line does not tell apart is None.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub vm: Option<Owner>,
    pub vcpu: Option<u32>,
    pub reason: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Vm(VmId, String),
    /// VMs that ended since they were last read.
    Ended,
}

#[derive(Clone, Debug, Default)]
pub struct Line {
    pub subject: Subject,
    pub cost: Cost,
    /// Exits per second, of late.
    pub rate: Option<f64>,
}

#[derive(Clone, Debug, Default)]
pub struct View {
    pub by: By,
    pub lines: Vec<Line>,
    pub total: Line,
}

/// Shows `interval`, with the rate of exits in `recent`, its latest part.
pub fn view(interval: &Interval, recent: &Interval, by: By, sort: Sort, filter: &Filter) -> View {
    let seconds = recent.elapsed_ns as f64 / 1e9;
    let rate = |exits: u64| (seconds > 0.0).then(|| exits as f64 / seconds);

    let latest = costs(recent, by, filter);
    let mut total = Line::default();
    let mut lines = Vec::new();
    for (subject, cost) in costs(interval, by, filter) {
        total.cost.merge(&cost);
        let exits = latest.get(&subject).map_or(0, |cost| cost.exits);
        lines.push(Line {
            subject,
            cost,
            rate: rate(exits),
        });
    }
    total.rate = rate(
        latest
            .values()
            .fold(0, |sum, c| sum.saturating_add(c.exits)),
    );

    lines.sort_by(|a, b| compare(sort, a, b));
    View { by, lines, total }
}

/// The lines' costs, in the order of their subjects' numbers.
fn costs(interval: &Interval, by: By, filter: &Filter) -> BTreeMap<Subject, Cost> {
    let mut costs: BTreeMap<Subject, Cost> = BTreeMap::new();
    let mut add = |vm: Option<&Owner>, vcpu: Option<u32>, table: &Table| {
        let table = filter.reasons(table);
        let mut add = |reason: Option<&Reason>, cost: &Cost| {
            let subject = Subject {
                vm: vm.cloned(),
                vcpu,
                reason: reason.cloned(),
            };
            costs.entry(subject).or_default().merge(cost);
        };
        match by {
            By::Reason | By::All => table.rows().for_each(|(r, cost)| add(Some(r), cost)),
            By::Vm | By::Vcpu => add(None, &table.total()),
        }
    };

    // A vCPU's own tables only where vCPUs are told apart: a VM's is cheaper to
    // add up and was read at one moment.
    let vcpus = |change: &Change, add: &mut dyn FnMut(u32, &Table)| {
        for (&vcpu, table) in &change.vcpus {
            if filter.wants_vcpu(vcpu) {
                add(vcpu, table);
            }
        }
    };
    let wanted = || {
        interval
            .vms
            .iter()
            .filter(|(id, change)| filter.wants_vm(**id, &change.about))
    };

    if by == By::Reason && !filter.selects_vms() {
        add(None, None, &interval.system);
        return costs;
    }
    for (id, change) in wanted() {
        let owner = Owner::Vm(*id, change.about.name.clone());
        let owner = (by != By::Reason).then_some(&owner);
        match by {
            By::Reason | By::Vm if filter.vcpus.is_empty() => add(owner, None, &change.table),
            By::Reason | By::Vm => vcpus(change, &mut |_, table| add(owner, None, table)),
            By::Vcpu | By::All => vcpus(change, &mut |n, table| add(owner, Some(n), table)),
        }
    }
    let ended = interval.ended(matches!(by, By::Vcpu | By::All));
    if !filter.selects_vms() && !ended.is_empty() {
        add(Some(&Owner::Ended), None, &ended);
    }
    costs
}

/// The VMs that the filter leaves, whether they exited or not.
pub fn any_vm(interval: &Interval, filter: &Filter) -> bool {
    interval.vms.iter().any(|(id, change)| {
        filter.wants_vm(*id, &change.about)
            && (filter.vcpus.is_empty() || change.vcpus.keys().any(|n| filter.wants_vcpu(*n)))
    })
}

fn compare(sort: Sort, a: &Line, b: &Line) -> Ordering {
    let most_first =
        |key: fn(&Cost) -> Option<u64>| Reverse(key(&a.cost)).cmp(&Reverse(key(&b.cost)));
    let order = match sort {
        Sort::Count => most_first(|cost| Some(cost.exits)),
        Sort::Time => most_first(|cost| Some(cost.time.kvm_ns)),
        Sort::Avg => most_first(|cost| cost.time.average_ns()),
        Sort::P99 => most_first(|cost| cost.time.percentile_ns(0.99)),
        Sort::Max => most_first(|cost| Some(cost.time.max_ns)),
        Sort::Name => a.subject.names().cmp(&b.subject.names()),
        Sort::Number => Ordering::Equal,
    };
    // Never by chance: lines must not jump from one refresh to the next.
    order.then_with(|| a.subject.cmp(&b.subject))
}

impl Subject {
    fn names(&self) -> (Option<&str>, Option<u32>, Option<&str>) {
        let vm = self.vm.as_ref().map(|owner| match owner {
            Owner::Vm(_, name) => name.as_str(),
            Owner::Ended => "",
        });
        (vm, self.vcpu, self.reason.as_ref().map(|r| r.name.as_str()))
    }
}
