// SPDX-License-Identifier: GPL-2.0

//! Guests that access known pages in known ways, all the time, against what the
//! kernel's sampler says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::logs::Mode;
use crate::machine::{
    now, process_time, Machine, Runner, Shape, Space, BYSTANDER, MOVING, REACH, SPARE,
};
use crate::pages::{self, Program, Touch, DATA, ENTRY, MAX_VCPUS, PAGE, RETURN};
use crate::paging::Paging;
use crate::sampling::{
    Config, Record, Ring, Session, Stats, EXEC, RANDOM, READ, SWEEP, TABLE, WRITE,
};
use crate::tracking::Tracking;

/// Compare samples with what a guest really does
///
/// The guest has so many pages that it only reads, as many that it writes, executes,
/// or reads and then writes, and as many that it touched once and leaves alone from
/// then on. Prints a line for each kind of sample that cannot be, then `sample taken
/// N data N found F of P false E chi Z rate R spent_ppm S` and the session's
/// counters: samples of such pages, how many of the pages were found and of how
/// many, by how much the samples' distribution over the pages is less uniform than
/// chance makes it, in 1/1000 of a standard deviation, samples per second, and the share of the guest's time.
/// Fails when there is a sample of a page that was not accessed, or not so; when a
/// page was not found; and when the counters do not add up.
#[derive(clap::Args)]
pub struct Args {
    /// Only say whether accesses can be sampled here: `sample supported` or `sample
    /// unsupported`
    #[arg(long)]
    probe: bool,
    /// Take no samples, but print `page GFN KINDS` for each page that is accessed, for
    /// others to sample, and `running PID`, and go on for as long as it is told
    #[arg(long)]
    only_run: bool,
    /// How pages are chosen
    #[arg(long, value_enum, default_value = "random")]
    strategy: Strategy,
    /// Kinds of accesses to ask for: letters of rwx
    #[arg(long, value_name = "KINDS", default_value = "rwx", value_parser = kinds)]
    access: u8,
    /// Samples per second
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u32,
    /// Millionths of the guest's time that sampling may cost
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    budget: u32,
    /// For how long; up to ten times as long while nothing was sampled, or else happened;
    /// without --some, while pages have not been found for want of samples
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    within: u64,
    /// Pages of each kind, for each vCPU
    #[arg(long, value_name = "P", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=2000))]
    pages: u64,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    memory: u64,
    /// vCPUs
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// Guests in 64-bit mode, with page tables
    #[arg(long)]
    long: bool,
    /// Memory in huge pages: a page in each is found, rather than all
    #[arg(long, conflicts_with = "long")]
    huge: bool,
    /// The rate must be within 5 % of what is asked for
    #[arg(long)]
    steady: bool,
    /// The samples must be uniform over the pages, by a chi-squared test
    #[arg(long)]
    uniform: bool,
    /// Not every page need be found
    #[arg(long)]
    some: bool,
    /// Records in the ring, a power of two; 0: the kernel's default
    #[arg(long, value_name = "N", default_value_t = 0)]
    ring: u32,
    /// Take the samples out of the ring in memory, and now and then by read(2), which
    /// must give the same
    #[arg(long)]
    mapped: bool,
    /// Look only now and then: samples must be lost for lack of room, and counted
    #[arg(long)]
    lossy: bool,
    /// What else happens, separated by commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    with: Vec<With>,
    /// Seed of the random pages
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// How many times as long as it was told a guest is sampled.
const PATIENCE: u64 = 10;

/// So many samples for each page there is to find find all: of 400 pages, all but one time
/// in 400.
const ENOUGH: u64 = 12;

/// Pages that are merged, for that to have happened.
const MERGED: u64 = 20;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Strategy {
    /// A page in each 2 MiB in turn
    Sweep,
    /// Any page
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum With {
    /// A dirty log is read all the time, and must have every page that is written
    DirtyLog,
    /// The working set is tracked
    Tracking,
    /// The process forks all the time
    Fork,
    /// The memory may be merged with equal pages (KSM)
    Merge,
    /// Memslots are added, moved and deleted
    Memslots,
    /// The parameters change
    Parameters,
}

fn kinds(text: &str) -> Result<u8, String> {
    let mut access = 0;
    for letter in text.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'x' => EXEC,
            _ => return Err(format!("'{letter}' is none of rwx")),
        };
    }
    Ok(access)
}

