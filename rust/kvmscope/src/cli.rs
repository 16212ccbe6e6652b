// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{value_parser, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::filter::{Filter, Pattern};
use crate::heatmap::heat::Tables;
use crate::sample::columns::Order;
use crate::sample::sample::Access;
use crate::sample::session::{Setup as SampleSetup, Strategy};
use crate::sample::target::Target;
use crate::sample::wanted::Wanted;
use crate::tier::policy::Rules;
use crate::view::{By, Sort};
use crate::wss::knobs::Setup;
use crate::wss::which::Which;

#[derive(Parser)]
#[command(
    name = "kvmscope",
    version,
    about = "Why KVM's guests exit, what each exit costs, and which memory they work with",
    after_help = "\
Examples:
  kvmscope dump                    every reason seen since the last reset
  kvmscope stat                    a live table, like top
  kvmscope stat --latency          the same, with what exits cost
  kvmscope stat --by vm            which VM is it?
  kvmscope record run.kvmscope     write down, and elsewhere:
  kvmscope report run.kvmscope     look at it
  kvmscope wss                     how much memory each VM works with
  kvmscope heatmap --vm web        which memory, and when
  kvmscope sample 812 --heat       which memory is hot now
  kvmscope tier 812                keep that on the fast NUMA node

Run it as root: the kernel's tables are in debugfs. `kvmscope help COMMAND` has
more examples."
)]
pub struct Cli {
    /// Look for /sys and /proc in DIR
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/",
        hide = true
    )]
    pub root: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Print what was counted until now
    #[command(after_help = "\
By reason and without a filter of VMs, this is the machine's table since the last reset,
VMs that have ended included. Otherwise it is that of VMs that still run, since each was
created: a reset leaves their counts as they are, and only has their times start anew. Of
a time between, `stat --once --interval 10` says what happened.

Examples:
  kvmscope dump
  kvmscope dump --by vm
  kvmscope dump --vm web --sort time
  kvmscope dump --vm 812-11 --vcpu 0 --reason 'EPT|CPUID'
  kvmscope dump --json | jq '.rows[] | select(.reason == \"HLT\").exits'")]
    Dump(Dump),
    /// Show what is being counted, live
    #[command(after_help = "\
The table counts from when the command was started; Rate/s is of the last
interval. Where standard output is no terminal, a table of each interval is
printed instead. In the live table, h explains the keys.

Examples:
  kvmscope stat
  kvmscope stat --once --interval 10
  kvmscope stat --latency --by vcpu --pid 812
  kvmscope stat --json | jq -c '.rows[0]'
  kvmscope stat --csv exits.csv
  kvmscope stat --prometheus 9108 --latency")]
    Stat(Stat),
    /// Write what is counted to a file, for `kvmscope report`
    #[command(after_help = "\
A recording holds every VM and vCPU; filters are for `kvmscope report`. Ctrl-C
ends it.

Examples:
  kvmscope record run.kvmscope
  kvmscope record --latency --duration 60 run.kvmscope
  kvmscope record - | ssh desk 'cat > run.kvmscope'")]
    Record(Record),
    /// Print what a file holds, on any machine
    #[command(after_help = "\
The table is of all that happened between the first and the last snapshot; --csv
has a row for each interval, to plot.

Examples:
  kvmscope report run.kvmscope
  kvmscope report --by vm --sort time run.kvmscope
  kvmscope report --csv run.csv --by all run.kvmscope")]
    Report(Report),
    /// Show the memory that VMs work with: their working sets
    #[command(after_help = "\
A period is cut into sub-intervals, and a page that was written in at least as many
of them as the threshold says belongs to the written set. The read set is the pages
that were written or read at all. Page tables of the guest, which its CPU writes by
itself, are told apart. Pages have 4 KiB.

Parameters that are not given are left as they are; afterwards all are as they were,
and tracking is off. A VM that is tracked already is watched as it is. Percentiles
are of nearest rank: each is a value that occurred.

Examples:
  kvmscope wss
  kvmscope wss web db --period 5 --intervals 20 --threshold 2
  kvmscope wss --once --json | jq '.written * 4096'
  kvmscope wss --duration 3600 --percentiles
  kvmscope wss --vm web --duration 60 --record run.wss
  kvmscope wss --from run.wss --csv -")]
    Wss(Wss),
    /// Draw which memory VMs work with: addresses against time
    #[command(after_help = "\
The shade is the share of sub-intervals in which pages were written, or with --reads
the share of pages that were accessed; the scale is logarithmic, and only what was
not touched at all has none. Memory that nobody touched is left out, and marked.

