// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail, one at a time.
//!
//! A thread that has written n to `/proc/thread-self/fail-nth` has the n-th of its
//! next allocations fail, or of its copies from and to userspace. So each path is
//! taken until there is no n-th any more. Between arming and disarming there are
//! only the system calls of the path: no memory is allocated here.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::code::{Kind, Program};
use crate::machine::{Machine, Runner, Shape, Space};
use crate::pages::{self, Touch, DATA, PAGE};
use crate::sampling::{self, Config, Session, Slot, Slots, Stats};
use crate::tracking::Tracking;
use crate::vm::{self, Memory, Vcpu, Vm};

const DEBUG: &str = "/sys/kernel/debug";
const KNOBS: &str = "/sys/kernel/kvmscope";
const KINDS: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];

const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41;
const KVM_RUN: libc::Ioctl = 0xae80;

/// A path has fewer allocations, or does not come to an end.
const LIMIT: u32 = 2000;
/// What each VM executes to show that it goes on.
const CPUIDS: u32 = 10;

/// Fail each allocation of whatever kvmscope does, one by one
///
/// Each path is taken over and over: the first time its first allocation fails,
/// then the second and so on, until there are no more. Whatever fails must do so
/// with ENOMEM (EFAULT for a copy from or to userspace) and change nothing, and
/// the VM must go on and be counted right. Prints a line per path: `faults NAME
/// points N refused N`, the allocations that were made to fail, and how often
/// that was an error for userspace.
///
/// The paths files, load and latency unload KVM's modules and load them anew from
/// /lib/modules, of their parameters with enable_apicv alone; no other VM may be there.
/// split needs huge pages for who asks for them (transparent_hugepage/enabled). The
/// knobs latency and autostart are off afterwards.
#[derive(clap::Args)]
pub struct Args {
    /// Only say whether this kernel can do it, and if not, why
    #[arg(long)]
    probe: bool,
    /// Only this path; may be given several times
    #[arg(long, value_name = "NAME", value_parser = PATHS)]
    path: Vec<String>,
}

const PATHS: [&str; 14] = [
    "files",
    "load",
    "latency",
    "create",
    "start",
    "split",
    "enter",
    "worker",
    "read",
    "write",
    "statistics",
    "sample",
    "sample-old",
    "sampler",
];
/// Those that are only there where working sets can be tracked.
const TRACKING: [&str; 4] = ["start", "split", "enter", "worker"];
/// And where accesses can be sampled.
const SAMPLING: [&str; 3] = ["sample", "sample-old", "sampler"];

/// The directories in which the kernel is told what may fail.
struct Injection;

impl Injection {
    fn new() -> Result<Self> {
        for kind in KINDS {
            // Its first failure would otherwise be its last, and each leave a trace
            // in the log.
            set(kind, "times", "-1")?;
            set(kind, "verbose", "0")?;
            set(kind, "stacktrace-depth", "32")?;
        }
        set("failslab", "ignore-gfp-wait", "N")?;
        set("fail_page_alloc", "ignore-gfp-wait", "N")?;
        set("fail_page_alloc", "ignore-gfp-highmem", "N")?;
        set("fail_page_alloc", "min-order", "0")?;
        Ok(Self)
    }

    /// From now on, only what is called from the code of kvmscope may fail.
    fn only_ours(&self, only: bool) -> Result<()> {
        self.only_from(if only { our_text()? } else { (0, u64::MAX) })
    }

    /// Only what is called from this code.
    fn only_from(&self, (start, end): (u64, u64)) -> Result<()> {
        for kind in KINDS {
            set(kind, "require-start", &format!("{start:#x}"))?;
            set(kind, "require-end", &format!("{end:#x}"))?;
        }
        Ok(())
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _ = self.only_ours(false);
    }
}

fn set(kind: &str, name: &str, value: &str) -> Result<()> {
    let path = format!("{DEBUG}/{kind}/{name}");
    fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}

