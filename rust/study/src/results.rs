// SPDX-License-Identifier: GPL-2.0

//! What the measurements say. Its JSON is study.json.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Sub;

use anyhow::{bail, Context, Result};
use serde::Serialize;

use crate::lines::{Boot, Dump, Lines, Measured, Row};

/// Raised when a field of the JSON changes its meaning.
const VERSION: u32 = 1;

/// The places, what they are called, and the guests at work there; L1 has none.
pub const PLACES: [(&str, &str, &[&str]); 3] = [
    ("l1", "L1", &["-"]),
    ("one", "one guest", &["a"]),
    ("two", "two guests", &["a", "b"]),
];

/// All there is to say.
#[derive(Serialize)]
pub struct Results {
    study: u32,
    /// What ran L1.
    pub engine: String,
    /// Which kernel L1 was.
    pub kernel: String,
    /// VMX or SVM.
    pub isa: String,
    /// L1's.
    pub cpus: u32,
    /// What the times are worth.
    pub note: &'static str,
    /// L2's boots.
    pub boots: Vec<Boots>,
    /// How far two of them differ.
    pub boots_differ: Difference,
    /// In the order in which they ran.
    pub workloads: Vec<Workload>,
}

/// One boot of L2, power-off included.
#[derive(Serialize)]
pub struct Boots {
    /// By L1's clock.
    pub seconds: f64,
    /// Of all reasons.
    pub total: Cost,
    /// Of each.
    pub reasons: BTreeMap<String, Cost>,
}

/// The second boot against the first.
#[derive(Serialize)]
pub struct Difference {
    /// Exits more.
    pub total: i64,
    /// In percent of the first's.
    pub total_percent: f64,
    /// The sum over the reasons of how many more or fewer.
    pub by_reason: i64,
    /// In percent of the first's total.
    pub by_reason_percent: f64,
    /// Exits more, for each reason.
    pub reasons: BTreeMap<String, i64>,
}

/// A workload, everywhere.
#[derive(Serialize)]
pub struct Workload {
    /// As `guest work` has it.
    pub name: String,
    /// How often it was done in each place.
    pub rounds: u64,
    /// In L1 and in each guest.
    pub runs: Vec<Run>,
}

/// A workload in one place: of a run with all rounds, what a run without any did
/// not have. So neither starting the program nor telling it to counts.
#[derive(Serialize)]
pub struct Run {
    /// See [`PLACES`].
    pub place: &'static str,
    /// The guest, or `-`.
    pub guest: String,
    /// Of its rounds.
    pub checksum: String,
    /// By the clock where it ran.
    pub seconds: f64,
    /// By L1's, until all guests were done.
    pub l1_seconds: f64,
    /// Of all reasons.
    pub total: Cost,
    /// Of each.
    pub reasons: BTreeMap<String, Cost>,
    /// The exits of a run without rounds.
    pub empty_exits: i64,
    /// By the guest's clock.
    pub exits_per_s: f64,
    /// The time that KVM took for exits, in percent of the guest's time.
    pub lost_percent: f64,
    /// That QEMU took for them.
    pub qemu_percent: f64,
    /// In which the vCPU was ready, and another had the CPU.
    pub waited_percent: f64,
}

/// What exits there were, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// How many.
    pub exits: i64,
    /// The time that KVM took for them.
    pub kvm_ns: i64,
    /// That QEMU took.
    pub user_ns: i64,
    /// In which the vCPU slept.
    pub sleep_ns: i64,
    /// In which it waited for a CPU.
    pub preempt_ns: i64,
}

impl Cost {
    fn new(row: &Row) -> Self {
        Self {
            exits: row.exits,
            kvm_ns: row.kvm_ns,
            user_ns: row.user_ns,
            sleep_ns: row.sleep_ns,
            preempt_ns: row.preempt_ns,
        }
    }

    fn with(self, other: Self, add: impl Fn(i64, i64) -> i64) -> Self {
        Self {
            exits: add(self.exits, other.exits),
            kvm_ns: add(self.kvm_ns, other.kvm_ns),
            user_ns: add(self.user_ns, other.user_ns),
            sleep_ns: add(self.sleep_ns, other.sleep_ns),
            preempt_ns: add(self.preempt_ns, other.preempt_ns),
        }
    }
}

impl Sub for Cost {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| sum.with(cost, |a, b| a + b))
    }
}

type Table = BTreeMap<String, Cost>;

/// What was counted for each reason, of the guest of that name or of all.
fn table(dump: &Dump, guest: Option<&str>) -> Table {
    let mut table = Table::new();
    for row in &dump.rows {
        if guest.is_none() || row.name.as_deref() == guest {
            let reason = row.reason.clone().unwrap_or_default();
            let cost = table.entry(reason).or_default();
            *cost = [*cost, Cost::new(row)].into_iter().sum();
        }
    }
    table
}

