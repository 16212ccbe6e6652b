// SPDX-License-Identifier: GPL-2.0

//! What the sampler's files promise to those who call them, beyond samples that are
//! true: who waits is woken, what is asked for counts from then on, and who may ask.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::machine::{Machine, Runner, Shape, Space};
use crate::pages::{self, Program, Touch, DATA, PAGE};
use crate::sampling::{self, old, Config, Session, EXEC, READ, WRITE};

/// Hold the calls of the sampler's files to what they promise
///
/// Prints `sample-calls PROMISE N`, how often it was kept, and fails when it was not.
#[derive(clap::Args)]
pub struct Args {
    /// What to look at
    #[arg(value_enum)]
    promise: Promise,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 50)]
    rounds: u32,
    /// What takes longer than so many seconds will not come
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Promise {
    /// Who polls a file is woken when its session stops, and by the samples of the
    /// next session
    Waiters,
    /// Pages that were armed for writes are armed for reads once those are asked for
    Widened,
    /// Of two threads, one of which sets the accesses and one the frequency, neither
    /// undoes what the other did
    Parameters,
    /// A page that was taken away is accessed by nobody before there is a sample of it.
    /// It takes two CPUs: with one, no vCPU is in its guest when others look
    Flushed,
    /// Who must not trace a process gets no samples of its VM, whoever opened the file
    Refused,
}

/// Pages that a guest touches, one after the other.
const PAGES: u64 = 200;

/// Does one of them.
pub fn run(args: &Args) -> Result<()> {
    let rounds = args.rounds;
    let patience = Duration::from_secs(args.patience);
    let (name, kept) = match args.promise {
        Promise::Waiters => ("waiters", waiters(rounds, patience)?),
        Promise::Widened => ("widened", widened(patience)?),
        Promise::Parameters => ("parameters", parameters(rounds, patience)?),
        Promise::Flushed => ("flushed", flushed(rounds, patience)?),
        Promise::Refused => ("refused", refused()?),
    };
    writeln!(io::stdout(), "sample-calls {name} {kept}")?;
    Ok(())
}

fn machine() -> Result<Arc<Machine>> {
    let space = Arc::new(Space::new(16 << 20, false)?);
    Ok(Arc::new(Machine::new(space, Shape::default())?))
}

fn config(machine: &Machine) -> Config {
    Config::of(std::process::id(), machine.fd.as_raw_fd())
}

/// A guest that touches its pages over and over, each of them there to be written.
fn touching(machine: &Arc<Machine>, touch: Touch) -> Result<Runner> {
    let first = DATA / PAGE;
    let list: Vec<_> = (first..first + PAGES).map(|gfn| (gfn, touch)).collect();
    for (gfn, _) in &list {
        machine.space.set(gfn * PAGE, 1)?;
    }
    let mut vcpu = machine.vcpu(0, Program::Sweep)?;
    vcpu.list(&list)?;
    vcpu.set(pages::REPEAT, 1)?;
    vcpu.order()?;
    Ok(vcpu)
}

/// Waits until it is so.
fn until(patience: Duration, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so()? {
        ensure!(began.elapsed() < patience, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

// --- waiters

/// Something that waits for a file.
#[derive(Clone, Copy)]
enum Waiter<'a> {
    Poll(&'a File),
    /// One that was told of the file at the beginning, by edges.
    Epoll(&'a OwnedFd),
}

impl Waiter<'_> {
    /// What it is told, or 0 when it is told nothing for so long.
    fn wait(self, patience: Duration) -> io::Result<u32> {
        let ms = patience.as_millis() as i32;
        match self {
            Waiter::Poll(file) => {
                let mut poll = libc::pollfd {
                    fd: file.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: One entry, which is there.
                match unsafe { libc::poll(&mut poll, 1, ms) } {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(poll.revents as u32),
                }
            }
            Waiter::Epoll(epoll) => {
                let mut event = libc::epoll_event { events: 0, u64: 0 };
                // SAFETY: Room for one event, which is there.
                match unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, ms) } {
                    -1 => Err(io::Error::last_os_error()),
                    0 => Ok(0),
                    _ => Ok(event.events),
                }
            }
        }
    }
}

fn epoll_of(file: &File) -> Result<OwnedFd> {
    // SAFETY: It takes no memory of ours, and the descriptor is new.
    let epoll = unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        ensure!(fd >= 0, "no epoll: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLET) as u32,
        u64: 0,
    };
    // SAFETY: The event is only read.
    let failed = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            file.as_raw_fd(),
            &mut event,
        )
    };
    ensure!(failed == 0, "epoll_ctl: {}", io::Error::last_os_error());
    Ok(epoll)
}

