// SPDX-License-Identifier: GPL-2.0

//! The lines that qemu-test/study-l1 prints; its head describes them.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

/// What `kvmscope dump --json` prints, as far as it matters here.
#[derive(Deserialize)]
pub struct Dump {
    /// VMX or SVM.
    pub isa: String,
    /// Seconds by L1's clock.
    pub time: f64,
    /// Exits are being timed.
    pub latency: bool,
    /// A line for each VM, vCPU and reason, or only for each reason.
    pub rows: Vec<Row>,
    /// The sum of the rows.
    pub total: Row,
}

/// What was counted for one reason.
#[derive(Deserialize)]
pub struct Row {
    /// The name of the VM.
    pub name: Option<String>,
    /// Of the exits.
    pub reason: Option<String>,
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

/// A boot of L2.
pub struct Boot {
    /// How long it took, by L1's clock.
    pub seconds: f64,
    /// What had been counted afterwards, since just before.
    pub dump: Dump,
}

/// What `guest work` said.
pub struct Work {
    /// How often it did the work.
    pub rounds: u64,
    /// Of each round.
    pub checksum: String,
    /// How long it took, by the clock where it ran.
    pub ns: i64,
}

/// A workload in a place.
#[derive(Default)]
pub struct Measured {
    dumps: BTreeMap<String, Dump>,
    /// By guest; `-` is L1 itself.
    pub works: BTreeMap<String, Work>,
}

impl Measured {
    /// What had been counted by that step.
    pub fn dump(&self, step: &str) -> Result<&Dump> {
        self.dumps
            .get(step)
            .with_context(|| format!("there is no snapshot {step}"))
    }
}

/// All that was measured.
#[derive(Default)]
pub struct Lines {
    /// How many L1 has.
    pub cpus: u32,
    /// In order.
    pub boots: Vec<Boot>,
    /// Workloads, in the order in which they ran first.
    pub workloads: Vec<String>,
    /// By place and workload.
    pub measured: BTreeMap<(String, String), Measured>,
}

impl Lines {
    /// Understands all lines, or says which it does not.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = Self::default();
        for (index, line) in text.lines().enumerate() {
            lines
                .add(line)
                .with_context(|| format!("line {} from L1", index + 1))?;
        }
        Ok(lines)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.splitn(6, ' ').collect();
        match words[..] {
            ["study", "cpus", cpus] => self.cpus = cpus.parse()?,
            ["study", "boot", number, begin, end, dump] => {
                ensure!(
                    number.parse() == Ok(self.boots.len() + 1),
                    "boot {number} is out of turn"
                );
                self.boots.push(Boot {
                    seconds: end.parse::<f64>()? - begin.parse::<f64>()?,
                    dump: parse_dump(dump)?,
                });
            }
            ["study", place, workload, guest, "work", said] => {
                let work = Work::parse(workload, said)?;
                self.at(place, workload).works.insert(guest.into(), work);
            }
            ["study", place, workload, step @ ("begin" | "empty" | "end"), ..] => {
                let dump = line.splitn(5, ' ').last().unwrap_or_default();
                let dump = parse_dump(dump)?;
                self.at(place, workload).dumps.insert(step.into(), dump);
            }
            _ => bail!("what is this? {line:?}"),
        }
        Ok(())
    }

    fn at(&mut self, place: &str, workload: &str) -> &mut Measured {
        if !self.workloads.iter().any(|known| known == workload) {
            self.workloads.push(workload.into());
        }
        self.measured
            .entry((place.into(), workload.into()))
            .or_default()
    }
}

fn parse_dump(text: &str) -> Result<Dump> {
    let dump: Dump = serde_json::from_str(text).context("no dump of kvmscope's")?;
    ensure!(dump.latency, "exits were not timed");
    Ok(dump)
}

impl Work {
    /// `NAME rounds N checksum C ns T`
    fn parse(workload: &str, said: &str) -> Result<Self> {
        let words: Vec<_> = said.split(' ').collect();
        let [name, "rounds", rounds, "checksum", checksum, "ns", ns] = words[..] else {
            bail!("guest work said {said:?}");
        };
        ensure!(name == workload, "{name} ran as {workload}");
        Ok(Self {
            rounds: rounds.parse()?,
            checksum: checksum.into(),
            ns: ns.parse()?,
        })
    }
}