/// What is in `now` and was not in `before`, for all reasons in either.
fn subtract(now: &Table, before: &Table) -> Table {
    let of = |table: &Table, reason: &String| table.get(reason).copied().unwrap_or_default();
    now.keys()
        .chain(before.keys())
        .map(|reason| (reason.clone(), of(now, reason) - of(before, reason)))
        .collect()
}

impl Results {
    /// What these measurements say, if none is missing.
    pub fn new(engine: &str, kernel: &str, lines: &Lines) -> Result<Self> {
        let [first, second] = &lines.boots[..] else {
            bail!("L2 has booted {} times, not twice", lines.boots.len());
        };
        if lines.cpus == 0 {
            bail!("how many CPUs had L1?");
        }
        if lines.workloads.is_empty() {
            bail!("no workload ran");
        }
        let boots = vec![Boots::new(first), Boots::new(second)];
        Ok(Self {
            study: VERSION,
            engine: engine.into(),
            kernel: kernel.into(),
            isa: first.dump.isa.clone(),
            cpus: lines.cpus,
            note: note(engine),
            boots_differ: Difference::new(&boots[0], &boots[1]),
            boots,
            workloads: lines
                .workloads
                .iter()
                .map(|name| Workload::new(name, lines).with_context(|| name.clone()))
                .collect::<Result<_>>()?,
        })
    }
}

fn note(engine: &str) -> &'static str {
    match engine {
        "bochs" => {
            "Times are emulated: a second is 100 million instructions of an emulator \
             (Bochs) that has no cache misses, TLB misses or walks of two page tables, \
             and in which an exit itself takes no longer than another instruction. What \
             is shown is how many instructions KVM, QEMU and L1's kernel add to the \
             guest's; on a CPU each exit costs more than that, and memory in a guest \
             costs something even where there is no exit."
        }
        "qemu-tcg" => {
            "Times are of QEMU's emulation of a CPU, where translating code takes part \
             of them: hold exits against exits, and not times against times."
        }
        _ => "Times are of this machine, whose own hypervisor takes part in every exit.",
    }
}

impl Boots {
    fn new(boot: &Boot) -> Self {
        Self {
            seconds: boot.seconds,
            total: Cost::new(&boot.dump.total),
            reasons: table(&boot.dump, None),
        }
    }
}

impl Difference {
    fn new(first: &Boots, second: &Boots) -> Self {
        let reasons: BTreeMap<_, _> = subtract(&second.reasons, &first.reasons)
            .into_iter()
            .map(|(reason, cost)| (reason, cost.exits))
            .collect();
        let total = second.total.exits - first.total.exits;
        let by_reason = reasons.values().map(|exits| exits.abs()).sum();
        Self {
            total,
            total_percent: percent(total, first.total.exits),
            by_reason,
            by_reason_percent: percent(by_reason, first.total.exits),
            reasons,
        }
    }
}

impl Workload {
    fn new(name: &str, lines: &Lines) -> Result<Self> {
        let mut rounds = 0;
        let mut runs = Vec::new();
        for (place, called, guests) in PLACES {
            let measured = lines
                .measured
                .get(&(place.into(), name.into()))
                .with_context(|| format!("was not measured in {called}"))?;
            for guest in guests {
                let run = Run::new(measured, called, guest);
                let (did, run) = run.with_context(|| format!("{called}, {guest}"))?;
                if rounds != 0 && rounds != did {
                    bail!("{did} rounds in {called}, and {rounds} elsewhere");
                }
                rounds = did;
                runs.push(run);
            }
        }
        Ok(Self {
            name: name.into(),
            rounds,
            runs,
        })
    }
}

impl Run {
    fn new(measured: &Measured, place: &'static str, guest: &str) -> Result<(u64, Self)> {
        let work = measured
            .works
            .get(guest)
            .context("guest work has said nothing")?;
        let [begin, empty, end] = ["begin", "empty", "end"].map(|step| measured.dump(step));
        let (begin, empty, end) = (begin?, empty?, end?);

        // L1 has no guest, so all exits are unexpected, and counted.
        let name = Some(guest).filter(|&name| name != "-");
        let [before, between, after] = [begin, empty, end].map(|dump| table(dump, name));
        let start_up = subtract(&between, &before);
        let reasons = subtract(&subtract(&after, &between), &start_up);
        let total: Cost = reasons.values().copied().sum();
        let seconds = work.ns as f64 / 1e9;
        Ok((
            work.rounds,
            Self {
                place,
                guest: guest.into(),
                checksum: work.checksum.clone(),
                seconds,
                l1_seconds: (end.time - empty.time) - (empty.time - begin.time),
                total,
                reasons,
                empty_exits: start_up.values().map(|cost| cost.exits).sum(),
                exits_per_s: if work.ns > 0 {
                    total.exits as f64 / seconds
                } else {
                    0.0
                },
                lost_percent: percent(total.kvm_ns, work.ns),
                qemu_percent: percent(total.user_ns, work.ns),
                waited_percent: percent(total.preempt_ns, work.ns),
            },
        ))
    }
}

/// 0 if there is no whole.
fn percent(part: i64, whole: i64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}
