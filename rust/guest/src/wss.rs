// SPDX-License-Identifier: GPL-2.0

//! Random guests whose working set is known, against the one the kernel reports.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{bail, ensure, Result};

use crate::logs::Mode;
use crate::machine::{
    lock, now, Machine, Runner, Shape, Space, BYSTANDER, HALF, MOVING, REACH, SPARE,
};
use crate::pages::{self, Program, Touch, DATA, MAX_VCPUS, PAGE};
use crate::paging::{Paging, Tables};
use crate::tracking::{Estimate, Pages, Tracking, CHUNK};
use crate::truth::{Rules, Truth, When};

/// Compare the working sets of random guests with what they really touched
///
/// Each program is a VM of its own. In each round it waits until a period begins,
/// makes some passes over random lists of pages, waits until the period ends, and
/// compares the sets, page by page: written, read, page tables, and in how many
/// sub-intervals. A round whose passes do not lie within one period is made
/// again. Prints a line for each difference, then `wss programs N exact N rounds
/// R again A pages P entries E swaps S in_place D full_exits X flushes F`; fails when
/// there was a difference.
#[derive(clap::Args)]
pub struct Args {
    /// Only say whether working sets can be tracked here: `wss supported` or
    /// `wss unsupported`
    #[arg(long)]
    probe: bool,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 200)]
    programs: u32,
    /// Rounds of each
    #[arg(long, value_name = "R", default_value_t = 3)]
    rounds: u32,
    /// Seed of the first; the next one's is one more
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// vCPUs
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory: u64,
    /// Besides, a memslot of so many GiB that nobody touches
    #[arg(long, value_name = "GIB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..8192))]
    reserve: u64,
    /// At most so many pages in a list
    #[arg(long, value_name = "P", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=pages::LIST_ENTRIES as u64))]
    pages: u64,
    /// Length of a period
    #[arg(long, value_name = "T", default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
    /// So many times as long, for a kernel that is slower
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    slower: u64,
    /// Sub-intervals of a period, rather than a random number of them
    #[arg(long, value_name = "N")]
    intervals: Option<u64>,
    /// Passes further apart than two sub-intervals must be counted apart. The
    /// kernel promises no such thing, but where time does not depend on the host
    /// (under Bochs) it comes true
    #[arg(long)]
    apart: bool,
    /// Rather than passes at known moments, every vCPU writes to a few pages all
    /// the time: each must be counted in every sub-interval, which takes a vCPU that
    /// runs in each of them
    #[arg(long)]
    hammer: bool,
    /// Guests with page tables, of this form
    #[arg(long, value_enum, value_name = "FORM")]
    paging: Option<Paging>,
    /// vCPUs wait within the guest and never leave KVM_RUN
    #[arg(long, conflicts_with_all = ["smm"])]
    spin: bool,
    /// Enter system management mode before passes, and write there
    #[arg(long)]
    smm: bool,
    /// Memory in huge pages
    #[arg(long, conflicts_with_all = ["paging", "smm"])]
    huge: bool,
    /// Have huge pages split
    #[arg(long)]
    split: bool,
    /// Keep a dirty log meanwhile, harvest it all the time, and see that it has
    /// every page that was written to
    #[arg(long, value_enum, value_name = "MODE")]
    log: Option<Mode>,
    /// What else happens, separated by commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    disturb: Vec<Disturb>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Disturb {
    /// Memslots are added, moved and deleted
    Memslots,
    /// Pages are given back to the host
    Balloon,
    /// vCPUs are added one by one
    Hotplug,
    /// No vCPU runs for several periods
    Pause,
    /// Tracking is stopped and started
    Restart,
    /// The parameters change
    Parameters,
    /// The dirty log is switched off and on
    ToggleLog,
}

impl Args {
    /// Length of a period, in ms.
    fn period(&self) -> u64 {
        self.period_ms * self.slower
    }
}

