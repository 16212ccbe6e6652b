// SPDX-License-Identifier: GPL-2.0

//! One system call at random, and what may come of it.

use std::ffi::c_void;
use std::io;
use std::ptr;

use anyhow::{ensure, Context, Result};
use fastrand::Rng;

use super::targets::{self, Vms};
use crate::sampling;

/// As many descriptors as are open at a time.
const SLOTS: usize = 12;
/// Memory that may be read and written; nothing is mapped around it.
const ARENA: usize = 1 << 14;
const GUARD: usize = 1 << 16;
/// Errors for userspace have lower numbers: those above are the kernel's own.
const MAX_ERRNO: i32 = 133;
/// One call in so many looks first which VMs there are.
const LOOKS: u32 = 16;
const FILL: u8 = 0xa5;
/// What is asked of a session of samples; most need that it has begun.
const SESSION: [libc::Ioctl; 8] = [
    sampling::GET_VERSION,
    sampling::START,
    sampling::START,
    sampling::CHANGE,
    sampling::STOP,
    sampling::STATS,
    sampling::MEMSLOTS,
    sampling::MEMSLOTS,
];

/// An address to give to the kernel.
struct Place {
    address: usize,
    /// How much may be read and written there.
    room: usize,
}

/// Makes calls, and holds what is open.
pub struct Caller {
    /// Inaccessible, [`ARENA`], inaccessible, a page that is read-only.
    base: usize,
    slots: [Option<Slot>; SLOTS],
    vms: Vms,
}

/// A file that is open.
struct Slot {
    fd: i32,
    map: Option<Map>,
}

/// A mapping of it.
struct Map {
    address: usize,
    size: usize,
    writable: bool,
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: It was mapped so, and nothing refers to it.
        unsafe { libc::munmap(self.address as *mut c_void, self.size) };
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.map = None;
        // SAFETY: It is open and only ours.
        unsafe { libc::close(self.fd) };
    }
}