/// Samples, and compares.
pub fn run(args: &Args) -> Result<()> {
    let space = Arc::new(Space::new(args.memory << 20, args.huge)?);
    if args.huge {
        ensure!(space.fill()?, "the host has no huge pages for the guest");
    }
    let shape = Shape {
        paging: args.long.then_some(Paging::Long),
        ..Shape::default()
    };
    let machine = Arc::new(Machine::new(space, shape)?);
    if args.probe {
        let probe = Session::start(Config::of(std::process::id(), machine.fd.as_raw_fd()));
        let word = match probe {
            Ok(_) => "supported",
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => "unsupported",
            Err(error) => return Err(error).context("starting a session"),
        };
        writeln!(io::stdout(), "sample {word}")?;
        return Ok(());
    }

    let mut guest = Guest::new(args, machine)?;
    guest.go()?;
    if args.only_run {
        let mut out = io::stdout().lock();
        for (gfn, known) in &guest.uses {
            writeln!(out, "page {gfn:x} {:x}", known.access)?;
        }
        writeln!(out, "running {}", std::process::id())?;
        out.flush()?;
        thread::sleep(Duration::from_millis(args.within));
        return guest.come_to_rest().map(drop);
    }
    let outcome = sampled(args, &guest)?;
    let stamped = guest.come_to_rest()?;
    report(args, &guest, &outcome, stamped)
}

/// What a page is for, and whose.
#[derive(Clone, Copy, Debug)]
struct Use {
    access: u8,
    vcpu: Option<u32>,
    /// Of those that the test is about.
    data: bool,
}

struct Guest {
    machine: Arc<Machine>,
    vcpus: Vec<Runner>,
    lists: Vec<Vec<(u64, Touch)>>,
    uses: BTreeMap<u64, Use>,
    tables: std::ops::Range<u64>,
}

impl Guest {
    /// A guest that has touched all its pages once.
    fn new(args: &Args, machine: Arc<Machine>) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(args.seed);
        let all = DATA / PAGE..machine.space.size / PAGE;
        let each = args.pages as usize;
        ensure!(
            (all.end - all.start) as usize >= 10 * each * args.vcpus as usize,
            "so many pages do not fit: give it more --memory"
        );
        let mut uses = BTreeMap::new();
        let mut other = |gfn: u64, access: u8, vcpu| {
            uses.insert(
                gfn,
                Use {
                    access,
                    vcpu,
                    data: false,
                },
            );
        };
        other(pages::CODE / PAGE, EXEC, None);
        for v in 0..args.vcpus {
            other(pages::control(v) / PAGE, READ | WRITE, Some(v));
            for page in 0..pages::list(1) - pages::list(0) {
                other((pages::list(v) + page * PAGE) / PAGE, READ, Some(v));
                if page * PAGE >= 4 * pages::LIST_ENTRIES as u64 {
                    break;
                }
            }
        }