/// Has both waiters wait while something is done that must wake them with `wanted`.
fn woken(
    patience: Duration,
    what: &str,
    waiters: [Waiter; 2],
    wanted: u32,
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let threads = waiters.map(|waiter| scope.spawn(move || waiter.wait(patience)));
        // So that they do wait; if not, they are told without having to be woken.
        thread::sleep(Duration::from_millis(20));
        act()?;
        for (thread, name) in threads.into_iter().zip(["poll", "epoll"]) {
            let told = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
            ensure!(
                told & wanted == wanted,
                "{name} is told {told:#x}, not {wanted:#x}, when {what}"
            );
        }
        Ok(())
    })
}

/// The epoll is in the file's wait queue throughout.
fn waiters(rounds: u32, patience: Duration) -> Result<u64> {
    const ERROR: u32 = libc::EPOLLERR as u32;
    const IN: u32 = libc::EPOLLIN as u32;
    let machine = machine()?;
    let _vcpu = touching(&machine, Touch::Both)?;
    let paused = Config {
        rate: 0,
        ..config(&machine)
    };
    let running = Config {
        rate: 1000,
        ..paused
    };

    let mut session = Session::start(paused)?;
    let epoll = epoll_of(&session.file)?;
    for _ in 0..rounds {
        // Another description of the same file, for those who wait meanwhile.
        let file = session.file.try_clone()?;
        let both = [Waiter::Poll(&file), Waiter::Epoll(&epoll)];
        for waiter in both {
            let told = waiter.wait(Duration::ZERO)?;
            ensure!(told == 0, "{told:#x} of a session that is paused");
        }
        woken(patience, "samples come", both, IN, || {
            Ok(session.change(running)?)
        })?;
        session.change(paused)?;
        while !session.read(256)?.is_empty() {}
        // An edge that was seen by nobody is none.
        Waiter::Epoll(&epoll).wait(Duration::ZERO)?;
        woken(patience, "the session stops", both, ERROR, || {
            Ok(session.stop()?)
        })?;
        session = Session::begin(session.file, paused)?;
    }
    Ok(rounds.into())
}

// --- what is asked for

/// Pages that are only read, by a session that asks for writes, and then for all.
fn widened(patience: Duration) -> Result<u64> {
    let machine = machine()?;
    let _vcpu = touching(&machine, Touch::Read)?;
    let all = config(&machine);
    let mut session = Session::start(Config {
        access: WRITE.into(),
        ..all
    })?;
    let mut armed = 0;
    until(patience, "all pages are armed for writes", || {
        session.read(256)?;
        let stats = session.stats()?;
        armed = stats.armed - stats.taken - stats.filtered - stats.disarmed;
        Ok(armed >= PAGES)
    })?;
    session.change(Config {
        access: u32::from(READ | WRITE | EXEC),
        ..all
    })?;
    let pages = DATA / PAGE..DATA / PAGE + PAGES;
    let mut found = BTreeSet::new();
    let result = until(patience, "all pages are found to be read", || {
        for record in session.read(256)? {
            if pages.contains(&record.gfn) {
                ensure!(
                    record.access == READ,
                    "a page that is only read: {record:?}"
                );
                found.insert(record.gfn);
            }
        }
        Ok(found.len() as u64 == PAGES)
    });
    result.with_context(|| format!("{armed} pages were armed, and {} found", found.len()))?;
    Ok(PAGES)
}

/// A session of the file that programs of old have.
struct Old(File);

impl Old {
    fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(sampling::OLD);
        Ok(Self(file.with_context(|| sampling::OLD.to_string())?))
    }

    fn call(&self, command: libc::Ioctl, argument: u32) -> io::Result<()> {
        // SAFETY: The argument is a number and no pointer.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), command, libc::c_ulong::from(argument)) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The kinds of the samples that wait.
    fn kinds(&self) -> Result<Vec<u8>> {
        let mut bytes = [0; 4096];
        let length = (&self.0).read(&mut bytes).context("reading samples")?;
        Ok(bytes[..length].chunks_exact(4).map(|s| s[3] >> 5).collect())
    }

    fn drain(&self) -> Result<()> {
        while !self.kinds()?.is_empty() {}
        Ok(())
    }
}

