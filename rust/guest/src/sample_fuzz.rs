// SPDX-License-Identifier: GPL-2.0

//! The sampler's files under random and hostile use, of VMs that are killed
//! meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::pages::PAGE;
use crate::sampling::{self, old, Config, Ring, Session, Slot, Slots, Stats};
use crate::victim::Victim;

/// Use the sampler's files at random
///
/// Does N random things to some open files of either kind: ioctls with arguments
/// that are right, a little wrong or hostile pointers, reads, polls, mappings,
/// closing; of VMs in processes of their own that write to their memory and are
/// killed at any moment. Prints `sample-fuzz operations N done N refused N started N
/// killed N samples N`; fails on an error number that none of the interfaces has, and
/// when a session cannot be had in the end.
#[derive(clap::Args)]
pub struct Args {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    operations: u32,
    /// A VM is killed at most so many milliseconds after it was started
    #[arg(long, value_name = "MS", default_value_t = 300)]
    within: u64,
    /// Seed of it all
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Default)]
struct Tally {
    done: u64,
    refused: u64,
    started: u64,
    killed: u64,
    samples: u64,
}

/// What the interfaces may refuse with.
const REFUSALS: [i32; 13] = [
    libc::EINVAL,
    libc::EFAULT,
    libc::E2BIG,
    libc::EBUSY,
    libc::ESRCH,
    libc::EIO,
    libc::ENODEV,
    libc::ENOTTY,
    libc::EAGAIN,
    libc::ENOMEM,
    libc::EACCES,
    libc::EPERM,
    libc::EINTR,
];