/// Runs the programs.
pub fn run(args: &Args) -> Result<()> {
    if args.probe {
        let supported = supported()?;
        let word = if supported {
            "supported"
        } else {
            "unsupported"
        };
        writeln!(io::stdout(), "wss {word}")?;
        return Ok(());
    }
    ensure!(
        supported()?,
        "working sets cannot be tracked here: the kernel log says why"
    );
    let toggles = args.disturb.contains(&Disturb::ToggleLog);
    ensure!(args.log.is_some() || !toggles, "toggle-log needs --log");
    let mut sum = Sum::default();
    for number in 0..args.programs {
        let seed = args.seed + u64::from(number);
        let mut trial = Trial::new(args, seed)?;
        let differences = trial.run()?;
        for line in &differences {
            writeln!(io::stdout(), "program {number} seed {seed} {line}")?;
        }
        sum.exact += u32::from(differences.is_empty());
        sum.add(&trial.sum);
    }
    let all = sum.exact == args.programs;
    writeln!(
        io::stdout(),
        "wss programs {} exact {} rounds {} again {} pages {} entries {} swaps {} in_place {} \
         full_exits {} flushes {}",
        args.programs,
        sum.exact,
        sum.rounds,
        sum.again,
        sum.pages,
        sum.entries,
        sum.swaps,
        sum.in_place,
        sum.full_exits,
        sum.flushes
    )?;
    ensure!(all, "{} programs differ", args.programs - sum.exact);
    Ok(())
}

fn supported() -> Result<bool> {
    let machine = Machine::new(Arc::new(Space::new(16 << 20, false)?), Shape::default())?;
    Tracking::here(machine.fd.as_raw_fd())?.start()
}

#[derive(Default)]
struct Sum {
    exact: u32,
    rounds: u64,
    again: u64,
    pages: u64,
    entries: u64,
    swaps: u64,
    in_place: u64,
    full_exits: u64,
    flushes: u64,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        self.rounds += other.rounds;
        self.again += other.again;
        self.pages += other.pages;
        self.entries += other.entries;
        self.swaps += other.swaps;
        self.in_place += other.in_place;
        self.full_exits += other.full_exits;
        self.flushes += other.flushes;
    }
}