/// Where the code of kvmscope is: its objects are the last of kvm.ko's, after those that
/// have functions named kvm_arch_*. (Among these are copies of what is inline in its
/// header, so that not all that is named kvm_scope_* is its own.) It ends with the last
/// function's page, as in the next one may be another module: nothing of the module's
/// code follows on kvmscope's but a few short functions.
fn our_text() -> Result<(u64, u64)> {
    let functions: Vec<_> = functions()?
        .into_iter()
        .filter(|function| function.module == "[kvm]")
        .collect();
    let ours = |function: &Function| function.name.contains("kvm_scope_");
    let last = functions.iter().rposition(ours).unwrap_or_default();
    let others = functions[..last]
        .iter()
        .rposition(|function| function.name.contains("kvm_arch_"))
        .unwrap_or_default();
    let first = functions[others..].iter().find(|function| ours(function));
    let (Some(first), Some(end)) = (first, functions.last()) else {
        bail!("no kvm_scope_* in /proc/kallsyms");
    };
    Ok((first.address, (end.address / PAGE + 1) * PAGE))
}

/// Where the code of a function of the kernel's own is: up to the next one.
fn text_of(name: &str) -> Result<(u64, u64)> {
    let functions = functions()?;
    let found = functions
        .windows(2)
        .find(|pair| pair[0].name == name && pair[0].module.is_empty());
    let pair = found.with_context(|| format!("no {name} in /proc/kallsyms"))?;
    Ok((pair[0].address, pair[1].address))
}

struct Function {
    address: u64,
    name: String,
    /// In brackets, if any.
    module: String,
}

/// All of the kernel's and its modules', by address.
fn functions() -> Result<Vec<Function>> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
    let mut functions = Vec::new();
    for line in symbols.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), Some("t" | "T"), Some(name)) =
            (words.next(), words.next(), words.next())
        {
            functions.push(Function {
                address: u64::from_str_radix(address, 16).context("an address in kallsyms")?,
                name: name.to_string(),
                module: words.next().unwrap_or_default().to_string(),
            });
        }
    }
    functions.sort_by_key(|function| function.address);
    Ok(functions)
}

/// The faults ahead of a thread.
struct Nth(File);

/// What came of taking a path.
struct Taken {
    result: io::Result<usize>,
    /// Whether there was an n-th allocation.
    failed: bool,
}

impl Nth {
    fn of(task: &str) -> Result<Self> {
        let path = format!("/proc/{task}/fail-nth");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Self(file.with_context(|| format!("opening {path}"))?))
    }

    fn arm(&self, n: u32) -> Result<()> {
        let mut digits = [0; 11];
        let mut rest = &mut digits[..];
        writeln!(rest, "{n}")?;
        let len = 11 - rest.len();
        self.0
            .write_all_at(&digits[..len], 0)
            .context("writing to fail-nth")
    }

    /// Whether it has failed; nothing does from now on.
    fn disarm(&self) -> Result<bool> {
        let mut digits = [0; 11];
        let failed = match self.0.read_at(&mut digits, 0) {
            Ok(len) => digits[..len] == *b"0\n",
            // Telling was next.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => return Ok(false),
            Err(error) => return Err(error).context("reading fail-nth"),
        };
        // Being told may be next.
        if self.arm(0).is_err() {
            self.arm(0)?;
        }
        Ok(failed)
    }

    fn take(&self, n: u32, path: impl FnOnce() -> io::Result<usize>) -> Result<Taken> {
        self.arm(n)?;
        let result = path();
        let failed = self.disarm()?;
        Ok(Taken { result, failed })
    }
}

#[derive(Default)]
struct Tally {
    points: u32,
    refused: u32,
}

impl Tally {
    /// Takes a path until none of its allocations is left.
    fn exhaust(&mut self, what: &str, mut path: impl FnMut(u32) -> Result<Taken>) -> Result<()> {
        for n in 1..LIMIT {
            let taken = path(n).with_context(|| format!("{what}, with allocation {n} failing"))?;
            match taken.result {
                Ok(_) => {}
                Err(error) if !taken.failed => bail!("{what} failed by itself: {error}"),
                Err(error) => {
                    let clean = [Some(libc::ENOMEM), Some(libc::EFAULT)];
                    ensure!(
                        clean.contains(&error.raw_os_error()),
                        "{what}, with allocation {n} failing, has another error: {error}"
                    );
                    self.refused += 1;
                }
            }
            if !taken.failed {
                return Ok(());
            }
            self.points += 1;
        }
        bail!("{what} has {LIMIT} allocations and more");
    }

    fn print(&self, name: &str) -> Result<()> {
        let Self { points, refused } = self;
        writeln!(
            io::stdout(),
            "faults {name} points {points} refused {refused}"
        )?;
        Ok(())
    }
}

// --- system calls that allocate nothing here

