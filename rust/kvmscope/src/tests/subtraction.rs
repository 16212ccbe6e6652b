// SPDX-License-Identifier: GPL-2.0

//! Whatever machines do and however often they are looked at, intervals add up
//! to what happened: nothing lost, nothing counted twice.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::interval::{Interval, Tracker};
use crate::snapshot::{About, Snapshot, Vm, VmId};
use crate::table::{Reason, Table};

#[derive(Clone, Debug)]
enum Event {
    /// VM, vCPU, reason, exits.
    Exits(u8, u32, u32, u64),
    /// The VM ends; when it exits again, that is another one of the same name.
    End(u8),
    /// The machine's own table starts from zero.
    Reset,
    /// Looked at, while that VM cannot be read.
    Look(Option<u8>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4u8, 0..3u32, 0..5u32, 1..1000u64).prop_map(|(vm, cpu, reason, n)| Event::Exits(vm, cpu, reason, n)),
        1 => (0..4u8).prop_map(Event::End),
        3 => Just(Event::Look(None)),
        1 => (0..4u8).prop_map(|vm| Event::Look(Some(vm))),
    ]
}

#[derive(Default)]
struct Machine {
    system: Table,
    vms: BTreeMap<u8, Vm>,
    clock: u64,
    inodes: u64,
    /// What each VM ever counted, also those that ended.
    truth: BTreeMap<VmId, Table>,
    total: u64,
}

fn count(table: &mut Table, reason: u32, n: u64) {
    table.cost_mut(Reason::new(Some(reason), "X")).exits += n;
}

impl Machine {
    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Exits(name, vcpu, reason, n) => {
                let inode = self.inodes;
                let vm = self.vms.entry(name).or_insert_with(|| Vm {
                    id: VmId {
                        pid: name.into(),
                        fd: 3,
                        inode,
                    },
                    about: About::default(),
                    ..Vm::default()
                });
                self.inodes += 1;
                count(&mut vm.table, reason, n);
                count(vm.vcpus.entry(vcpu).or_default(), reason, n);
                count(self.truth.entry(vm.id).or_default(), reason, n);
                count(&mut self.system, reason, n);
                self.total += n;
            }
            Event::End(name) => drop(self.vms.remove(&name)),
            Event::Reset => self.system = Table::default(),
            Event::Look(_) => {}
        }
    }

    fn look(&mut self, unreadable: Option<u8>) -> Snapshot {
        self.clock += 1;
        let readable = self
            .vms
            .iter()
            .filter(|(name, _)| Some(**name) != unreadable);
        Snapshot {
            clock_ns: self.clock,
            system: self.system.clone(),
            vms: readable.map(|(_, vm)| vm.clone()).collect(),
            ..Snapshot::default()
        }
    }
}

/// Looks at the machine whenever told to, and at its beginning and end.
fn watch(events: &[Event]) -> (Machine, Interval, Vec<Interval>) {
    let mut machine = Machine::default();
    let mut tracker = Tracker::default();
    let mut sum = tracker.advance(machine.look(None));
    let mut intervals = Vec::new();
    for event in events.iter().chain([&Event::Look(None)]) {
        machine.happen(event);
        if let Event::Look(unreadable) = event {
            let interval = tracker.advance(machine.look(*unreadable));
            sum.merge(&interval);
            intervals.push(interval);
        }
    }
    (machine, sum, intervals)
}

fn exits(table: &Table) -> u64 {
    table.total().exits
}

proptest! {
    #[test]
    fn the_machines_intervals_add_up(events in vec(event(), 0..60)) {
        let (machine, sum, _) = watch(&events);
        prop_assert_eq!(exits(&sum.system), machine.total);
        prop_assert_eq!(sum.system, machine.system);
    }

    #[test]
    fn a_vms_intervals_add_up(events in vec(event(), 0..60)) {
        let (machine, sum, _) = watch(&events);
        for vm in machine.vms.values() {
            let change = &sum.vms[&vm.id];
            prop_assert_eq!(&change.table, &vm.table);
            for (vcpu, table) in &vm.vcpus {
                prop_assert_eq!(&change.vcpus[vcpu], table);
            }
        }
        // Of one that ended, what it did since it was last read is not its own
        // any more, but never is there more than there was.
        for (id, change) in &sum.vms {
            prop_assert!(exits(&change.table) <= exits(&machine.truth[id]));
        }
    }

    #[test]
    fn what_ended_vms_did_is_not_lost(events in vec(event(), 0..60)) {
        let (machine, sum, _) = watch(&events);
        let vms: u64 = sum.vms.values().map(|vm| exits(&vm.table)).sum();
        let vcpus = sum.vms.values().flat_map(|vm| vm.vcpus.values());
        let vcpus: u64 = vcpus.map(exits).sum();
        for (by_vcpu, seen) in [(false, vms), (true, vcpus)] {
            let ended = exits(&sum.ended(by_vcpu));
            prop_assert_eq!(ended, if sum.vanished { machine.total - seen } else { 0 });
        }
    }

    #[test]
    fn it_does_not_matter_how_often_one_looks(events in vec(event(), 0..60)) {
        let (_, often, _) = watch(&events);
        let seldom: Vec<Event> =
            events.into_iter().filter(|event| !matches!(event, Event::Look(_))).collect();
        let (machine, seldom, _) = watch(&seldom);
        prop_assert_eq!(&often.system, &seldom.system);
        for vm in machine.vms.values() {
            prop_assert_eq!(&often.vms[&vm.id].table, &seldom.vms[&vm.id].table);
        }
    }

    /// A reset may hide exits that nobody read before it, and invents none.
    #[test]
    fn a_reset_counts_nothing_twice(
        events in vec(prop_oneof![8 => event(), 1 => Just(Event::Reset)], 0..60)
    ) {
        let (machine, sum, intervals) = watch(&events);
        prop_assert!(exits(&sum.system) <= machine.total);
        let parts: u64 = intervals.iter().map(|interval| exits(&interval.system)).sum();
        prop_assert_eq!(parts, exits(&sum.system));
    }

    /// Seen at once, a reset hides nothing at all.
    #[test]
    fn a_reset_that_is_seen_loses_nothing(events in vec(event(), 0..30), more in vec(event(), 0..30)) {
        let mut all = events;
        all.extend([Event::Look(None), Event::Reset, Event::Look(None)]);
        all.extend(more);
        let (machine, sum, _) = watch(&all);
        prop_assert_eq!(exits(&sum.system), machine.total);
    }
}