        let mut free: Vec<u64> = all.collect();
        random.shuffle(&mut free);
        let mut lists = Vec::new();
        let mut vcpus = Vec::new();
        for v in 0..args.vcpus {
            let mut list = Vec::new();
            for (touch, access) in [
                (Touch::Read, READ),
                (Touch::Write, WRITE),
                (Touch::Execute, EXEC),
                (Touch::Both, READ | WRITE),
            ] {
                for gfn in free.split_off(free.len() - each) {
                    let vcpu = Some(v);
                    uses.insert(
                        gfn,
                        Use {
                            access,
                            vcpu,
                            data: true,
                        },
                    );
                    list.push((gfn, touch));
                    machine.space.write(gfn * PAGE + ENTRY, &RETURN)?;
                }
            }
            let mut once = list.clone();
            for gfn in free.split_off(free.len() - each) {
                once.push((gfn, Touch::Both));
            }
            let mut vcpu = machine.vcpu(v, Program::Sweep)?;
            vcpu.list(&once)?;
            vcpu.order()?;
            vcpu.finish()?;
            random.shuffle(&mut list);
            lists.push(list);
            vcpus.push(vcpu);
        }
        let tables = machine.tables().map_or(0..0, |tables| tables.gfns());
        Ok(Self {
            machine,
            vcpus,
            lists,
            uses,
            tables,
        })
    }

    /// Has it go on and on.
    fn go(&mut self) -> Result<()> {
        for (vcpu, list) in self.vcpus.iter_mut().zip(&self.lists) {
            vcpu.list(list)?;
            vcpu.set(pages::REPEAT, 1)?;
            vcpu.order()?;
        }
        Ok(())
    }

    /// Has it make a last pass, and returns whether what it wrote there is what is in
    /// its memory.
    fn come_to_rest(&mut self) -> Result<bool> {
        for vcpu in &mut self.vcpus {
            vcpu.set(pages::REPEAT, 0)?;
            vcpu.finish()?;
        }
        let mut right = true;
        for (vcpu, list) in self.vcpus.iter_mut().zip(&self.lists) {
            vcpu.order()?;
            vcpu.finish()?;
            let stamp = vcpu.get(pages::STAMP)?;
            for &(gfn, touch) in list {
                if matches!(touch, Touch::Write | Touch::Both) {
                    right &= self.machine.space.get(gfn * PAGE)? == stamp;
                }
            }
        }
        Ok(right)
    }

    fn written(&self) -> BTreeSet<u64> {
        self.lists
            .iter()
            .flatten()
            .filter(|(_, touch)| matches!(touch, Touch::Write | Touch::Both))
            .map(|&(gfn, _)| gfn)
            .collect()
    }

    /// Why a sample cannot be, if it cannot.
    fn fault(&self, record: &Record, asked: u8, level: &[u8]) -> Option<&'static str> {
        if record.access & asked == 0 || record.access.count_ones() != 1 {
            return Some("of a kind not asked for");
        }
        if !level.contains(&record.level) {
            return Some("of a level that there is none of");
        }
        if record.flags & TABLE != 0 {
            let is_table = self.tables.contains(&record.gfn) && record.access == READ;
            return (!is_table).then_some("of a page table that is none");
        }
        let Some(known) = self.uses.get(&record.gfn) else {
            return Some("of a page that is not accessed");
        };
        if known.access & record.access == 0 {
            return Some("of a page that is not accessed so");
        }
        if known.vcpu.is_some_and(|v| v != record.vcpu) {
            return Some("of another vCPU's page");
        }
        None
    }
}

#[derive(Default)]
struct Outcome {
    stats: Stats,
    counts: BTreeMap<u64, u64>,
    leaves: BTreeSet<u64>,
    huge: u64,
    records: u64,
    wrong: BTreeMap<&'static str, Vec<Record>>,
    rate: u64,
    /// CPU time of this process, which is the vCPUs' but for a little.
    cpu_ns: u64,
    periods: u64,
    disturbed: u64,
    /// Pages that KSM had merged at the end.
    merged: u64,
    log_lacks: u64,
    set_lacks: u64,
}

fn config(args: &Args, machine: &Machine) -> Config {
    Config {
        strategy: match args.strategy {
            Strategy::Sweep => SWEEP,
            Strategy::Random => RANDOM,
        },
        access: args.access.into(),
        rate: args.rate,
        budget_ppm: args.budget,
        ring_records: args.ring,
        ..Config::of(std::process::id(), machine.fd.as_raw_fd())
    }
}