fn checked(result: i64) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn ioctl(fd: i32, request: libc::Ioctl, argument: usize) -> io::Result<usize> {
    // SAFETY: None of the requests used here reads or writes this process's memory
    // by its argument.
    checked(unsafe { libc::ioctl(fd, request, argument) }.into())
}

/// A call of the sampler's.
fn pass(fd: i32, request: libc::Ioctl, argument: usize) -> io::Result<usize> {
    // SAFETY: The argument is what the request takes: a number, or the address of a
    // struct of the caller's that has its own size in it and is still there.
    checked(unsafe { libc::ioctl(fd, request, argument) }.into())
}

/// A descriptor that is closed in the end.
struct Fd(i32);

impl Fd {
    fn open(path: &CStr, flags: i32) -> io::Result<Self> {
        // SAFETY: The path is a string that ends.
        let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
        checked(fd.into()).map(|_| Self(fd))
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: The buffer is as long as is said.
        checked(unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: The bytes are as many as is said.
        checked(unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) } as i64)
    }

    /// Somebody else closes it.
    fn keep(self) -> i32 {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: It is open and only ours.
        unsafe { libc::close(self.0) };
    }
}

fn read_all(path: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = Fd::open(path, libc::O_RDONLY)?;
    loop {
        if fd.read(buffer)? == 0 {
            return Ok(0);
        }
    }
}