/// What a call returned; more than `most` must not be possible.
fn returned(result: i64, most: usize) -> Result<bool> {
    if result >= 0 {
        ensure!(
            result as u64 <= most as u64,
            "{result} returned, where {most} is the most that can be"
        );
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    let number = error.raw_os_error().unwrap_or(0);
    ensure!(
        (1..=MAX_ERRNO).contains(&number),
        "failed with {number}, which is no error of userspace's"
    );
    Ok(false)
}

impl Caller {
    /// With nothing open.
    pub fn new() -> Result<Self> {
        let size = 2 * GUARD + ARENA + 4096;
        // SAFETY: A new mapping where there is room.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(base != libc::MAP_FAILED, "no memory for buffers");
        let base = base as usize;
        for (offset, size, protection) in [
            (GUARD, ARENA, libc::PROT_READ | libc::PROT_WRITE),
            (2 * GUARD + ARENA, 4096, libc::PROT_READ),
        ] {
            let start = (base + offset) as *mut c_void;
            // SAFETY: Within the new mapping, which nothing uses yet.
            let failed = unsafe { libc::mprotect(start, size, protection) };
            ensure!(
                failed == 0,
                "mprotect failed: {}",
                io::Error::last_os_error()
            );
        }
        Ok(Self {
            base,
            slots: [const { None }; SLOTS],
            vms: Vms::default(),
        })
    }

    fn arena(&mut self) -> &mut [u8] {
        // SAFETY: It is mapped for as long as the process lives and nothing else
        // refers to it; the kernel writes to it during calls only, in which no
        // such reference is alive.
        unsafe { std::slice::from_raw_parts_mut((self.base + GUARD) as *mut u8, ARENA) }
    }

    /// Where to read from or write to, usually with room for `size`.
    fn place(&self, random: &mut Rng, size: usize) -> Place {
        let start = self.base + GUARD;
        let inside = ARENA.saturating_sub(size.clamp(1, ARENA));
        let nowhere = |address| Place { address, room: 0 };
        match random.u32(0..20) {
            0 => nowhere(0),
            1 => nowhere(random.usize(1..4096)),
            // Half of it, perhaps.
            2 => {
                let room = random.usize(0..=size.min(ARENA));
                let address = start + ARENA - room;
                Place { address, room }
            }
            3 => nowhere(self.base + 2 * GUARD + ARENA),
            4 => nowhere(0xffff_8880_0000_0000 + random.usize(0..1 << 30)),
            5 => nowhere(0xffff_ffff_8100_0000),
            6 => nowhere(0x8000_0000_0000_0000 | random.usize(..)),
            7 => nowhere(usize::MAX - random.usize(0..64)),
            _ => {
                let address = start + random.usize(0..=inside);
                let room = start + ARENA - address;
                Place { address, room }
            }
        }
    }

    fn size(random: &mut Rng) -> usize {
        match random.u32(0..10) {
            0 => 0,
            1 => 1,
            2 => random.usize(0..64),
            3 => random.usize(0..4096),
            4 => 4096,
            5 => ARENA,
            6 => random.usize(..),
            7 => usize::MAX - random.usize(0..8192),
            8 => 1 << random.u32(0..40),
            _ => random.usize(0..ARENA),
        }
    }

    fn offset(random: &mut Rng) -> i64 {
        match random.u32(0..6) {
            0 => 0,
            1 => random.i64(0..100),
            2 => random.i64(0..1 << 20),
            3 => random.i64(..),
            4 => i64::MAX - random.i64(0..8192),
            _ => -random.i64(0..8192),
        }
    }

    /// Makes one call; says whether it succeeded.
    pub fn step(&mut self, random: &mut Rng) -> Result<bool> {
        if random.u32(0..LOOKS) == 0 {
            self.vms.look();
        }
        let slot = random.usize(0..SLOTS);
        let Some(fd) = self.slots[slot].as_ref().map(|slot| slot.fd) else {
            return self.open(slot, random).context("open");
        };
        match random.u32(0..100) {
            0..8 => {
                self.slots[slot] = None;
                Ok(true)
            }
            8..30 => self.read(fd, random).context("read"),
            30..37 => self.read_scattered(fd, random).context("readv"),
            37..62 => self.write(fd, random).context("write"),
            62..70 => {
                let (to, whence) = (Self::offset(random), random.i32(-1..6));
                // SAFETY: No memory is involved.
                returned(unsafe { libc::lseek(fd, to, whence) }, usize::MAX)
            }
            70..75 => self.map(slot, random).context("mmap"),
            75..78 => {
                self.scribble(slot, random);
                Ok(true)
            }
            78..94 => self.ioctl(fd, random).context("ioctl"),
            _ => self.poll(fd, random).context("poll"),
        }
    }

    fn open(&mut self, slot: usize, random: &mut Rng) -> Result<bool> {
        let path = targets::path(&self.vms, random);
        let extra = [0, 0, 0, libc::O_TRUNC, libc::O_APPEND, libc::O_DIRECT];
        // Nobody would wake up one who waits.
        let flags = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]
            [random.usize(0..4)]
            | extra[random.usize(0..extra.len())]
            | libc::O_NONBLOCK
            | libc::O_CLOEXEC;
        // SAFETY: The path is a string that ends.
        let fd = unsafe { libc::open(path.as_ptr(), flags) };
        let opened = returned(fd.into(), 1 << 20)?;
        if opened {
            self.slots[slot] = Some(Slot { fd, map: None });
        }
        Ok(opened)
    }

    fn read(&mut self, fd: i32, random: &mut Rng) -> Result<bool> {
        let size = Self::size(random);
        let place = self.place(random, size);
        let end = place.address.wrapping_add(size);
        self.arena().fill(FILL);
        let to = place.address as *mut c_void;
        let result = if random.bool() {
            // SAFETY: What the kernel can write to there is the arena, or nothing.
            unsafe { libc::read(fd, to, size) }
        } else {
            // SAFETY: The same.
            unsafe { libc::pread(fd, to, size, Self::offset(random)) }
        };
        let start = self.base + GUARD;
        if (start..start + ARENA).contains(&end) {
            let beyond = &self.arena()[end - start..];
            ensure!(
                beyond.iter().all(|byte| *byte == FILL),
                "{size} bytes were asked for, and more were written"
            );
        }
        returned(result as i64, size.min(place.room))
    }

    fn read_scattered(&mut self, fd: i32, random: &mut Rng) -> Result<bool> {
        let mut most = 0;
        let parts: Vec<libc::iovec> = (0..random.usize(0..6))
            .map(|_| {
                let size = random.usize(0..3000);
                let place = self.place(random, size);
                most += size;
                libc::iovec {
                    iov_base: place.address as *mut c_void,
                    iov_len: size,
                }
            })
            .collect();
        // SAFETY: The parts are as many as is said; what the kernel can write to is
        // the arena, or nothing.
        let result = unsafe { libc::readv(fd, parts.as_ptr(), parts.len() as i32) };
        returned(result as i64, most)
    }

    fn write(&mut self, fd: i32, random: &mut Rng) -> Result<bool> {
        let (place, size) = if random.u32(0..5) == 0 {
            let size = Self::size(random);
            (self.place(random, size), size)
        } else {
            let bytes = targets::words(random);
            let place = self.place(random, bytes.len());
            let start = self.base + GUARD;
            if place.room >= bytes.len() && !bytes.is_empty() {
                let at = place.address - start;
                self.arena()[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            (place, bytes.len())
        };
        let from = place.address as *const c_void;
        let result = if random.u32(0..4) > 0 {
            // SAFETY: The kernel only reads.
            unsafe { libc::write(fd, from, size) }
        } else {
            // SAFETY: The kernel only reads.
            unsafe { libc::pwrite(fd, from, size, Self::offset(random)) }
        };
        returned(result as i64, size)
    }

    fn map(&mut self, slot: usize, random: &mut Rng) -> Result<bool> {
        let Some(slot) = &mut self.slots[slot] else {
            return Ok(false);
        };
        // What a stream's mapping has: a page, and records of 32 bytes.
        let size = match random.u32(0..3) {
            0 => 4096 + (32 << random.u32(6..17)),
            1 => random.usize(0..1 << 20),
            _ => Self::size(random),
        };
        let writable = random.u32(0..4) > 0;
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            [libc::PROT_READ, libc::PROT_EXEC][random.usize(0..2)]
        };
        let flags = [libc::MAP_SHARED, libc::MAP_SHARED, libc::MAP_PRIVATE][random.usize(0..3)];
        let offset = if random.bool() {
            0
        } else {
            Self::offset(random)
        };
        // SAFETY: A new mapping where there is room.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, slot.fd, offset) };
        if address == libc::MAP_FAILED {
            return returned(-1, 0);
        }
        slot.map = Some(Map {
            address: address as usize,
            size,
            writable,
        });
        Ok(true)
    }

    /// Writes anything to a mapping, where the kernel might believe it.
    fn scribble(&mut self, slot: usize, random: &mut Rng) {
        let map = self.slots[slot].as_ref().and_then(|slot| slot.map.as_ref());
        let Some(&Map { address, size, .. }) = map.filter(|map| map.writable && map.size >= 8)
        else {
            return;
        };
        for _ in 0..random.u32(1..8) {
            // Most of what is to be believed is at the front.
            let within = if random.bool() { 256 } else { size };
            let at = random.usize(0..=within.min(size) - 8) & !7;
            let value = if random.bool() {
                random.u64(..)
            } else {
                random.u64(0..1 << 20)
            };
            // SAFETY: Within the mapping, aligned, and nothing in this process refers
            // to it; a file that cannot be had so far refuses to be mapped.
            unsafe { ptr::write_volatile((address + at) as *mut u64, value) };
        }
    }

    fn ioctl(&mut self, fd: i32, random: &mut Rng) -> Result<bool> {
        // Of a session of samples, of either kind; the same in disorder; and KVM's.
        let known = SESSION[random.usize(0..SESSION.len())] as u32;
        let request = match random.u32(0..10) {
            0..5 => known,
            5 => (random.u32(0..4) << 30) | (random.u32(0..200) << 16) | (known & 0xffff),
            6..8 => sampling::old::INIT as u32 - 1 + random.u32(0..8),
            8 => (known & !0xffff) | (0xae << 8) | random.u32(0..256),
            _ => (random.u32(..) & !0xff00) | 0xe500,
        };
        let place = self.place(random, 4096);
        if place.room >= 256 {
            self.argue(&place, request, random);
        }
        let argument = match random.u32(0..6) {
            0 => self.vms.one(random).map_or(0, |(pid, _)| pid as usize),
            1 => random.usize(0..100_000),
            _ => place.address,
        };
        // SAFETY: Whatever the kernel takes the argument for, what it can write to
        // is the arena, or nothing: so it is of what the arena points to.
        let result = unsafe { libc::ioctl(fd, request as libc::Ioctl, argument) };
        returned(result.into(), i32::MAX as usize)
    }

    /// Lets the argument look like one of the request's.
    fn argue(&mut self, place: &Place, request: u32, random: &mut Rng) {
        let mut words = [0u32; 64];
        let table = self.place(random, 1024).address as u64;
        let table = [table as u32, (table >> 32) as u32];
        // The size at the front, and what may be anything: no address, which would be one
        // of another mapping.
        let (mut sized, mut any) = (true, 0..24);
        if request == sampling::MEMSLOTS as u32 {
            // A table to be filled in: how many, and where.
            words[0] = size_of::<sampling::Slots>() as u32;
            words[1] = random.u32(0..1000);
            words[4..6].copy_from_slice(&table);
            any = 1..4;
        } else if request == sampling::old::GET_MEMSLOTS as u32 {
            words[..2].copy_from_slice(&table);
            words[2] = random.u32(0..1000);
            (sized, any) = (false, 2..24);
        } else if request == sampling::STATS as u32 {
            words[0] = size_of::<sampling::Stats>() as u32;
        } else {
            words[0] = size_of::<sampling::Config>() as u32;
            let (pid, fd) = self.vms.one(random).unwrap_or((1, 3));
            let kinds = [pid as u32, if random.bool() { fd as u32 } else { u32::MAX }];
            words[2..4].copy_from_slice(&kinds);
            words[4] = random.u32(0..3);
            words[5] = random.u32(0..9);
            words[6] = [0, 1, 1000, 1_000_000, random.u32(..)][random.usize(0..5)];
            words[7] = [0, 1, 10_000, random.u32(..)][random.usize(0..4)];
            words[8] = [0, 64, 1024, 65536, random.u32(..)][random.usize(0..5)];
        }
        if sized && random.u32(0..6) == 0 {
            words[0] = [0, 4, 32, 96, 4096][random.usize(0..5)];
        }
        if random.u32(0..4) == 0 {
            words[random.usize(any)] = random.u32(..);
        }
        let at = place.address - (self.base + GUARD);
        for (to, word) in self.arena()[at..at + 256].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn poll(&self, fd: i32, random: &mut Rng) -> Result<bool> {
        let mut poll = libc::pollfd {
            fd,
            events: random.i16(..),
            revents: 0,
        };
        // SAFETY: It is one that is there to be written to.
        let result = unsafe { libc::poll(&mut poll, 1, random.i32(0..3)) };
        returned(result.into(), 1)
    }
}