Examples:
  kvmscope heatmap --vm web --duration 60 --period 1
  kvmscope wss --vm web --duration 600 --record run.wss
  kvmscope heatmap --from run.wss
  kvmscope heatmap --from run.wss --reads --png run.png
  kvmscope heatmap --from /sys/kernel/debug/kvm/812-11/scope/wss/pages")]
    Heatmap(Heatmap),
    /// Sample the accesses of a guest to its memory
    #[command(after_help = "\
Pages lose their access, by the VM's extended page tables, and the first access to
each is a sample. So a sample says that a page was accessed since it was armed, and
the heat of a region, a sum of its samples that halves with each half-life, how many
of its pages are in use. The guest is slowed down by no more than the budget,
but for what is held up by something else: the rate yields.

It prints the VM's memory slots, which say where its process has a page of the
guest's, and a line for each sample; with --heat a table of regions. Ctrl-C ends it,
and what was taken, delivered and lost is said at the end.

Examples:
  kvmscope sample web
  kvmscope sample 812-11 --duration 10
  kvmscope sample 812 --access w --rate 200 --no-tables
  kvmscope sample 812 --gfn 0x100000-0x13ffff --vcpu 0
  kvmscope sample 812 --heat --half-life 30
  kvmscope sample 812 --duration 600 --record run.sample
  kvmscope sample --from run.sample --heat --sort address
  kvmscope heatmap --from run.sample
  kvmscope sample 812 --json | jq -c 'select(.sample).sample | [.gfn, .access]'")]
    Sample(Sample),
    /// Keep a guest's hot memory on the fast NUMA node
    #[command(after_help = "\
The guest's accesses are sampled, and in each interval the hottest regions, as many
as the fast ratio allows, are moved to the fast node. A region moves only if it has
been hotter by the tolerance than what must make room for it for the migration delay,
and as far as the bandwidth goes; what makes room is the coldest. A line for each
interval says how much of the heat is on the fast node, and what was moved.

The fast node is the first that has CPUs and the slow one the next, if possible one
without, unless they are given. Pages that other processes map as well stay where
they are, as do those that are busy; they are counted.

Examples:
  kvmscope tier web --dry-run
  kvmscope tier 812 --fast-node 0 --slow-node 2 --fast-ratio 0.25
  kvmscope tier 812 --bandwidth 64M --interval 5 --half-life 60 --weight-w 2
  kvmscope tier 812 --json | jq -c '[.fast_heat, .to_fast, .to_slow]'")]
    Tier(Tier),
    /// Start counting from zero, for everyone
    #[command(after_help = "\
It is the machine's table that starts anew; what single VMs count goes on. Times start
anew for all.

Examples:
  kvmscope reset
  kvmscope reset; sleep 10; kvmscope dump")]
    Reset,
    /// Show or switch the counting of exits
    #[command(after_help = "\
It is on from the start. Counting takes some ten instructions of each exit.

Examples:
  kvmscope exits
  kvmscope exits off")]
    Exits(Switch),
    /// Show or switch the timing of exits
    #[command(after_help = "\
Times count from when it is switched on. `kvmscope stat --latency` and `kvmscope
record --latency` switch it on for as long as they run.

Examples:
  kvmscope latency
  kvmscope latency on; sleep 10; kvmscope dump --sort time; kvmscope latency off")]
    Latency(Switch),
    /// Print a script that completes the command line in a shell
    #[command(after_help = "\
Examples:
  kvmscope completions bash > /etc/bash_completion.d/kvmscope
  kvmscope completions zsh > /usr/local/share/zsh/site-functions/_kvmscope")]
    Completions { shell: Shell },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Args)]
pub struct Dump {
    #[command(flatten)]
    pub look: Look,
    #[command(flatten)]
    pub form: Form,
}

/// For programs, rather than a table.
#[derive(Args)]
pub struct Form {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Write CSV to FILE, - being standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub csv: Option<PathBuf>,
}

#[derive(Args)]
pub struct Stat {
    #[command(flatten)]
    pub look: Look,
    /// Wait so many seconds between refreshes
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// Print the table of one interval, and end
    #[arg(short = '1', long)]
    pub once: bool,
    /// Switch latency on meanwhile
    #[arg(short, long)]
    pub latency: bool,
    /// Print JSON, a line for each interval
    #[arg(long)]
    pub json: bool,
    /// Write CSV to FILE, - being standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub csv: Option<PathBuf>,
    /// Serve http://ADDR:PORT/metrics; without ADDR, to this machine only
    #[arg(
        long,
        value_name = "[ADDR:]PORT",
        value_parser = address,
        conflicts_with_all = ["json", "csv", "once", "by", "sort", "interval"]
    )]
    pub prometheus: Option<SocketAddr>,
}