fn write_word(path: &CStr, word: &[u8]) -> io::Result<usize> {
    Fd::open(path, libc::O_WRONLY)?.write(word)
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

// --- VMs that show that they go on

/// A VM of this process in debugfs.
fn directory(fd: i32) -> PathBuf {
    let name = format!("{}-{fd}", std::process::id());
    Path::new(DEBUG).join("kvm").join(name)
}

/// A session of samples that has few pages to be had.
fn sampling_of(fd: i32) -> Config {
    Config {
        ring_records: 64,
        ..Config::of(std::process::id(), fd)
    }
}

struct Subject {
    vm: Vm,
    vcpu: Vcpu,
}

impl Subject {
    fn new() -> Result<Self> {
        let vm = Vm::new(&Memory::new()?, false)?;
        let vcpu = vm.vcpu(0, Program::Exits)?;
        Ok(Self { vm, vcpu })
    }

    fn directory(&self) -> PathBuf {
        directory(self.vm.fd.as_raw_fd())
    }

    fn sampling(&self) -> Config {
        sampling_of(self.vm.fd.as_raw_fd())
    }

    fn tracking(&self) -> Result<Tracking> {
        Tracking::here(self.vm.fd.as_raw_fd())
    }

    /// What its guest does next is counted, and nothing else: it is the only VM.
    fn goes_on(&mut self) -> Result<()> {
        let before = cpuids()?;
        self.vcpu.order(Kind::Cpuid, CPUIDS)?;
        self.vcpu.run().context("afterwards")?;
        let counted = cpuids()? - before;
        ensure!(
            counted == u64::from(CPUIDS),
            "afterwards {CPUIDS} CPUIDs are counted as {counted}"
        );
        Ok(())
    }
}

/// One with enough memory for several page tables, or for huge pages.
struct Wide {
    machine: Arc<Machine>,
    vcpu: Runner,
}

impl Wide {
    const SIZE: u64 = 16 << 20;

    fn new(huge: bool) -> Result<Self> {
        let space = Arc::new(Space::new(Self::SIZE, huge)?);
        ensure!(
            !huge || space.fill()?,
            "the host has no huge pages for the guest"
        );
        let machine = Arc::new(Machine::new(space, Shape::default())?);
        let vcpu = machine.vcpu(0, pages::Program::Sweep)?;
        let list: Vec<_> = Self::pages().map(|gfn| (gfn, Touch::Write)).collect();
        vcpu.list(&list)?;
        Ok(Self { machine, vcpu })
    }

    /// Those that the guest writes to.
    fn pages() -> impl Iterator<Item = u64> {
        (DATA / PAGE..(DATA + Self::SIZE / 2) / PAGE).step_by(16)
    }

    fn fd(&self) -> i32 {
        self.machine.fd.as_raw_fd()
    }

    /// How many KVM maps as such.
    fn huge_pages(&self) -> Result<u64> {
        let path = directory(self.fd()).join("pages_2m");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// The guest's memory has what it writes next.
    fn goes_on(&mut self) -> Result<()> {
        self.vcpu.order()?;
        self.vcpu.finish().context("afterwards")?;
        let stamp = self.vcpu.get(pages::STAMP)?;
        for gfn in Self::pages() {
            let found = self.machine.space.get(gfn * PAGE)?;
            ensure!(
                found == stamp,
                "afterwards page {gfn:#x} has {found}, not {stamp}"
            );
        }
        Ok(())
    }
}

/// How many the machine has counted.
fn cpuids() -> Result<u64> {
    let path = format!("{DEBUG}/kvmscope/exits");
    let table = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let row = table
        .lines()
        .map(|line| line.split_ascii_whitespace())
        .find_map(|mut words| (words.nth(1) == Some("CPUID")).then(|| words.next()));
    match row {
        Some(count) => Ok(count.context("a row without a count")?.parse()?),
        None => Ok(0),
    }
}

// --- KVM's modules

/// A module of KVM's.
struct Module {
    name: CString,
    file: File,
    parameters: CString,
}

impl Module {
    /// The one that all CPUs have, without parameters.
    fn common() -> Result<Self> {
        Self::find("kvm", CString::default())
    }

    /// The one of this CPU's vendor, with its enable_apicv, which Bochs needs off.
    fn vendor() -> Result<Self> {
        let intel = Path::new("/sys/module/kvm_intel").exists();
        let name = if intel { "kvm-intel" } else { "kvm-amd" };
        let parameter = format!("/sys/module/{}/parameters/", name.replace('-', "_"));
        let parameters = match fs::read_to_string(parameter + "enable_apicv") {
            Ok(value) => CString::new(format!("enable_apicv={}", value.trim()))?,
            Err(_) => CString::default(),
        };
        Self::find(name, parameters)
    }

    fn find(name: &str, parameters: CString) -> Result<Self> {
        let path = format!("/lib/modules/{name}.ko");
        Ok(Self {
            name: CString::new(name.replace('-', "_"))?,
            file: File::open(&path).with_context(|| format!("opening {path}"))?,
            parameters,
        })
    }

    fn load(&self) -> io::Result<usize> {
        // SAFETY: The kernel reads a string that ends, and the file.
        checked(unsafe {
            libc::syscall(
                libc::SYS_finit_module,
                self.file.as_raw_fd(),
                self.parameters.as_ptr(),
                0,
            )
        })
    }

    /// Who had a VM a moment ago may have it still.
    fn unload(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            // SAFETY: The kernel reads a string that ends.
            let result = checked(unsafe {
                libc::syscall(
                    libc::SYS_delete_module,
                    self.name.as_ptr(),
                    libc::O_NONBLOCK,
                )
            });
            match result {
                Err(error)
                    if error.raw_os_error() == Some(libc::EAGAIN)
                        && began.elapsed() < Duration::from_secs(10) =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                result => {
                    return result
                        .map(drop)
                        .with_context(|| format!("unloading {:?}", self.name));
                }
            }
        }
    }
}

// --- the paths

/// Fails allocations in each of the paths.
pub fn run(args: &Args) -> Result<()> {
    if let Some(missing) = missing() {
        ensure!(args.probe, "{missing}");
        writeln!(io::stdout(), "faults unsupported: {missing}")?;
        return Ok(());
    }
    if args.probe {
        writeln!(io::stdout(), "faults supported")?;
        return Ok(());
    }
    let injection = Injection::new()?;
    let nth = Nth::of("thread-self")?;
    let (tracks, samples) = {
        let subject = Subject::new()?;
        let session = Session::start(subject.sampling());
        (subject.tracking()?.start()?, session.is_ok())
    };
    for name in PATHS {
        if !args.path.is_empty() && !args.path.iter().any(|path| path == name)
            || TRACKING.contains(&name) && !tracks
            || SAMPLING.contains(&name) && !samples
        {
            continue;
        }
        knob("latency", "1")?;
        let autostart = match (tracks, samples) {
            (true, true) => "both",
            (true, false) => "wss",
            (false, true) => "sample",
            (false, false) => "none",
        };
        let tally = match name {
            "files" => files_come(&injection, &nth)?,
            "load" => load(&injection, &nth)?,
            "latency" => latency(&injection, &nth)?,
            "create" => create(&injection, &nth, autostart)?,
            "start" => start(&injection, &nth)?,
            "split" => split(&injection, &nth)?,
            "enter" => enter(&injection, &nth)?,
            "worker" => work(&injection, samples)?,
            "read" => read(&injection, &nth, tracks)?,
            "write" => write(&injection, &nth, tracks)?,
            "sample" => sample(&injection, &nth)?,
            "sample-old" => sample_old(&injection, &nth)?,
            "sampler" => sampler(&injection)?,
            _ => statistics(&injection, &nth)?,
        };
        tally.print(name)?;
    }
    knob("latency", "0")
}

/// What there is not, if anything.
fn missing() -> Option<String> {
    let wanted = KINDS
        .into_iter()
        .map(|kind| format!("{DEBUG}/{kind}/require-start"))
        .chain(["/proc/thread-self/fail-nth".to_string()]);
    wanted
        .into_iter()
        .find(|path| !Path::new(path).exists())
        .map(|path| format!("there is no {path}"))
}

fn knob(name: &str, word: &str) -> Result<()> {
    fs::write(format!("{KNOBS}/{name}"), word).with_context(|| format!("writing {word} to {name}"))
}

/// KVM is loaded, and with it the sampler's files come to be.
fn files_come(injection: &Injection, nth: &Nth) -> Result<Tally> {
    let (common, vendor) = (Module::common()?, Module::vendor()?);
    let mut tally = Tally::default();
    // Where its own code will be is not known before.
    for function in ["misc_register", "proc_create"] {
        injection.only_from(text_of(function)?)?;
        let before = tally.points;
        tally.exhaust("loading KVM", |n| {
            vendor.unload()?;
            common.unload()?;
            let taken = nth.take(n, || common.load())?;
            if taken.result.is_err() {
                common.load().context("loading KVM afterwards")?;
            }
            vendor.load().context("loading KVM afterwards")?;
            Subject::new()?.goes_on()?;
            Ok(taken)
        })?;
        ensure!(tally.points > before, "{function} allocates nothing");
    }
    Ok(tally)
}

/// The vendor's module is loaded, and with it counting begins.
fn load(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(true)?;
    let vendor = Module::vendor()?;
    let mut tally = Tally::default();
    tally.exhaust("loading the vendor's module", |n| {
        vendor.unload()?;
        let taken = nth.take(n, || vendor.load())?;
        let counts = Path::new(DEBUG).join("kvmscope/exits");
        if taken.result.is_ok() && !counts.exists() {
            // It does without files in debugfs. Not here.
            vendor.unload()?;
        }
        if !counts.exists() {
            vendor.load().context("loading it afterwards")?;
        }
        Subject::new()?.goes_on()?;
        Ok(taken)
    })?;
    Ok(tally)
}

/// Times are taken from now on, for the first time since KVM was loaded: what was made
/// room for once stays.
fn latency(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(true)?;
    let vendor = Module::vendor()?;
    let file = Path::new(KNOBS).join("latency");
    let path = c_path(&file)?;
    let mut tally = Tally::default();
    tally.exhaust("taking times", |n| {
        vendor.unload()?;
        vendor.load().context("loading KVM")?;
        let mut subject = Subject::new()?;
        subject.goes_on()?;
        let taken = nth.take(n, || write_word(&path, b"1"))?;
        let now = fs::read_to_string(&file)?;
        ensure!(
            (now == "1\n") == taken.result.is_ok(),
            "{:?}, and latency is {now:?}",
            taken.result
        );
        subject.goes_on()?;
        knob("latency", "1")?;
        subject.goes_on()?;
        knob("latency", "0")?;
        subject.goes_on()?;
        Ok(taken)
    })?;
    Ok(tally)
}

/// A VM and two vCPUs come to be, tracked and sampled from the first on.
fn create(injection: &Injection, nth: &Nth, autostart: &str) -> Result<Tally> {
    injection.only_ours(true)?;
    knob("autostart", autostart)?;
    let memory = Memory::new()?;
    let kvm = vm::open()?;
    let mut tally = Tally::default();
    tally.exhaust("creating a VM", |n| {
        let (mut machine, mut vcpus) = (None, [None, None]);
        let taken = nth.take(n, || {
            let fd = Fd(ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0)? as i32);
            let fd = machine.insert(fd).0;
            for (index, vcpu) in vcpus.iter_mut().enumerate() {
                *vcpu = Some(Fd(ioctl(fd, KVM_CREATE_VCPU, index)? as i32));
            }
            Ok(0)
        })?;
        let [first, second] = vcpus;
        drop(second);
        if let (Some(machine), Some(first)) = (machine, first) {
            // SAFETY: KVM has just made it a VM, and nobody else closes it.
            let fd = unsafe { kvm.create_vmfd_from_rawfd(machine.keep()) }?;
            // SAFETY: The same of a vCPU.
            let vcpu = unsafe { fd.create_vcpu_from_rawfd(first.keep()) }?;
            let vm = Vm::around(vm::open()?, fd, &memory, false)?;
            let vcpu = vm.vcpu_around(vcpu, 0, Program::Exits)?;
            Subject { vm, vcpu }.goes_on()?;
        }
        Ok(taken)
    })?;
    knob("autostart", "none")?;
    Ok(tally)
}