/// Does it all.
pub fn run(args: &Args) -> Result<()> {
    // SAFETY: A new private mapping of two pages, of no Rust object, the second of
    // which is then taken away.
    let edge = unsafe {
        let at = libc::mmap(
            ptr::null_mut(),
            2 * PAGE as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        ensure!(at != libc::MAP_FAILED, "no memory");
        libc::munmap(at.add(PAGE as usize), PAGE as usize);
        at as u64 + PAGE
    };
    let mut fuzz = Fuzz {
        random: fastrand::Rng::with_seed(args.seed),
        within: args.within,
        edge,
        buffer: vec![0; 512],
        victims: Vec::new(),
        files: Vec::new(),
        tally: Tally::default(),
    };
    for _ in 0..args.operations {
        fuzz.step()?;
    }
    for (_, victim) in std::mem::take(&mut fuzz.victims) {
        fuzz.kill(victim)?;
    }
    drop(std::mem::take(&mut fuzz.files));

    let survivor = Victim::start(1, fuzz.random.u32(..))?;
    let result = works(&survivor);
    fuzz.kill(survivor)?;
    result.context("after all that, a session does not work")?;
    let tally = &fuzz.tally;
    writeln!(
        io::stdout(),
        "sample-fuzz operations {} done {} refused {} started {} killed {} samples {}",
        args.operations,
        tally.done,
        tally.refused,
        tally.started,
        tally.killed,
        tally.samples
    )?;
    Ok(())
}

fn works(victim: &Victim) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let vm = loop {
        if let Some(fd) = victim.fd()? {
            break fd;
        }
        ensure!(Instant::now() < deadline, "there is no VM");
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut session = Session::start(Config::of(victim.pid as u32, vm))?;
    while session.read(16)?.is_empty() {
        ensure!(Instant::now() < deadline, "there are no samples");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

struct Open {
    file: File,
    old: bool,
    ring: Option<Ring>,
    records: u32,
}

struct Fuzz {
    random: fastrand::Rng,
    within: u64,
    /// The first address after a page that is there.
    edge: u64,
    buffer: Vec<u64>,
    /// With the time at which each is killed.
    victims: Vec<(Instant, Victim)>,
    files: Vec<Open>,
    tally: Tally,
}

impl Fuzz {
    fn kill(&mut self, victim: Victim) -> Result<()> {
        victim.kill()?;
        self.tally.killed += 1;
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(next) = self.victims.iter().position(|(dies, _)| *dies <= now) {
            let (_, victim) = self.victims.swap_remove(next);
            self.kill(victim)?;
        }
        if self.victims.len() < 3 {
            let delay = Duration::from_micros(self.random.u64(0..=self.within * 1000));
            let victim = Victim::start(1, self.random.u32(..))?;
            self.victims.push((Instant::now() + delay, victim));
        }
        if self.files.len() < 5 {
            let old = self.random.u32(0..3) == 0;
            let path = if old { sampling::OLD } else { sampling::DEVICE };
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .with_context(|| format!("opening {path}"))?;
            self.files.push(Open {
                file,
                old,
                ring: None,
                records: 0,
            });
        }
        let chosen = self.random.usize(0..self.files.len());
        match self.random.u32(0..20) {
            0 => drop(self.files.swap_remove(chosen)),
            1 => self.map(chosen),
            2..5 => self.read(chosen)?,
            5 => self.poll(chosen),
            6 => {
                let value = self.random.u64(..);
                if let Some(ring) = &self.files[chosen].ring {
                    ring.scribble(value >> self.random.u32(0..64));
                }
            }
            _ if self.files[chosen].old => self.old_ioctl(chosen)?,
            _ => self.ioctl(chosen)?,
        }
        Ok(())
    }

    fn verdict(&mut self, result: i64, what: &str) -> Result<()> {
        if result >= 0 {
            self.tally.done += 1;
            return Ok(());
        }
        let error = io::Error::last_os_error();
        let number = error.raw_os_error().unwrap_or(0);
        ensure!(REFUSALS.contains(&number), "{what}: {error}");
        self.tally.refused += 1;
        Ok(())
    }

    fn hostile(&mut self) -> u64 {
        match self.random.u32(0..6) {
            0 => 0,
            1 => u64::MAX - self.random.u64(0..100),
            2 => 0xffff_8880_0000_0000 + self.random.u64(..) % (1 << 30),
            3 => self.edge - self.random.u64(0..80),
            4 => 1 << 47,
            _ => self.random.u64(..),
        }
    }

    fn pid(&mut self) -> i32 {
        if self.random.u32(0..8) == 0 {
            return self.random.i32(-2..5000);
        }
        let index = self.random.usize(0..self.victims.len());
        self.victims[index].1.pid
    }

    fn ioctl(&mut self, chosen: usize) -> Result<()> {
        let mut config = Config {
            strategy: self.random.u32(0..2),
            access: self.random.u32(1..8),
            rate: self.random.u32(0..2000),
            ring_records: 64 << self.random.u32(0..8),
            ..Config::of(self.pid() as u32, -1)
        };
        if self.random.u32(0..4) == 0 {
            // A word of it may be anything.
            let word = self.random.usize(0..16);
            let mut words: [u32; 16] = [0; 16];
            // SAFETY: Both are 64 bytes of integers.
            unsafe {
                ptr::copy_nonoverlapping((&raw const config).cast(), words.as_mut_ptr(), 16);
                words[word] = self.random.u32(..) >> self.random.u32(0..32);
                ptr::copy_nonoverlapping(words.as_ptr(), (&raw mut config).cast(), 16);
            }
        }
        let mut stats = Stats {
            size: match self.random.u32(0..3) {
                0 => self.random.u32(0..size_of::<Stats>() as u32 + 1),
                _ => size_of::<Stats>() as u32,
            },
            ..Stats::default()
        };
        let mut room = [Slot::default(); 8];
        let mut slots = Slots {
            size: size_of::<Slots>() as u32,
            capacity: self.random.u32(0..=8),
            slots: room.as_mut_ptr() as u64,
            ..Slots::default()
        };
        if self.random.u32(0..4) == 0 {
            slots.slots = self.hostile();
        }
        let commands = [
            (sampling::GET_VERSION, 0),
            (sampling::START, &raw mut config as u64),
            (sampling::START, &raw mut config as u64),
            (sampling::CHANGE, &raw mut config as u64),
            (sampling::STOP, 0),
            (sampling::STATS, &raw mut stats as u64),
            (sampling::MEMSLOTS, &raw mut slots as u64),
        ];
        let (mut command, mut argument) = commands[self.random.usize(0..commands.len())];
        match self.random.u32(0..10) {
            0 => argument = self.hostile(),
            1 => command = (command & !0xff) | libc::Ioctl::from(self.random.u8(..)),
            _ => {}
        }
        // SAFETY: What the kernel writes to is of the size that it is told, or an
        // address that it must refuse: nothing of ours is near those that are hostile.
        let result = unsafe {
            libc::ioctl(
                self.files[chosen].file.as_raw_fd(),
                command,
                argument as usize,
            )
        };
        if result == 0 && command == sampling::START {
            self.tally.started += 1;
            self.files[chosen].records = config.ring_records;
        }
        self.verdict(result.into(), &format!("ioctl {command:x} of {argument:x}"))
    }

    fn old_ioctl(&mut self, chosen: usize) -> Result<()> {
        let slots = self.buffer.as_mut_ptr() as u64;
        let mut asked = [slots, self.random.u64(0..8), 0];
        if self.random.u32(0..4) == 0 {
            asked[self.random.usize(0..2)] = self.hostile();
            if asked[0] == slots {
                asked[1] %= 64;
            }
        }
        let command = self.random.u32(1199..1206) as libc::Ioctl;
        let argument = match command {
            _ if self.random.u32(0..10) == 0 && command != old::GET_MEMSLOTS => self.hostile(),
            old::INIT => self.pid() as u64,
            old::SET_PROT => self.random.u64(0..9),
            old::SET_FREQ => self.random.u64(0..3000),
            old::GET_MEMSLOTS if self.random.u32(0..5) == 0 => self.hostile(),
            _ => asked.as_mut_ptr() as u64,
        };
        let fd = self.files[chosen].file.as_raw_fd();
        // SAFETY: As above; slots are three words each, and there is room for 64.
        let result = unsafe { libc::ioctl(fd, command, argument as usize) };
        self.tally.started += u64::from(result == 0 && command == old::INIT);
        self.verdict(
            result.into(),
            &format!("old ioctl {command} of {argument:x}"),
        )
    }

    fn read(&mut self, chosen: usize) -> Result<()> {
        if self.random.u32(0..4) == 0 {
            let (to, size) = (self.hostile(), self.random.usize(0..5000));
            let fd = self.files[chosen].file.as_raw_fd();
            // SAFETY: The kernel must refuse to write there.
            let result = unsafe { libc::read(fd, to as *mut libc::c_void, size) };
            return self.verdict(result as i64, &format!("read to {to:x}"));
        }
        let size = self.random.usize(0..4096);
        let mut bytes = vec![0; size];
        let result = match self.files[chosen].file.read(&mut bytes) {
            Ok(length) => {
                let each = if self.files[chosen].old { 4 } else { 32 };
                ensure!(length % each == 0, "{length} bytes are no samples");
                self.tally.samples += (length / each) as u64;
                length as i64
            }
            Err(_) => -1,
        };
        self.verdict(result, "read")
    }

    fn poll(&mut self, chosen: usize) {
        let mut poll = libc::pollfd {
            fd: self.files[chosen].file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: One entry, which is there.
        unsafe { libc::poll(&mut poll, 1, 0) };
    }

    fn map(&mut self, chosen: usize) {
        let open = &mut self.files[chosen];
        let Ok(file) = open.file.try_clone() else {
            return;
        };
        let session = Session {
            file,
            config: Config {
                ring_records: if self.random.bool() {
                    open.records
                } else {
                    64 << self.random.u32(0..8)
                },
                ..Config::of(0, 0)
            },
        };
        open.ring = Ring::map(&session).ok();
    }
}