fn sampled(args: &Args, guest: &Guest) -> Result<Outcome> {
    let machine = &guest.machine;
    let tracking = match args.with.contains(&With::Tracking) {
        true => {
            let tracking = Tracking::here(machine.fd.as_raw_fd())?;
            // Some passes over all pages.
            tracking.set("period_ms", 400)?;
            tracking.set("intervals", 2)?;
            ensure!(tracking.start()?, "working sets cannot be tracked here");
            Some(tracking)
        }
        false => None,
    };
    if args.with.contains(&With::Merge) {
        machine.space.mergeable()?;
    }
    let over = AtomicBool::new(false);
    let written = &guest.written();
    let counters = [AtomicU64::new(0), AtomicU64::new(0)];
    let mut outcome = thread::scope(|scope| {
        let (over, counters) = (&over, &counters);
        let helpers: Vec<_> = args
            .with
            .iter()
            .map(|&what| scope.spawn(move || disturb(what, args, machine, written, over, counters)))
            .collect();
        let outcome = watch(args, guest, &counters[0]);
        over.store(true, Ordering::Relaxed);
        for helper in helpers {
            helper
                .join()
                .unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        outcome
    })?;
    let [disturbed, log_lacks] = counters.map(AtomicU64::into_inner);
    outcome.disturbed += disturbed;
    outcome.log_lacks = log_lacks;
    if let Some(tracking) = tracking {
        outcome.periods = tracking.estimate()?.get("period")?;
        outcome.set_lacks = set_lacks(guest, &tracking)?;
    }
    Ok(outcome)
}

/// Samples, while others disturb it, so often.
fn watch(args: &Args, guest: &Guest, others: &AtomicU64) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let config = config(args, &guest.machine);
    // The first samples come before the call returns.
    let began = now();
    let mut session = Session::start(config).context("starting a session")?;
    let ring = match args.mapped {
        true => Some(Ring::map(&session).context("mapping the ring")?),
        false => None,
    };
    ensure!(
        session.slots()?.iter().map(|slot| slot.pages).sum::<u64>()
            == guest.machine.space.whole() / PAGE
            || args.with.contains(&With::Memslots),
        "the memory slots are not the machine's"
    );
    let wanted = wanted(args, guest);
    let settles = args.within / 4 * 1_000_000;
    let (start, cpu) = (now(), process_time());
    let (mut before, mut next) = (None, 0);
    let mut last_time = 0;
    loop {
        let t = now();
        if before.is_none() && t - start >= settles {
            before = Some((t, session.stats()?.taken));
        }
        let time = (t - start) / 1_000_000;
        if time >= args.within {
            let (found, of) = found(args, &wanted, &outcome);
            let enough = outcome.counts.values().sum::<u64>() >= ENOUGH * of as u64;
            let all = args.some || found == of || enough;
            // On a machine that has no time, nothing may have happened yet.
            outcome.merged = merged();
            let disturbed = outcome.disturbed + others.load(Ordering::Relaxed);
            let any = !outcome.counts.is_empty() && happened(args, disturbed, outcome.merged);
            if all && any || time >= PATIENCE * args.within {
                break;
            }
        }
        let records = match &ring {
            None => session.read(256)?,
            Some(ring) => {
                let records = ring.peek();
                if outcome.records % 3 == 0 {
                    let read = session.read(records.len().max(1))?;
                    ensure!(
                        read.len() >= records.len() && read[..records.len()] == records,
                        "read(2) and the ring differ"
                    );
                    take(args, guest, &mut outcome, &read[records.len()..]);
                } else {
                    ring.consume(records.len() as u64);
                }
                records
            }
        };
        for record in &records {
            ensure!(
                record.sequence >= next && record.time_ns >= last_time,
                "samples are out of order: {record:?}"
            );
            next = record.sequence + 1;
            last_time = record.time_ns;
            ensure!(
                (began..=now()).contains(&record.time_ns),
                "a sample's time is wrong: {record:?}"
            );
        }
        take(args, guest, &mut outcome, &records);
        if args.lossy {
            // A kernel that watches itself may take longer to fill the ring.
            thread::sleep(Duration::from_millis(100));
            while !lost(args, &session)? && now() - start < PATIENCE * args.within * 1_000_000 {
                thread::sleep(Duration::from_millis(100));
            }
        } else if records.is_empty() {
            thread::sleep(Duration::from_millis(2));
        }
        if args.with.contains(&With::Parameters) && outcome.records % 7 == 0 {
            let rate = args.rate.max(4) / (1 + outcome.records as u32 % 3);
            session.change(Config { rate, ..config })?;
            outcome.disturbed += 1;
        }
    }
    let (t, taken) = before.context("it was over before it began")?;
    let stats = session.stats()?;
    outcome.rate = (stats.taken - taken) * 1_000_000_000 / (now() - t);
    // What came since the last look.
    loop {
        let rest = session.read(256)?;
        if rest.is_empty() {
            break;
        }
        take(args, guest, &mut outcome, &rest);
    }
    outcome.stats = session.stats()?;
    outcome.cpu_ns = process_time() - cpu;
    session.stop()?;
    Ok(outcome)
}