/// Tracking of a VM is switched on, with the n-th allocation failing, and again.
fn track(nth: &Nth, n: u32, fd: i32, mut goes_on: impl FnMut() -> Result<()>) -> Result<Taken> {
    goes_on()?;
    let tracking = Tracking::here(fd)?;
    let active = c_path(&directory(fd).join("scope/wss/active"))?;
    let taken = nth.take(n, || write_word(&active, b"1\n"))?;
    let now = tracking.read("active")?;
    ensure!(
        (now == b"1\n") == taken.result.is_ok(),
        "{:?}, and active is {now:?}",
        taken.result
    );
    goes_on()?;
    tracking.set("active", 1)?;
    goes_on()?;
    tracking.set("active", 0)?;
    goes_on()?;
    Ok(taken)
}

/// Tracking begins.
fn start(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(true)?;
    let mut tally = Tally::default();
    tally.exhaust("starting to track", |n| {
        let mut subject = Subject::new()?;
        track(nth, n, subject.vm.fd.as_raw_fd(), || subject.goes_on())
    })?;
    Ok(tally)
}

/// Tracking begins, for which huge pages are split.
fn split(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(true)?;
    let mut tally = Tally::default();
    tally.exhaust("splitting huge pages", |n| {
        let mut wide = Wide::new(true)?;
        let fd = wide.fd();
        wide.goes_on()?;
        ensure!(wide.huge_pages()? > 0, "KVM maps no huge pages");
        Tracking::here(fd)?.set("split", 1)?;
        track(nth, n, fd, || wide.goes_on())
    })?;

    let mut wide = Wide::new(true)?;
    wide.goes_on()?;
    let tracking = Tracking::here(wide.fd())?;
    tracking.set("split", 1)?;
    tracking.set("active", 1)?;
    let left = wide.huge_pages()?;
    ensure!(left == 0, "{left} huge pages are not split");
    Ok(tally)
}