/// A thread that does something until it is dropped.
struct Background {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Background {
    fn new(mut step: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = over.clone();
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                step()?;
            }
            Ok(())
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// Ends it, and tells what went wrong.
    fn end(mut self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("a thread panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A dirty log, and what should be in it.
struct Log {
    mode: Mode,
    /// What was harvested. Whoever changes slots holds this.
    harvested: Arc<Mutex<BTreeSet<u64>>>,
    on: bool,
    /// What was written to since it was switched on.
    written: BTreeSet<u64>,
}

impl Log {
    /// Pages that were written to and are not in it.
    fn missing(&self, machine: &Machine) -> Result<Vec<u64>> {
        let mut harvested = lock(&self.harvested);
        harvested.extend(self.mode.harvest(machine, true)?);
        Ok(self.written.difference(&harvested).copied().collect())
    }
}

/// One program.
struct Trial<'a> {
    args: &'a Args,
    random: fastrand::Rng,
    machine: Arc<Machine>,
    tracking: Tracking,
    vcpus: Vec<Runner>,
    log: Option<Log>,
    background: Vec<Background>,
    /// Pages touched before, to come back to.
    recent: Vec<u64>,
    differences: Vec<String>,
    sum: Sum,
    /// Tracking has just started, and this is its first period.
    first: bool,
}

impl<'a> Trial<'a> {
    fn new(args: &'a Args, seed: u64) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let space = Arc::new(Space::new(args.memory << 20, args.huge)?);
        if args.huge {
            ensure!(space.fill()?, "the host has no huge pages for the guest");
        }
        let mut shape = Shape {
            paging: args.paging,
            smm: args.smm,
            reserve: args.reserve,
            ..Shape::default()
        };
        if let Some(mode) = args.log {
            shape = mode.shape(shape);
        }
        let machine = Arc::new(Machine::new(space, shape)?);
        let tracking = Tracking::here(machine.fd.as_raw_fd())?;
        let mut trial = Self {
            args,
            machine,
            tracking,
            vcpus: Vec::new(),
            log: None,
            background: Vec::new(),
            recent: Vec::new(),
            differences: Vec::new(),
            sum: Sum::default(),
            first: false,
            random: random.fork(),
        };
        let hotplug = trial.does(Disturb::Hotplug);
        for _ in 0..if hotplug { 1 } else { args.vcpus } {
            trial.add_vcpu()?;
        }
        trial.begin_log()?;
        trial.begin_disturbing(random.u64(..));
        Ok(trial)
    }

    fn does(&self, what: Disturb) -> bool {
        self.args.disturb.contains(&what)
    }

    /// Whether mappings go away at any time.
    fn unmaps(&self) -> bool {
        self.does(Disturb::Memslots) || self.does(Disturb::Balloon)
    }

    fn add_vcpu(&mut self) -> Result<()> {
        let mut vcpu = self.machine.vcpu(self.vcpus.len() as u32, Program::Sweep)?;
        if self.args.spin {
            vcpu.spin()?;
        }
        self.vcpus.push(vcpu);
        Ok(())
    }

    fn begin_log(&mut self) -> Result<()> {
        let Some(mode) = self.args.log else {
            return Ok(());
        };
        let log = Log {
            mode,
            harvested: Arc::default(),
            on: true,
            written: BTreeSet::new(),
        };
        self.machine.log(true)?;
        let (machine, harvested) = (self.machine.clone(), log.harvested.clone());
        self.background.push(Background::new(move || {
            {
                let mut harvested = lock(&harvested);
                harvested.extend(mode.harvest(&machine, false)?);
            }
            thread::sleep(Duration::from_millis(1));
            Ok(())
        }));
        self.log = Some(log);
        Ok(())
    }

    /// What happens to parts of the memory that no guest is using at the moment.
    fn begin_disturbing(&mut self, seed: u64) {
        let (slots, balloon) = (self.does(Disturb::Memslots), self.does(Disturb::Balloon));
        if !slots && !balloon {
            return;
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = self.machine.clone();
        let harvested = self.log.as_ref().map(|log| log.harvested.clone());
        let mut there = true;
        self.background.push(Background::new(move || {
            thread::sleep(Duration::from_micros(random.u64(0..=20_000)));
            if slots && (!balloon || random.bool()) {
                let _guard = harvested.as_ref().map(|harvested| lock(harvested));
                there = !there;
                if there {
                    machine.add(BYSTANDER)?;
                } else {
                    machine.delete(BYSTANDER)?;
                }
            } else {
                discard(&machine, &mut random)?;
            }
            Ok(())
        }));
    }

    fn run(&mut self) -> Result<Vec<String>> {
        // Some pages are mapped, and dirty, before tracking starts.
        if self.random.bool() {
            self.pass(&mut Truth::default())?;
        }
        self.tracking.set("period_ms", self.args.period())?;
        self.tracking.set("split", self.args.split.into())?;
        self.set_parameters()?;
        self.start()?;
        for round in 0..self.args.rounds {
            self.between_rounds()?;
            let mut attempts = 0;
            while !if self.args.hammer {
                self.hammer(round)?
            } else {
                self.round(round)?
            } {
                self.sum.again += 1;
                attempts += 1;
                ensure!(
                    attempts < 100,
                    "no pass falls within a period: make periods longer"
                );
            }
            self.sum.rounds += 1;
        }
        if let Some(tables) = self.machine.tables() {
            self.find_tables(tables)?;
        }
        self.check_log("at the end")?;
        for background in std::mem::take(&mut self.background) {
            background.end()?;
        }
        self.vcpus.clear();
        self.tracking.set("active", 0)?;
        Ok(std::mem::take(&mut self.differences))
    }

    /// Starts tracking, half of the time while a vCPU writes to pages that later
    /// rounds come back to.
    fn start(&mut self) -> Result<()> {
        let busy = self.random.bool();
        let some = self.random_list();
        if busy {
            let list: Vec<_> = some
                .iter()
                .cycle()
                .take(pages::LIST_ENTRIES)
                .copied()
                .collect();
            self.vcpus[0].list(&list)?;
            self.vcpus[0].order()?;
            thread::sleep(Duration::from_micros(self.random.u64(0..1500)));
        }
        ensure!(
            self.tracking.start()?,
            "working sets cannot be tracked here any more"
        );
        if busy {
            self.vcpus[0].finish()?;
            self.note(&mut Truth::default(), &some, &[], (0, 0));
        }
        self.first = !busy;
        Ok(())
    }

    fn set_parameters(&mut self) -> Result<()> {
        // A sub-interval is at least 1 ms.
        let most = self.args.period().min(12);
        let intervals = self
            .args
            .intervals
            .unwrap_or_else(|| self.random.u64(1..=most));
        self.tracking.set("intervals", intervals)?;
        self.tracking
            .set("threshold", self.random.u64(1..=intervals.min(3) + 1))?;
        self.tracking
            .set("reads", u64::from(self.random.u32(0..8) != 0))
    }

    /// A round; false if it has to be made again.
    fn round(&mut self, round: u32) -> Result<bool> {
        let before = if std::mem::take(&mut self.first) {
            0
        } else {
            self.tracking.begun()?
        };
        let mut truth = Truth::default();
        let begin = now();
        // No pass at all is a round, too.
        for _ in 0..self.random.u32(0..=3) {
            self.pass(&mut truth)?;
            self.between_passes()?;
            if self.random.bool() {
                let part = self.args.period() * 1000 / 4;
                thread::sleep(Duration::from_micros(self.random.u64(0..=part)));
            }
        }
        let end = now();
        let estimate = self.tracking.ended(before)?;
        self.compare(round, before + 1, &estimate, truth, (begin, end))
    }

    /// A round of hammering; false if it has to be made again.
    fn hammer(&mut self, round: u32) -> Result<bool> {
        const FEW: usize = 40;
        let mut touched = Vec::new();
        for vcpu in 0..self.vcpus.len() {
            let mut list = self.random_list();
            list.truncate(FEW);
            list.iter_mut().for_each(|(_, touch)| *touch = Touch::Write);
            self.vcpus[vcpu].list(&list)?;
            self.vcpus[vcpu].set(pages::REPEAT, 1)?;
            touched.extend(list);
        }
        for vcpu in &mut self.vcpus {
            vcpu.order()?;
        }
        // One period to begin in, and one in which nothing else happens.
        let mut last = self.tracking.estimate()?.get("period")?;
        for _ in 0..2 {
            last = self.tracking.ended(last)?.get("period")?;
        }
        let estimate = self.tracking.ended(last)?;
        for vcpu in &self.vcpus {
            vcpu.set(pages::REPEAT, 0)?;
        }
        for vcpu in &self.vcpus {
            vcpu.finish()?;
        }
        let when = (estimate.get("start_ns")?, estimate.get("start_ns")?);
        let mut truth = Truth::default();
        self.note(&mut truth, &touched, &[], when);
        for &(gfn, _) in &touched {
            truth.always(gfn, when);
        }
        for vcpu in &self.vcpus {
            for (gfn, _) in self.own(vcpu, FEW) {
                self.free_with_tables(&mut truth, gfn);
            }
        }
        self.compare(round, last + 1, &estimate, truth, when)
    }

    /// Compares the period with that number, within which `truth` happened at that
    /// time; false if that was not so.
    fn compare(
        &mut self,
        round: u32,
        period: u64,
        estimate: &Estimate,
        mut truth: Truth,
        when: When,
    ) -> Result<bool> {
        let pages = self.tracking.pages()?;
        let Some(pages) = pages.filter(|pages| pages.period == period) else {
            return Ok(false);
        };
        let from = estimate.get("start_ns")?;
        let to = from + estimate.get("duration_ns")?;
        if estimate.get("period")? != period || when.0 < from || when.1 > to {
            return Ok(false);
        }
        self.free_what_spins(&mut truth);
        let mut lines = truth.compare(&pages, &self.rules(estimate)?);
        lines.extend(contradictions(estimate, &pages)?);
        let what = format!(
            "round {round} period {} of {} sub-intervals, reads {}:",
            pages.period,
            pages.intervals,
            u8::from(pages.reads)
        );
        self.differences
            .extend(lines.iter().map(|line| format!("{what} {line}")));
        self.account(&truth, estimate)?;
        Ok(true)
    }

    fn rules(&self, estimate: &Estimate) -> Result<Rules> {
        let none = 0..0;
        let end = (self.machine.space.size + REACH) / PAGE;
        let tables = self.machine.tables().map(Tables::gfns);
        let tables = tables.unwrap_or(none.clone());
        let apart = 2 * estimate.get("duration_ns")? / estimate.get("intervals")?.max(1);
        let (huge, either) = if !self.args.huge || self.args.split {
            (none.clone(), none)
        } else if self.args.log.is_some() || self.unmaps() {
            (none, 0..end)
        } else {
            // What is executed may be mapped in small pages.
            (DATA / PAGE..end, 0..DATA / PAGE)
        };
        Ok(Rules {
            tables,
            apart: self.args.apart.then_some(apart),
            huge,
            either,
        })
    }

    /// The kernel may take its time to find out which pages are page tables, but
    /// while the guest uses the same ones all the time it must come to know them.
    fn find_tables(&mut self, tables: Tables) -> Result<()> {
        // Each memslot that is deleted has KVM unmap all, and what was asked is lost.
        let periods = if self.does(Disturb::Memslots) {
            240
        } else {
            60
        };
        let list = self.random_list();
        self.vcpus[0].list(&list)?;
        let mut touched = self.own(&self.vcpus[0], list.len());
        touched.extend(&list);
        let walked: BTreeSet<u64> = touched
            .iter()
            .flat_map(|&(gfn, _)| tables.walk(gfn))
            .collect();
        let mut unknown = walked.clone();
        let first = self.tracking.estimate()?.get("period")?;
        let mut period = first;
        while period < first + periods && !unknown.is_empty() {
            for _ in 0..50 {
                self.vcpus[0].order()?;
                self.vcpus[0].finish()?;
            }
            self.note(&mut Truth::default(), &touched, &[], (0, 0));
            period = self.tracking.estimate()?.get("period")?;
            unknown.clone_from(&walked);
            if let Some(pages) = self.tracking.pages()? {
                unknown.retain(|&gfn| !pages.table(gfn));
            }
        }
        if !unknown.is_empty() {
            let gfns: Vec<_> = unknown.iter().map(|gfn| format!("{gfn:#x}")).collect();
            self.differences.push(format!(
                "tables not known after {periods} periods, of {}: {}",
                walked.len(),
                gfns.join(" ")
            ));
        }
        Ok(())
    }

    fn account(&mut self, truth: &Truth, estimate: &Estimate) -> Result<()> {
        let sum = Sum {
            pages: truth.len() as u64,
            entries: estimate.get("entries")?,
            swaps: estimate.get("swaps")?,
            in_place: estimate.get("in_place")?,
            full_exits: estimate.get("full_exits")?,
            flushes: estimate.get("flushes")?,
            ..Sum::default()
        };
        self.sum.add(&sum);
        Ok(())
    }

    /// What each vCPU touches for its own ends.
    fn own(&self, vcpu: &Runner, entries: usize) -> Vec<(u64, Touch)> {
        let list = pages::list(vcpu.index) / PAGE;
        let lists = (entries as u64 * 4).div_ceil(PAGE);
        let mut own = vec![
            (pages::CODE / PAGE, Touch::Read),
            (pages::control(vcpu.index) / PAGE, Touch::Both),
        ];
        own.extend((list..list + lists).map(|gfn| (gfn, Touch::Read)));
        own
    }

    /// A pass of some of the vCPUs, at the same time.
    fn pass(&mut self, truth: &mut Truth) -> Result<()> {
        let mut chosen: Vec<usize> = (0..self.vcpus.len())
            .filter(|_| self.random.u32(0..4) != 0)
            .collect();
        if chosen.is_empty() {
            chosen.push(self.random.usize(0..self.vcpus.len()));
        }
        let mut touched = Vec::new();
        for &index in &chosen {
            let list = self.random_list();
            self.vcpus[index].list(&list)?;
            touched.extend(self.own(&self.vcpus[index], list.len()));
            touched.extend(list);
        }
        let in_smm = self.enter_smm(&chosen)?;
        let begin = now();
        for &index in &chosen {
            self.vcpus[index].order()?;
        }
        for &index in &chosen {
            self.vcpus[index].finish()?;
        }
        let when = (begin, now());
        self.note(truth, &touched, &in_smm, when);
        Ok(())
    }

    /// Notes what a pass touched.
    fn note(
        &mut self,
        truth: &mut Truth,
        touched: &[(u64, Touch)],
        in_smm: &[(u64, Touch)],
        when: When,
    ) {
        for &(gfn, touch) in touched {
            truth.touch(gfn, touch, when);
            if let Some(tables) = self.machine.tables() {
                for table in tables.walk(gfn) {
                    truth.often(table, when);
                }
                tables.kept().into_iter().for_each(|gfn| truth.free(gfn));
            }
            if let Some(log) = self
                .log
                .as_mut()
                .filter(|log| log.on && touch != Touch::Read)
            {
                log.written.insert(gfn);
            }
        }
        // Of another address space, where nothing is logged, and without paging.
        for &(gfn, touch) in in_smm {
            truth.touch(gfn, touch, when);
        }
        if !in_smm.is_empty() {
            truth.free(pages::SMM_SAVE / PAGE);
        }
    }

    /// Sends one of these vCPUs to system management mode; what is touched there.
    fn enter_smm(&mut self, chosen: &[usize]) -> Result<Vec<(u64, Touch)>> {
        if !self.args.smm || self.random.bool() {
            return Ok(Vec::new());
        }
        let end = self.machine.space.size / PAGE;
        let gfns: Vec<u64> = (0..self.random.usize(1..=8))
            .map(|_| self.random.u64(DATA / PAGE..end))
            .collect();
        let words = gfns.iter().map(|gfn| (gfn * PAGE) as u32).chain([0]);
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        self.machine.space.write(pages::SMM_LIST, &bytes)?;
        // One at a time: they all save their state to the same place.
        let vcpu = chosen[self.random.usize(0..chosen.len())];
        self.vcpus[vcpu].smi()?;
        let mut touched = vec![
            (pages::SMM_CODE / PAGE, Touch::Read),
            (pages::SMM_LIST / PAGE, Touch::Read),
        ];
        touched.extend(gfns.iter().map(|&gfn| (gfn, Touch::Write)));
        Ok(touched)
    }

    /// What vCPUs touch all the time while they wait in the guest.
    fn free_what_spins(&self, truth: &mut Truth) {
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.spins()) {
            for (gfn, _) in self.own(vcpu, 0) {
                self.free_with_tables(truth, gfn);
            }
        }
    }

    fn free_with_tables(&self, truth: &mut Truth, gfn: u64) {
        truth.free(gfn);
        if let Some(tables) = self.machine.tables() {
            let walked = tables.walk(gfn).into_iter().chain(tables.kept());
            walked.for_each(|table| truth.free(table));
        }
    }

    /// Pages in one of several patterns, some of them touched before.
    fn random_list(&mut self) -> Vec<(u64, Touch)> {
        let random = &mut self.random;
        let spare = self.machine.slot(MOVING);
        let data = if random.u32(0..6) == 0 {
            spare.gfn..spare.gfn + spare.pages
        } else {
            DATA / PAGE..self.machine.space.size / PAGE
        };
        let length = data.end - data.start;
        let count = random.u64(1..=self.args.pages) >> random.u32(0..4);
        let start = random.u64(0..length);
        let step = match random.u32(0..4) {
            0 => 1,
            1 => random.u64(2..=64),
            2 => CHUNK,
            _ => 0,
        };
        let mut gfns: Vec<u64> = (0..count.max(1))
            .map(|n| match step {
                0 => data.start + random.u64(0..length),
                _ => data.start + (start + n * step) % length,
            })
            .collect();
        let moved = |gfn: &u64| *gfn < self.machine.space.size / PAGE;
        self.recent
            .retain(|gfn| moved(gfn) || (spare.gfn..spare.gfn + spare.pages).contains(gfn));
        for gfn in &mut gfns {
            if !self.recent.is_empty() && random.u32(0..3) == 0 {
                *gfn = self.recent[random.usize(0..self.recent.len())];
            }
        }
        self.recent.extend(&gfns);
        let excess = self.recent.len().saturating_sub(2000);
        self.recent.drain(..excess);
        let kinds = random.u32(0..4);
        gfns.into_iter()
            .map(|gfn| {
                let touch = match (kinds, random.u32(0..3)) {
                    (0, _) | (3, 0) => Touch::Read,
                    (1, _) | (3, 1) => Touch::Write,
                    _ => Touch::Both,
                };
                (gfn, touch)
            })
            .collect()
    }

    fn between_passes(&mut self) -> Result<()> {
        if self.does(Disturb::Memslots) && self.random.bool() {
            self.change_slots()?;
        }
        if self.does(Disturb::Balloon) && self.random.bool() {
            discard(&self.machine, &mut self.random)?;
        }
        if self.does(Disturb::ToggleLog) && !self.args.huge && self.random.u32(0..3) == 0 {
            self.toggle_log()?;
        }
        Ok(())
    }

    /// Moves a slot, or deletes and adds one. No guest uses it meanwhile.
    fn change_slots(&mut self) -> Result<()> {
        // With the slot goes its log.
        self.check_log("before a slot is changed")?;
        let _guard = self.log.as_ref().map(|log| lock(&log.harvested));
        if self.random.bool() {
            let places = (REACH / SPARE) - 2;
            let place = self.machine.space.size + SPARE * self.random.u64(1..=places);
            return self.machine.relocate(MOVING, place / PAGE);
        }
        self.machine.delete(HALF)?;
        self.machine.add(HALF)
    }

    fn toggle_log(&mut self) -> Result<()> {
        self.check_log("before it is switched")?;
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let mut harvested = lock(&log.harvested);
        log.on = !log.on;
        self.machine.log(log.on)?;
        harvested.clear();
        // Huge pages are split now, and not some time later.
        harvested.extend(log.mode.harvest(&self.machine, false)?);
        Ok(())
    }

    /// Everything written to is in the dirty log.
    fn check_log(&mut self, when: &str) -> Result<()> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let missing = log.missing(&self.machine)?;
        log.written.clear();
        if !missing.is_empty() {
            let gfns: Vec<_> = missing
                .iter()
                .take(16)
                .map(|gfn| format!("{gfn:#x}"))
                .collect();
            self.differences.push(format!(
                "DIRTY LOG {} lacks {} pages {when}: {}",
                log.mode.name(),
                missing.len(),
                gfns.join(" ")
            ));
        }
        Ok(())
    }

    fn between_rounds(&mut self) -> Result<()> {
        let room = self.vcpus.len() < self.args.vcpus as usize;
        if self.does(Disturb::Hotplug) && room && self.random.bool() {
            self.add_vcpu()?;
        }
        if self.does(Disturb::Pause) && self.random.bool() {
            thread::sleep(Duration::from_millis(3 * self.args.period()));
        }
        if self.does(Disturb::Restart) && self.random.bool() {
            // What one run has logged last is no part of the next.
            if self.random.bool() {
                self.pass(&mut Truth::default())?;
            }
            self.tracking.set("active", 0)?;
            if self.random.bool() {
                self.pass(&mut Truth::default())?;
            }
            self.start()?;
            if self.first && !self.args.spin && self.random.bool() {
                self.first = false;
                let written = self.tracking.ended(0)?.get("written")?;
                if written > 0 {
                    self.differences.push(format!(
                        "{written} pages are written after a start, and no vCPU has run"
                    ));
                }
            }
        }
        if self.does(Disturb::ToggleLog) && self.args.huge && self.random.u32(0..3) != 0 {
            // Splits huge pages that are dirty. Not between passes: what was
            // written to before is known of a huge page as a whole only.
            self.pass(&mut Truth::default())?;
            self.toggle_log()?;
            self.first = false;
        }
        if self.does(Disturb::Parameters) && self.random.bool() {
            self.set_parameters()?;
        }
        Ok(())
    }
}

/// Gives some of the data back to the host, at random.
fn discard(machine: &Machine, random: &mut fastrand::Rng) -> Result<()> {
    let data = DATA / PAGE..machine.space.size / PAGE;
    let first = random.u64(data.clone());
    let count = random.u64(1..=2 * CHUNK) >> random.u32(0..8);
    machine
        .space
        .discard(first, count.clamp(1, data.end - first))
}

/// What does not agree between the two files.
fn contradictions(estimate: &Estimate, pages: &Pages) -> Result<Vec<String>> {
    let threshold = pages.threshold.min(pages.intervals).max(1);
    let (mut written, mut tables, mut read, mut huge) = (0, 0, 0, 0);
    for chunk in &pages.chunks {
        for (index, &count) in chunk.count.iter().enumerate() {
            let belongs = u64::from(u32::from(count) >= threshold);
            if chunk.table(index) {
                tables += belongs;
            } else {
                written += belongs;
            }
            read += u64::from(pages.reads && chunk.read(index));
        }
        huge += u64::from(chunk.huge && u32::from(chunk.count[0]) >= threshold);
    }
    let mut lines = Vec::new();
    for (name, expected) in [
        ("intervals", pages.intervals.into()),
        ("threshold", pages.threshold.into()),
        ("reads", pages.reads.into()),
        ("written", written),
        ("tables", tables),
        ("read_set", read),
        ("huge", huge),
        ("lost", 0),
        ("unmapped_lost", 0),
        ("nested_runs", 0),
    ] {
        let got = estimate.get(name)?;
        if got != expected {
            lines.push(format!(
                "estimate says {name} {got}, pages make it {expected}"
            ));
        }
    }
    Ok(lines)
}