fn take(args: &Args, guest: &Guest, outcome: &mut Outcome, records: &[Record]) {
    let level: &[u8] = if args.huge { &[1, 2] } else { &[1] };
    for record in records {
        outcome.records += 1;
        outcome.huge += u64::from(record.level == 2);
        if let Some(why) = guest.fault(record, args.access, level) {
            outcome.wrong.entry(why).or_default().push(*record);
        } else if guest.uses.get(&record.gfn).is_some_and(|u| u.data) {
            *outcome.counts.entry(record.gfn).or_default() += 1;
            outcome.leaves.insert(record.gfn / 512);
        }
    }
}

/// Does one of the other things, and counts how often, and what a log lacked.
fn disturb(
    what: With,
    args: &Args,
    machine: &Machine,
    written: &BTreeSet<u64>,
    over: &AtomicBool,
    [count, lacks]: &[AtomicU64; 2],
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(args.seed ^ 0x6469_7374);
    if what == With::DirtyLog {
        machine.log(true)?;
        Mode::Bitmap.harvest(machine, true)?;
    }
    let mut present = true;
    while !over.load(Ordering::Relaxed) {
        match what {
            With::DirtyLog => {
                if !passes(args, machine, over)? {
                    continue;
                }
                let logged: BTreeSet<u64> =
                    Mode::Bitmap.harvest(machine, true)?.into_iter().collect();
                lacks.fetch_add(
                    written.difference(&logged).count() as u64,
                    Ordering::Relaxed,
                );
            }
            With::Fork => {
                thread::sleep(Duration::from_millis(random.u64(1..20)));
                fork()?;
            }
            With::Memslots => {
                thread::sleep(Duration::from_millis(random.u64(1..20)));
                present = !present;
                if present {
                    machine.add(BYSTANDER)?;
                } else {
                    machine.delete(BYSTANDER)?;
                }
                let place = random.u64(1..REACH / SPARE - 2) * SPARE;
                machine.relocate(MOVING, (machine.space.size + place) / PAGE)?;
            }
            With::Tracking | With::Merge | With::Parameters => {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    if what == With::DirtyLog {
        machine.log(false)?;
    }
    Ok(())
}

/// Of the last period's working set, the pages that it has wrong: the guest uses all of
/// its own in each.
fn set_lacks(guest: &Guest, tracking: &Tracking) -> Result<u64> {
    let set = tracking.pages()?.context("no period has ended")?;
    let written = guest.written();
    let is_wrong = |gfn: u64| (set.count(gfn) > 0, set.read(gfn)) != (written.contains(&gfn), true);
    let data = guest.uses.iter().filter(|(_, uses)| uses.data);
    Ok(data.filter(|(&gfn, _)| is_wrong(gfn)).count() as u64)
}

/// Waits until each vCPU has made a whole pass, in which every page is written, and has
/// left its guest since: only then has the log what the CPU has logged (PML). Returns
/// whether it did before it was over.
fn passes(args: &Args, machine: &Machine, over: &AtomicBool) -> Result<bool> {
    let made = |vcpu| machine.space.get(pages::control(vcpu) + pages::MADE);
    let left = |vcpu| exits(machine, vcpu);
    // Of either, the first may have been in the middle of it.
    Ok(advances(args, &made, over)? && advances(args, &left, over)?)
}

/// Waits until a number of each vCPU has grown by two.
fn advances(args: &Args, number: &dyn Fn(u32) -> Result<u32>, over: &AtomicBool) -> Result<bool> {
    let before = (0..args.vcpus).map(number).collect::<Result<Vec<_>>>()?;
    for (vcpu, before) in (0..args.vcpus).zip(before) {
        while number(vcpu)?.wrapping_sub(before) < 2 {
            if over.load(Ordering::Relaxed) {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(true)
}

/// How often a vCPU has left its guest.
fn exits(machine: &Machine, vcpu: u32) -> Result<u32> {
    let (pid, fd) = (std::process::id(), machine.fd.as_raw_fd());
    let path = format!("/sys/kernel/debug/kvm/{pid}-{fd}/vcpu{vcpu}/scope/exits");
    let table = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let counts = table.lines().filter_map(|line| {
        let count = line.split_ascii_whitespace().nth(2)?;
        count.parse::<u64>().ok()
    });
    Ok(counts.sum::<u64>() as u32)
}

/// A child that has all our memory for a moment.
fn fork() -> Result<()> {
    // SAFETY: The child calls nothing but what may be called in the copy of a process
    // that had several threads.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()).context("fork failed"),
        0 => {
            // SAFETY: As above.
            unsafe {
                libc::usleep(3000);
                libc::_exit(0)
            }
        }
        _ => {
            let mut status = 0;
            // SAFETY: `status` is there to be written to.
            let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
            ensure!(waited == pid, "a child is gone unwaited for");
            Ok(())
        }
    }
}

/// How much more uneven than chance makes it, in 1/1000 of a standard deviation, by
/// the normal approximation of chi-squared. It may be less, for a page that was taken
/// away is not taken away again before it is accessed.
fn unevenness(counts: &[u64]) -> u64 {
    let bins = counts.len() as f64;
    let mean = counts.iter().sum::<u64>() as f64 / bins;
    let chi = counts
        .iter()
        .map(|&count| (count as f64 - mean).powi(2) / mean)
        .sum::<f64>();
    let freedom = (bins - 1.0).max(1.0);
    ((chi - freedom) / (2.0 * freedom).sqrt() * 1000.0) as u64
}

/// The pages that are to be found.
fn wanted(args: &Args, guest: &Guest) -> Vec<u64> {
    guest
        .uses
        .iter()
        .filter(|(_, u)| u.data && u.access & args.access != 0)
        // What is read first is seen to be read, and mapped for writes as well.
        .filter(|(_, u)| {
            u.access.count_ones() == 1 || args.access & READ != 0 || args.access == WRITE
        })
        .map(|(&gfn, _)| gfn)
        .collect()
}

/// How many have been, and of how many; huge pages, where there are.
fn found(args: &Args, wanted: &[u64], outcome: &Outcome) -> (usize, usize) {
    if args.huge {
        let leaves: BTreeSet<u64> = wanted.iter().map(|gfn| gfn / 512).collect();
        return (outcome.leaves.len(), leaves.len());
    }
    let found = wanted.iter().filter(|gfn| outcome.counts.contains_key(gfn));
    (found.count(), wanted.len())
}

/// Pages that share the memory of an equal one.
fn merged() -> u64 {
    let pages = fs::read_to_string("/sys/kernel/mm/ksm/pages_sharing").unwrap_or_default();
    pages.trim().parse().unwrap_or(0)
}

/// Whether what else is to happen has, by how often our own was done.
fn happened(args: &Args, disturbed: u64, merged: u64) -> bool {
    args.with.iter().all(|what| match what {
        With::Tracking => true,
        With::Merge => merged >= MERGED,
        _ => disturbed > 0,
    })
}

/// Whether samples were lost, if they are to be.
fn lost(args: &Args, session: &Session) -> Result<bool> {
    Ok(!args.lossy || session.stats()?.lost > 0)
}

fn report(args: &Args, guest: &Guest, outcome: &Outcome, stamped: bool) -> Result<()> {
    let wanted = wanted(args, guest);
    let counts: Vec<u64> = wanted
        .iter()
        .map(|gfn| outcome.counts.get(gfn).copied().unwrap_or(0))
        .collect();
    let (found, of) = found(args, &wanted, outcome);
    let mut out = io::stdout().lock();
    for (why, records) in &outcome.wrong {
        writeln!(
            out,
            "{why} ({}): {:x?}",
            records.len(),
            &records[..records.len().min(4)]
        )?;
    }
    let wrong: usize = outcome.wrong.values().map(Vec::len).sum();
    let chi = unevenness(&counts);
    let stats = &outcome.stats;
    writeln!(
        out,
        "sample taken {} data {} found {found} of {of} false {wrong} chi {chi} rate {} asked {} \
         rate_now {} spent_ppm {} armed {} filtered {} disarmed {} delivered {} lost {} batches {} \
         flushes {} fault_ns {} periods {} disturbed {} log_lacks {} set_lacks {} merged {} huge {}",
        stats.taken,
        counts.iter().sum::<u64>(),
        outcome.rate,
        args.rate,
        stats.rate_now,
        stats.spent_ns.saturating_mul(1_000_000) / outcome.cpu_ns.max(1),
        stats.armed,
        stats.filtered,
        stats.disarmed,
        stats.delivered,
        stats.lost,
        stats.batches,
        stats.flushes,
        stats.spent_ns / stats.taken.max(1),
        outcome.periods,
        outcome.disturbed,
        outcome.log_lacks,
        outcome.set_lacks,
        outcome.merged,
        outcome.huge,
    )?;
    ensure!(wrong == 0, "{wrong} samples are false");
    ensure!(
        !args.huge || outcome.huge > 0,
        "there is no sample of a huge page"
    );
    ensure!(stamped, "the memory does not have what the guest wrote");
    ensure!(outcome.log_lacks == 0, "the dirty log lacks pages");
    ensure!(outcome.set_lacks == 0, "the working set has pages wrong");
    ensure!(
        stats.taken == stats.delivered + stats.lost + stats.waiting
            && stats.delivered == outcome.records,
        "the counts do not add up: {stats:?}, and there were {} records",
        outcome.records
    );
    ensure!(
        stats.armed >= stats.taken + stats.filtered + stats.disarmed,
        "more came than was armed: {stats:?}"
    );
    ensure!(
        args.lossy || stats.lost == 0,
        "{} samples were lost",
        stats.lost
    );
    ensure!(
        !args.lossy || stats.lost > 0,
        "there was room for all samples"
    );
    ensure!(found > 0, "no page was found");
    ensure!(
        args.some || found == of,
        "{} pages were never found",
        of - found
    );
    ensure!(
        happened(args, outcome.disturbed, outcome.merged),
        "nothing else happened"
    );
    ensure!(!args.uniform || chi < 5000, "the samples are not uniform");
    let off = outcome.rate.abs_diff(args.rate.into()) * 100;
    ensure!(
        !args.steady || off <= u64::from(args.rate) * 5,
        "the rate is {}, not {}",
        outcome.rate,
        args.rate
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_letters() {
        assert_eq!(kinds("rwx"), Ok(7));
        assert_eq!(kinds("w"), Ok(2));
        assert!(kinds("q").is_err());
    }

    #[test]
    fn what_is_uneven_shows() {
        let even: Vec<u64> = (0..200).map(|n| 50 + n * 7 % 15 - 7).collect();
        assert!(unevenness(&even) < 12_000);
        let mut uneven = vec![50; 200];
        uneven[..20].fill(100);
        assert!(unevenness(&uneven) > 20_000);
    }
}