/// A vCPU is entered for the first time since then.
fn enter(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(true)?;
    let mut tally = Tally::default();
    tally.exhaust("entering a tracked guest", |n| {
        let mut subject = Subject::new()?;
        subject.tracking()?.set("active", 1)?;
        subject.vcpu.order(Kind::Cpuid, 0)?;
        let fd = subject.vcpu.fd.as_raw_fd();
        let taken = nth.take(n, || ioctl(fd, KVM_RUN, 0))?;
        subject.goes_on()?;
        Ok(taken)
    })?;
    Ok(tally)
}

/// The worker of a tracked VM hears of a page, then of a period's end.
fn work(injection: &Injection, samples: bool) -> Result<Tally> {
    // All that it does is ours.
    injection.only_ours(false)?;
    let mut tally = Tally::default();
    tally.exhaust("the worker", |n| {
        let mut subject = Subject::new()?;
        let tracking = subject.tracking()?;
        tracking.set("period_ms", 200)?;
        tracking.set("intervals", 2)?;
        if samples {
            tracking.set("sample", 10)?;
        }
        tracking.set("active", 1)?;
        let nth = Nth::of(&worker("wss")?.to_string())?;
        nth.arm(n)?;
        periods(&tracking, 3, || subject.goes_on())?;
        let failed = nth.disarm()?;

        // What was lost is lost in the periods in which memory was.
        periods(&tracking, 2, || subject.goes_on())?;
        let estimate = tracking.estimate()?;
        let (lost, written) = (estimate.get("lost")?, estimate.get("written")?);
        ensure!(
            lost == 0 && written > 0,
            "later, {written} pages are written and {lost} lost"
        );
        tracking.set("active", 0)?;
        let result = Ok(0);
        Ok(Taken { result, failed })
    })?;
    Ok(tally)
}

/// So many periods pass, with the guest running again and again.
fn periods(
    tracking: &Tracking,
    count: u64,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<()> {
    let until = tracking.estimate()?.get("period")? + count;
    let began = Instant::now();
    while tracking.estimate()?.get("period")? < until {
        meanwhile()?;
        thread::sleep(Duration::from_millis(3));
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "no period has ended for a minute"
        );
    }
    Ok(())
}