/// While one thread sets one of the two over and over to what it is, another changes
/// the other one, and sees by the samples whether that stays.
fn parameters(rounds: u32, patience: Duration) -> Result<u64> {
    let machine = machine()?;
    let _vcpu = touching(&machine, Touch::Both)?;
    let session = Old::open()?;
    session.call(old::INIT, std::process::id())?;
    session.call(old::SET_FREQ, 2000)?;

    meanwhile(
        || session.call(old::SET_PROT, u32::from(READ | WRITE)),
        || {
            for _ in 0..rounds {
                session.call(old::SET_FREQ, 0)?;
                session.drain()?;
                thread::sleep(Duration::from_millis(20));
                ensure!(
                    session.kinds()?.is_empty(),
                    "samples, after the frequency was set to 0"
                );
                session.call(old::SET_FREQ, 2000)?;
                until(patience, "samples at 2000 a second", || {
                    Ok(!session.kinds()?.is_empty())
                })?;
            }
            Ok(())
        },
    )?;
    meanwhile(
        || session.call(old::SET_FREQ, 2000),
        || {
            for round in 0..rounds {
                let kind = if round % 2 == 0 { READ } else { WRITE };
                session.call(old::SET_PROT, kind.into())?;
                session.drain()?;
                let mut kinds = Vec::new();
                until(patience, "samples of a kind", || {
                    kinds.extend(session.kinds()?);
                    Ok(kinds.len() >= 3)
                })?;
                ensure!(
                    kinds.iter().all(|&got| got == kind),
                    "kinds {kinds:?}, after {kind} was set"
                );
            }
            Ok(())
        },
    )?;
    Ok(2 * u64::from(rounds))
}

/// Does one thing all the time, in a thread of its own, until the other is done.
fn meanwhile(
    again: impl Fn() -> io::Result<()> + Sync,
    once: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                again()?;
            }
            io::Result::Ok(())
        });
        let result = once();
        over.store(true, Ordering::Relaxed);
        match thread.join() {
            Ok(ended) => ended.context("in the other thread")?,
            Err(_) => bail!("a thread panicked"),
        }
        result
    })
}

// --- taking away

/// A guest each of whose passes accesses all that is mapped: its code, its control page
/// and a page of data. So what was armed before a whole pass is a sample after it.
fn flushed(rounds: u32, patience: Duration) -> Result<u64> {
    let machine = machine()?;
    let vcpu = machine.vcpu(0, Program::Scribble)?;
    vcpu.set(pages::BASE, DATA as u32)?;
    vcpu.set(pages::COUNT, 1)?;
    vcpu.start()?;
    let session = Session::start(Config {
        rate: 2000,
        ..config(&machine)
    })?;
    let mut last = 0;
    for _ in 0..rounds {
        let mut before = session.stats()?;
        until(patience, "something is taken away", || {
            before = session.stats()?;
            Ok(before.armed > last)
        })?;
        last = before.armed;
        let done = vcpu.get(pages::DONE)?;
        let began = Instant::now();
        // The first may have been in the middle of it.
        while vcpu.get(pages::DONE)?.wrapping_sub(done) < 2 {
            ensure!(began.elapsed() < patience, "the guest does not go on");
            thread::yield_now();
        }
        let after = session.stats()?;
        let gone = after.taken + after.filtered + after.disarmed;
        ensure!(
            gone >= before.armed,
            "{} pages were taken away, all of them were accessed since, and there are {gone} samples",
            before.armed
        );
    }
    vcpu.set(pages::STOP, 1)?;
    vcpu.wait()?;
    Ok(rounds.into())
}

// --- who may

/// Both files, opened by root, in the hands of a process that is nobody's.
fn refused() -> Result<u64> {
    let machine = machine()?;
    let _vcpu = touching(&machine, Touch::Read)?;
    let file = sampling::open()?;
    let old = Old::open()?;
    let config = config(&machine);
    let parent = std::process::id();
    // Only system calls in the child: this process has other threads.
    // SAFETY: The child makes nothing but system calls, with memory that is there.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "fork failed: {}", io::Error::last_os_error());
    if pid == 0 {
        const NOBODY: libc::uid_t = 65534;
        // SAFETY: As above. The kernel reads as much as the struct has.
        unsafe {
            let mut status = 0;
            if libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) != 0
                || libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) != 0
            {
                status |= 4;
            }
            let denied =
                |result: libc::c_int| result == -1 && *libc::__errno_location() == libc::EPERM;
            if !denied(libc::ioctl(file.as_raw_fd(), sampling::START, &config)) {
                status |= 1;
            }
            if !denied(libc::ioctl(
                old.0.as_raw_fd(),
                old::INIT,
                libc::c_ulong::from(parent),
            )) {
                status |= 2;
            }
            libc::_exit(status)
        }
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    ensure!(waited == pid && libc::WIFEXITED(status), "a child died");
    match libc::WEXITSTATUS(status) {
        0 => {}
        1..4 => bail!("nobody was given samples of root's VM"),
        _ => bail!("the child could not become nobody"),
    }
    // It was for nothing else.
    Session::begin(file, config).context("root")?.stop()?;
    old.call(old::INIT, parent).context("root, of old")?;
    Ok(2)
}