#[derive(Args)]
pub struct Record {
    /// The file to write, - being standard output
    pub file: PathBuf,
    /// Wait so many seconds between snapshots
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// End after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Switch latency on meanwhile
    #[arg(short, long)]
    pub latency: bool,
    /// Replace the file if it exists
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Report {
    /// The file to read, - being standard input
    pub file: PathBuf,
    #[command(flatten)]
    pub look: Look,
    #[command(flatten)]
    pub form: Form,
}

#[derive(Args)]
pub struct Wss {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    tracking: Tracking,
    /// Count pages that were written in at least M sub-intervals; the kernel begins
    /// with 1
    #[arg(long, value_name = "M", value_parser = value_parser!(u64).range(1..=200))]
    threshold: Option<u64>,
    /// Print one period of each VM, and end
    #[arg(short = '1', long)]
    pub once: bool,
    /// End after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "once")]
    pub duration: Option<Duration>,
    /// Print JSON, a line for each period of a VM
    #[arg(long)]
    pub json: bool,
    /// Write CSV to FILE, - being standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub csv: Option<PathBuf>,
    /// Print nothing but the percentiles at the end
    #[arg(long, conflicts_with_all = ["csv", "once"])]
    pub percentiles: bool,
    /// Store every period and its pages as well
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Replace the recording if it exists
    #[arg(short, long, requires = "record")]
    pub force: bool,
    /// Show a recording instead, - being standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Tracking", "threshold", "once", "duration", "record"])]
    pub from: Option<PathBuf>,
}

impl Wss {
    pub fn setup(&self) -> Setup {
        Setup {
            threshold: self.threshold,
            ..self.tracking.setup()
        }
    }
}

/// How VMs are tracked.
#[derive(Args)]
pub struct Tracking {
    /// The length of a period; the kernel begins with 10
    #[arg(long, value_name = "SECONDS", value_parser = period)]
    period: Option<u64>,
    /// Cut the period into N sub-intervals; the kernel begins with 10
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=200))]
    intervals: Option<u64>,
    /// Leave out what was only read, which takes a look at all pages
    #[arg(long)]
    no_reads: bool,
    /// Split huge pages, to see 4 KiB of each
    #[arg(long)]
    split: bool,
}

impl Tracking {
    pub fn setup(&self) -> Setup {
        Setup {
            period_ms: self.period,
            intervals: self.intervals,
            threshold: None,
            reads: self.no_reads.then_some(0),
            split: self.split.then_some(1),
        }
    }
}

#[derive(Args)]
#[command(group = ArgGroup::new("picture").args(["svg", "png"]).multiple(true))]
pub struct Heatmap {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub tracking: Tracking,
    /// Draw after so many seconds; without it, after Ctrl-C
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Draw a recording, or a copy of a kernel's pages, - being standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Tracking", "duration"])]
    pub from: Option<PathBuf>,
    /// Draw what was accessed, rather than what was written
    #[arg(long, conflicts_with = "no_reads")]
    pub reads: bool,
    /// What to do about the guest's page tables
    #[arg(long, value_name = "HOW", default_value = "mark")]
    pub tables: Tables,
    /// Write a picture to FILE, as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write a picture to FILE, as PNG
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Of the picture, in pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1200x800", value_parser = size, requires = "picture")]
    pub size: (u32, u32),
    /// Of the text, in columns; without it, the terminal's
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(40..=1000), conflicts_with = "picture")]
    pub width: Option<u16>,
    /// Of the text, in lines; without it, the terminal's
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(8..=1000), conflicts_with = "picture")]
    pub height: Option<u16>,
    /// Shade with ASCII characters and no colours
    #[arg(long, conflicts_with = "picture")]
    pub ascii: bool,
}