/// The kernel thread that does this work for a VM of this process.
fn worker(work: &str) -> Result<u32> {
    let name = format!("kvm-scope-{work}/{}", std::process::id());
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("there is no thread {name}");
}

/// The files of kvmscope in this directory and below.
fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.components().any(|part| part.as_os_str() == "scope")
            || path.starts_with(Path::new(DEBUG).join("kvmscope"))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Each file is read.
fn read(injection: &Injection, nth: &Nth, tracks: bool) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut subject = Subject::new()?;
    subject.goes_on()?;
    if tracks {
        let tracking = subject.tracking()?;
        tracking.set("period_ms", 20)?;
        tracking.set("intervals", 1)?;
        tracking.set("active", 1)?;
        periods(&tracking, 3, || subject.goes_on())?;
        tracking.set("active", 0)?;
    }
    let mut paths = Vec::new();
    files(&subject.directory(), &mut paths)?;
    files(&Path::new(DEBUG).join("kvmscope"), &mut paths)?;
    files(Path::new(KNOBS), &mut paths).ok();
    let mut buffer = vec![0; 1 << 16];
    let mut tally = Tally::default();
    let mut count = 0;
    for path in paths {
        let readable = fs::metadata(&path)?.permissions().mode() & 0o400 != 0;
        if !readable {
            continue;
        }
        count += 1;
        let name = c_path(&path)?;
        let what = format!("reading {}", path.display());
        tally.exhaust(&what, |n| nth.take(n, || read_all(&name, &mut buffer)))?;
    }
    subject.goes_on()?;
    ensure!(count >= 8, "there are only {count} files to be read");
    Ok(tally)
}

/// Each word is written; what fails leaves things as they were.
fn write(injection: &Injection, nth: &Nth, tracks: bool) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut subject = Subject::new()?;
    subject.goes_on()?;
    let own = subject.directory().join("scope");
    let mut tally = Tally::default();
    for (name, word) in [
        ("dump", "1"),
        ("dump", "vm"),
        ("dump", "all"),
        ("reset", "1"),
    ] {
        let path = c_path(&Path::new(KNOBS).join(name))?;
        let what = format!("writing {word} to {name}");
        tally.exhaust(&what, |n| {
            nth.take(n, || write_word(&path, word.as_bytes()))
        })?;
        subject.goes_on()?;
    }
    let mut switches = vec![
        (Path::new(KNOBS).join("exits"), "0", "1"),
        (Path::new(KNOBS).join("latency"), "0", "1"),
        (Path::new(KNOBS).join("latency"), "1", "0"),
        (own.join("cpuid"), "off", "a"),
        (own.join("cpuid"), "a", "off"),
    ];
    if tracks {
        switches.push((Path::new(KNOBS).join("autostart"), "none", "wss"));
        switches.push((Path::new(KNOBS).join("autostart"), "wss", "none"));
        switches.push((own.join("wss/period_ms"), "10000", "500"));
        switches.push((own.join("wss/reads"), "1", "0"));
        switches.push((own.join("wss/active"), "0", "1"));
        switches.push((own.join("wss/active"), "1", "0"));
    }
    for (file, from, to) in switches {
        let path = c_path(&file)?;
        let what = format!("writing {to} to {}", file.display());
        tally.exhaust(&what, |n| {
            fs::write(&file, from)?;
            let taken = nth.take(n, || write_word(&path, to.as_bytes()))?;
            let now = fs::read_to_string(&file)?;
            let expected = if taken.result.is_ok() { to } else { from };
            ensure!(
                now.trim_end() == expected,
                "{:?}, and it is {now:?}",
                taken.result
            );
            Ok(taken)
        })?;
        fs::write(Path::new(KNOBS).join("exits"), "1")?;
        subject.goes_on()?;
    }
    Ok(tally)
}

/// KVM's binary statistics, which have the counters as well.
fn statistics(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut subject = Subject::new()?;
    subject.goes_on()?;
    let mut buffer = vec![0; 1 << 16];
    let mut tally = Tally::default();
    for fd in [subject.vm.fd.as_raw_fd(), subject.vcpu.fd.as_raw_fd()] {
        tally.exhaust("reading KVM's statistics", |n| {
            nth.take(n, || {
                let mut stats = vm::statistics(&fd)?;
                while stats.read(&mut buffer)? != 0 {}
                Ok(0)
            })
        })?;
    }
    subject.goes_on()?;
    Ok(tally)
}

/// A session of samples begins, is asked for all that it tells, and ends.
fn sample(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut tally = Tally::default();
    let mut subject = Subject::new()?;
    let config = subject.sampling();
    let device = c_path(Path::new(sampling::DEVICE))?;
    let mut room = [Slot::default(); 8];
    let mut records = [0; 4096];
    tally.exhaust("a session of samples", |n| {
        let mut stats = Stats {
            size: size_of::<Stats>() as u32,
            ..Stats::default()
        };
        let mut slots = Slots {
            size: size_of::<Slots>() as u32,
            capacity: room.len() as u32,
            slots: room.as_mut_ptr() as u64,
            ..Slots::default()
        };
        let taken = nth.take(n, || {
            let fd = Fd::open(&device, libc::O_RDWR | libc::O_NONBLOCK)?;
            pass(fd.0, sampling::START, &raw const config as usize)?;
            pass(fd.0, sampling::MEMSLOTS, &raw mut slots as usize)?;
            pass(fd.0, sampling::CHANGE, &raw const config as usize)?;
            match fd.read(&mut records) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                read => drop(read?),
            }
            pass(fd.0, sampling::STATS, &raw mut stats as usize)?;
            pass(fd.0, sampling::STOP, 0)
        })?;
        subject.goes_on()?;
        // Whatever failed, there is no session any more.
        Session::start(config).context("afterwards")?;
        subject.goes_on()?;
        Ok(taken)
    })?;
    Ok(tally)
}

/// A session begins as programs of old begin it.
fn sample_old(injection: &Injection, nth: &Nth) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut tally = Tally::default();
    let mut subject = Subject::new()?;
    let path = c_path(Path::new(sampling::OLD))?;
    let pid = std::process::id() as usize;
    tally.exhaust("a session of old", |n| {
        let taken = nth.take(n, || {
            let old = Fd::open(&path, libc::O_RDWR)?;
            pass(old.0, sampling::old::INIT, pid)
        })?;
        subject.goes_on()?;
        Ok(taken)
    })?;

    // Nothing that it begins with is asked for anew.
    let mut room = [Slot::default(); 8];
    let old = Fd::open(&path, libc::O_RDWR)?;
    pass(old.0, sampling::old::INIT, pid)?;
    let mut asked = [room.as_mut_ptr() as usize, 1, 0];
    pass(
        old.0,
        sampling::old::GET_MEMSLOTS,
        asked.as_mut_ptr() as usize,
    )?;
    let count = asked[2];
    ensure!(count > 0, "there are no slots");
    tally.exhaust("the slots, as programs of old ask for them", |n| {
        let mut asked = [room.as_mut_ptr() as usize, 1, 0];
        let taken = nth.take(n, || {
            let at = asked.as_mut_ptr() as usize;
            pass(old.0, sampling::old::GET_MEMSLOTS, at)
        })?;
        // It may have told when it fails, for a slot, later.
        let told = asked[2] == count || (taken.result.is_err() && asked[2] == 0);
        ensure!(told, "{} slots are told, of {count}", asked[2]);
        Ok(taken)
    })?;
    subject.goes_on()?;
    Ok(tally)
}

/// The thread that takes pages away looks for the first of them.
fn sampler(injection: &Injection) -> Result<Tally> {
    injection.only_ours(false)?;
    let mut tally = Tally::default();
    tally.exhaust("the sampling thread", |n| {
        let mut wide = Wide::new(false)?;
        wide.goes_on()?;
        let running = sampling_of(wide.fd());
        let mut session = Session::start(Config { rate: 0, ..running })?;
        let nth = Nth::of(&worker("smp")?.to_string())?;
        nth.arm(n)?;
        session.change(running)?;
        samples(&mut session, || wide.goes_on())?;
        let failed = nth.disarm()?;
        samples(&mut session, || wide.goes_on())?;
        let result = Ok(0);
        Ok(Taken { result, failed })
    })?;
    Ok(tally)
}

/// Some samples come, with the guest running again and again.
fn samples(session: &mut Session, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let mut count = 0;
    while count < 3 {
        meanwhile()?;
        count += session.read(64)?.len();
        thread::sleep(Duration::from_millis(3));
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "no samples have come for a minute"
        );
    }
    Ok(())
}