impl Heatmap {
    /// The files that pictures go to.
    pub fn pictures(&self) -> impl Iterator<Item = &Path> {
        [&self.svg, &self.png]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

#[derive(Args)]
pub struct Sample {
    /// The process that runs the guest, or the VM: PID-FD, or its guest's name
    #[arg(value_name = "PID|VM", required_unless_present = "from")]
    pub target: Option<Target>,
    #[command(flatten)]
    pub which: WhichOf,
    /// Samples per second
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// Kinds of access: any of r, w and x
    #[arg(long, value_name = "KINDS", default_value = "rwx")]
    pub access: Access,
    /// Which pages are watched
    #[arg(long, value_name = "HOW", default_value = "random")]
    pub strategy: Strategy,
    /// What it may cost, in per cent of the guest's time
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub budget: u32,
    #[command(flatten)]
    pub wanted: Wanted,
    /// End after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Show how hot regions are, rather than each sample
    #[arg(long)]
    pub heat: bool,
    /// The time in which heat halves
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, requires = "heat")]
    pub half_life: Duration,
    /// The size of a region, a power of two
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = region, requires = "heat")]
    pub region: u64,
    /// Which regions come first
    #[arg(
        short,
        long,
        value_name = "HOW",
        default_value = "heat",
        requires = "heat"
    )]
    pub sort: Order,
    /// Print JSON, a line for each sample, or with --heat for each region
    #[arg(long)]
    pub json: bool,
    /// Store all samples as well, wanted or not
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Replace the recording if it exists
    #[arg(short, long, requires = "record")]
    pub force: bool,
    /// Show a recording instead, - being standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "vm_fd", "rate", "access", "strategy", "budget", "duration", "record"])]
    pub from: Option<PathBuf>,
}

impl Sample {
    /// Of the process's VM, as `Target::find` has them.
    pub fn setup(&self, (pid, vm_fd): (u32, Option<u32>)) -> SampleSetup {
        SampleSetup {
            pid,
            vm_fd,
            strategy: self.strategy,
            access: self.access,
            rate: self.rate,
            budget_ppm: self.budget,
        }
    }
}

#[derive(Args)]
pub struct Tier {
    /// The process that runs the guest, or the VM: PID-FD, or its guest's name
    #[arg(value_name = "PID|VM")]
    pub target: Target,
    #[command(flatten)]
    pub which: WhichOf,
    /// The node for what is hot
    #[arg(long, value_name = "NODE")]
    pub fast_node: Option<u32>,
    /// The node for what is cold
    #[arg(long, value_name = "NODE")]
    pub slow_node: Option<u32>,
    /// As much of the guest's memory may be on the fast node
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = share)]
    pub fast_ratio: f64,
    /// How much hotter a region must be than the one that makes room for it
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = weight)]
    pub tolerance: f64,
    /// The time in which heat halves
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub half_life: Duration,
    /// What a read adds to heat
    #[arg(long, value_name = "W", default_value = "1", value_parser = weight)]
    pub weight_r: f64,
    /// What a write adds to heat
    #[arg(long, value_name = "W", default_value = "1", value_parser = weight)]
    pub weight_w: f64,
    /// What an execution adds to heat
    #[arg(long, value_name = "W", default_value = "1", value_parser = weight)]
    pub weight_x: f64,
    /// How long a region must have been on the wrong node
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = delay)]
    pub migration_delay: Duration,
    /// Wait so many seconds between moves
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// Bytes per second that may be moved
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = bandwidth)]
    pub bandwidth: u64,
    /// The size of a region, a power of two
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = region)]
    pub region: u64,
    /// Samples per second
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// What sampling may cost, in per cent of the guest's time
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub budget: u32,
    /// Move nothing, and say what would be
    #[arg(long)]
    pub dry_run: bool,
    /// End after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Print JSON, a line for each interval
    #[arg(long)]
    pub json: bool,
}

impl Tier {
    /// Of the process's VM, as `Target::find` has them.
    pub fn setup(&self, (pid, vm_fd): (u32, Option<u32>)) -> SampleSetup {
        let kinds = [
            (self.weight_r, Access::READ),
            (self.weight_w, Access::WRITE),
            (self.weight_x, Access::EXECUTE),
        ];
        let weighty = kinds.iter().filter(|(weight, _)| *weight > 0.0);
        let access = weighty.fold(0, |bits, (_, kind)| bits | kind.bits());
        SampleSetup {
            pid,
            vm_fd,
            strategy: Strategy::Random,
            access: Access::from_bits(access),
            rate: self.rate,
            budget_ppm: self.budget,
        }
    }

    pub fn rules(&self) -> Rules {
        Rules {
            half_life: self.half_life,
            read: self.weight_r,
            write: self.weight_w,
            execute: self.weight_x,
            delay: self.migration_delay,
            bandwidth: self.bandwidth,
            fast_ratio: self.fast_ratio,
            tolerance: self.tolerance,
            pages: self.region,
            interval: self.interval,
        }
    }
}

/// Which of a process's VMs.
#[derive(Args)]
pub struct WhichOf {
    /// Which of its VMs, where it has several: the file descriptor alone, the 11 of
    /// 812-11
    #[arg(long = "vm", value_name = "FD", value_parser = file_descriptor)]
    pub vm_fd: Option<u32>,
}

#[derive(Args)]
pub struct Switch {
    /// What it should be; without it, print what it is
    pub state: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    On,
    Off,
}

/// What to look at, and how.
#[derive(Args)]
pub struct Look {
    /// Only VMs created by this process
    #[arg(short, long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Only this VM: PID-FD, or its guest's name
    #[arg(short = 'g', long = "vm", value_name = "VM")]
    vms: Vec<String>,
    /// Only this vCPU
    #[arg(long = "vcpu", value_name = "N")]
    vcpus: Vec<u32>,
    /// Only reasons that match, in upper or lower case
    #[arg(short = 'f', long, value_name = "REGEX")]
    reason: Option<Pattern>,
    /// What a line stands for
    #[arg(short, long, default_value = "reason")]
    pub by: By,
    /// Which lines come first
    #[arg(short, long, default_value = "count")]
    pub sort: Sort,
}

impl Look {
    pub fn filter(&self) -> Filter {
        Filter {
            pids: self.pids.clone(),
            vms: self.vms.clone(),
            vcpus: self.vcpus.clone(),
            reason: self.reason.clone(),
        }
    }
}

fn file_descriptor(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(fd @ ..=0x7fff_ffff) => Ok(fd),
        _ => Err("not a file descriptor, which is the 11 of 812-11".to_string()),
    }
}

/// Milliseconds of a period, within the kernel's bounds.
pub fn period(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok((seconds * 1e3).round() as u64),
        _ => Err("not a number of seconds from 0.01 to 3600".to_string()),
    }
}

/// Per cent, as millionths.
fn percent(text: &str) -> Result<u32, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.001..=100.0).contains(&percent) => Ok((percent * 1e4).round() as u32),
        _ => Err("not a percentage from 0.001 to 100".to_string()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1".to_string()),
    }
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if (0.0..=1e6).contains(&weight) => Ok(weight),
        _ => Err("not a number from 0 to 1000000".to_string()),
    }
}

fn delay(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0 to 86400".to_string()),
    }
}

fn bandwidth(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).filter(|bytes| (4096..=1 << 50).contains(bytes));
    bytes.ok_or("not a number of bytes from 4K on, such as 64M".to_string())
}

/// Bytes, as `64K`, `2M` or `1G`.
fn bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (
            number,
            match &text[number.len()..] {
                "K" => 10,
                "M" => 20,
                _ => 30,
            },
        ),
        None => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Pages of a region.
fn region(text: &str) -> Result<u64, String> {
    match bytes(text) {
        Some(bytes) if bytes.is_power_of_two() && (4096..=1 << 40).contains(&bytes) => {
            Ok(bytes / 4096)
        }
        _ => Err("not a power of two from 4K to 1024G, such as 64K or 2M".to_string()),
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let size = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    match size {
        Some((width, height))
            if (480..=8000).contains(&width) && (320..=8000).contains(&height) =>
        {
            Ok((width, height))
        }
        _ => Err("not WIDTHxHEIGHT, from 480x320 to 8000x8000".to_string()),
    }
}

/// A time that a person may want to wait. kvm_stat's shortest is the same.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0.1 to 86400".to_string()),
    }
}

/// `PORT`, `ADDR:PORT` or `[ADDR]:PORT`. No names: a static program had better
/// not ask the resolver.
fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = port.strip_prefix(':').unwrap_or(port).parse() {
        return Ok(SocketAddr::new(loopback, port));
    }
    text.parse()
        .map_err(|_| "neither a port nor a numeric address and a port".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses() {
        let is = |text: &str| address(text).map(|a| a.to_string());
        assert_eq!(is("9108").unwrap(), "127.0.0.1:9108");
        assert_eq!(is(":9108").unwrap(), "127.0.0.1:9108");
        assert_eq!(is("localhost:9108").unwrap(), "127.0.0.1:9108");
        assert_eq!(is("0.0.0.0:1").unwrap(), "0.0.0.0:1");
        assert_eq!(is("[::1]:9108").unwrap(), "[::1]:9108");
        for bad in ["", "x", "65536", "-1", "1.2.3.4", "example:80", "1.2.3.4:"] {
            assert!(is(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "x", "0.01"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
