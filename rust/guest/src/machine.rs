// SPDX-License-Identifier: GPL-2.0

//! A virtual machine with as much memory as asked for, in several slots, that
//! runs one of the [`pages`] programs.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use kvm_bindings::{
    kvm_segment, kvm_userspace_memory_region, KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_LOG_DIRTY_PAGES,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

use crate::logs::Ring;
use crate::pages::{self, Program, Touch, DATA, PAGE};
use crate::paging::{Paging, Tables};
use crate::vm;

const HUGE: u64 = 2 << 20;
/// Memory besides what was asked for, in slots of their own: one that moves and
/// one that comes and goes without anybody using it.
pub const SPARE: u64 = HUGE;
/// How far the spare slots may lie beyond the memory.
pub const REACH: u64 = 16 * SPARE;

const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = (1 << 8) | (1 << 10);
const KVM_SMI: libc::Ioctl = 0xaeb7;

/// What a guest does takes less, also where the kernel watches itself and the CPU is
/// emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// The memory of a guest, private to this process.
pub struct Space {
    region: MmapRegion,
    /// To where it is aligned to 2 MiB.
    skip: u64,
    /// Without what is spare.
    pub size: u64,
}

impl Space {
    /// Zeroed memory, to be had in huge pages or not.
    pub fn new(size: u64, huge: bool) -> Result<Self> {
        ensure!(
            size % (4 * HUGE) == 0 && size > 2 * DATA && size < 3 << 30,
            "a guest's memory is 16 MiB to 3064 MiB, a multiple of 8"
        );
        let region = MmapRegion::build(
            None,
            (size + 2 * SPARE + HUGE) as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        )
        .context("no memory for the guest")?;
        let skip = (region.as_ptr() as u64).wrapping_neg() % HUGE;
        let space = Self { region, skip, size };
        let advice = if huge {
            libc::MADV_HUGEPAGE
        } else {
            libc::MADV_NOHUGEPAGE
        };
        space.advise(0, size + 2 * SPARE, advice)?;
        Ok(space)
    }

    /// Has the memory be taken from a NUMA node, as long as it has some.
    pub fn prefer_node(&self, node: u32) -> Result<()> {
        const MPOL_PREFERRED: libc::c_int = 1;
        ensure!(node < 64, "node {node} is none of the first 64");
        let nodes = 1_u64 << node;
        // SAFETY: The range is within the mapping, whose contents do not change; one
        // word of nodes is read, which is how many bits the kernel is told of.
        let failed = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.host(0),
                self.whole(),
                MPOL_PREFERRED,
                &raw const nodes,
                65,
                0,
            )
        };
        ensure!(failed == 0, "mbind failed: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The NUMA node that each page is on; None of one that is nowhere.
    pub fn nodes(&self, gfns: std::ops::Range<u64>) -> Result<Vec<Option<u32>>> {
        assert!(gfns.end * PAGE <= self.whole());
        let pages: Vec<u64> = gfns.map(|gfn| self.host(gfn * PAGE) as u64).collect();
        let mut status = vec![0_i32; pages.len()];
        // SAFETY: The kernel reads as many addresses as there are and writes as many
        // words to `status`; without nodes to go to it moves nothing.
        let failed = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                pages.len(),
                pages.as_ptr(),
                std::ptr::null::<i32>(),
                status.as_mut_ptr(),
                0,
            )
        };
        ensure!(
            failed == 0,
            "move_pages failed: {}",
            io::Error::last_os_error()
        );
        Ok(status
            .into_iter()
            .map(|node| node.try_into().ok())
            .collect())
    }

    fn advise(&self, offset: u64, size: u64, advice: i32) -> Result<()> {
        assert!(offset + size <= self.size + 2 * SPARE);
        // SAFETY: The range is within the mapping, and no Rust object is in it:
        // all reads and writes of it are volatile.
        let failed = unsafe { libc::madvise(self.host(offset).cast(), size as usize, advice) };
        ensure!(
            failed == 0,
            "madvise failed: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }

    fn host(&self, offset: u64) -> *mut u8 {
        self.region
            .as_ptr()
            .wrapping_add((self.skip + offset) as usize)
    }

    /// Where it begins in this process.
    pub fn base(&self) -> u64 {
        self.host(0) as u64
    }

    /// Its size with what is spare.
    pub fn whole(&self) -> u64 {
        self.size + 2 * SPARE
    }

    /// Reads a word that the guest may be writing at this moment.
    pub fn get(&self, address: u64) -> Result<u32> {
        Ok(self
            .region
            .as_volatile_slice()
            .load((self.skip + address) as usize, Ordering::Acquire)?)
    }

    /// Reads two words. Only while no vCPU writes to them.
    pub fn get_wide(&self, address: u64) -> Result<u64> {
        Ok((u64::from(self.get(address + 4)?) << 32) | u64::from(self.get(address)?))
    }

    /// Writes a word that the guest may be reading at this moment.
    pub fn set(&self, address: u64, value: u32) -> Result<()> {
        let to = self.region.as_volatile_slice();
        Ok(to.store(value, (self.skip + address) as usize, Ordering::Release)?)
    }

    /// Writes bytes. Only while no vCPU reads them.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let to = self.region.as_volatile_slice();
        Ok(to.write_slice(bytes, (self.skip + address) as usize)?)
    }

    /// Copies a page out, as it is at this moment or a little later.
    pub fn copy(&self, gfn: u64, page: &mut [u8]) -> Result<()> {
        let from = (self.skip + gfn * PAGE) as usize;
        let from = self.region.get_slice(from, page.len())?;
        from.copy_to(page);
        Ok(())
    }

    /// Gives pages back to the host, as a balloon does: they read as zero next.
    pub fn discard(&self, gfn: u64, pages: u64) -> Result<()> {
        self.advise(gfn * PAGE, pages * PAGE, libc::MADV_DONTNEED)
    }

    /// Has it merged with equal pages, wherever the host finds them.
    pub fn mergeable(&self) -> Result<()> {
        self.advise(0, self.whole(), libc::MADV_MERGEABLE)
    }

    /// Touches each huge page, and says whether the host has made it one.
    pub fn fill(&self) -> Result<bool> {
        for address in (0..self.size + 2 * SPARE).step_by(HUGE as usize) {
            self.set(address + HUGE - 4, 1)?;
        }
        let first = self.host(0) as u64;
        let smaps = std::fs::read_to_string("/proc/self/smaps").context("reading smaps")?;
        let mut huge = 0;
        let mut ours = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|r| r.split_once('-'));
            let range = range.and_then(|(a, b)| {
                Some(u64::from_str_radix(a, 16).ok()?..u64::from_str_radix(b, 16).ok()?)
            });
            if let Some(range) = range {
                ours = range.start <= first + self.size && first < range.end;
            } else if let (true, Some(kib)) = (ours, line.strip_prefix("AnonHugePages:")) {
                huge += kib.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
            }
        }
        Ok(huge >= self.size + 2 * SPARE)
    }
}

/// A memory slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    id: u32,
    /// Its first page in the guest.
    pub gfn: u64,
    /// How many it has.
    pub pages: u64,
    /// Where it begins in the [`Space`].
    offset: u64,
    present: bool,
    logged: bool,
}

impl Slot {
    /// Its number, as KVM's dirty logs have it.
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// Slots by position in [`Machine::slots`]: what is below [`DATA`], the data in
/// two halves, and the spare ones.
pub const HALF: usize = 2;
/// See [`HALF`].
pub const MOVING: usize = 3;
/// See [`HALF`].
pub const BYSTANDER: usize = 4;

/// How to make a [`Machine`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Page tables, of this form; else 32-bit mode without paging.
    pub paging: Option<Paging>,
    /// Memory for system management mode as well.
    pub smm: bool,
    /// Entries of each vCPU's dirty ring, if it is to have one.
    pub ring: Option<u32>,
    /// What KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is enabled with, if not 0.
    pub manual: u64,
    /// GiB of memory, in one more slot, that nobody ever touches.
    pub reserve: u64,
}

/// A virtual machine.
pub struct Machine {
    kvm: Kvm,
    /// KVM's handle, for the dirty logs.
    pub fd: VmFd,
    /// Its memory.
    pub space: Arc<Space>,
    shape: Shape,
    /// What the slot of [`Shape::reserve`] has.
    _reserve: Option<MmapRegion>,
    slots: Mutex<Vec<Slot>>,
    /// The dirty rings of its vCPUs.
    pub rings: Mutex<Vec<Ring>>,
}

/// A lock whose holder may have panicked: the error is that thread's to tell.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// A machine around `space`.
    pub fn new(space: Arc<Space>, shape: Shape) -> Result<Self> {
        let kvm = vm::open()?;
        let fd = kvm.create_vm().context("KVM_CREATE_VM failed")?;
        fd.set_tss_address(vm::TSS_ADDRESS)
            .context("KVM_SET_TSS_ADDR failed")?;
        let half = space.size / 2;
        let parts = [
            (0, 0, DATA),
            (DATA, DATA, half - DATA),
            (half, half, half),
            (space.size + SPARE, space.size, SPARE),
            (space.size + REACH - SPARE, space.size + SPARE, SPARE),
        ];
        let slots = parts
            .into_iter()
            .zip(0..)
            .map(|((gpa, offset, size), id)| Slot {
                id,
                gfn: gpa / PAGE,
                pages: size / PAGE,
                offset,
                present: false,
                logged: false,
            });
        let reserve = match shape.reserve {
            0 => None,
            gib => Some(reserve(&fd, parts.len() as u32, gib << 30)?),
        };
        let machine = Self {
            kvm,
            fd,
            space,
            shape,
            _reserve: reserve,
            slots: Mutex::new(slots.collect()),
            rings: Mutex::new(Vec::new()),
        };
        machine.enable_logs()?;
        for index in 0..parts.len() {
            machine.add(index)?;
        }
        if shape.smm {
            for index in 0..MOVING {
                let mut slot = machine.slot(index);
                slot.id |= 1 << 16;
                machine.region(&slot, slot.pages)?;
            }
        }
        machine.space.write(pages::CODE, &pages::code())?;
        machine.space.write(pages::SMM_CODE, pages::smm_bytes())?;
        if let Some(tables) = machine.tables() {
            for (address, entry) in tables.entries() {
                machine.space.write(address, &entry)?;
            }
        }
        Ok(machine)
    }

    /// Whether its memory has the programs that were loaded, as the VMM sees it.
    fn code_is_intact(&self) -> bool {
        let mut page = [0; PAGE as usize];
        self.space.copy(pages::CODE / PAGE, &mut page).is_ok() && page == pages::code()
    }

    /// Its page tables, if it has any.
    pub fn tables(&self) -> Option<Tables> {
        let bytes = self.space.size + REACH;
        self.shape.paging.map(|paging| Tables::new(paging, bytes))
    }

    /// A slot as it is now.
    pub fn slot(&self, index: usize) -> Slot {
        lock(&self.slots)[index]
    }

    /// The slots in which writes are logged.
    pub fn logged(&self) -> Vec<Slot> {
        lock(&self.slots)
            .iter()
            .filter(|slot| slot.present && slot.logged)
            .copied()
            .collect()
    }

    fn region(&self, slot: &Slot, pages: u64) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: slot.id,
            flags: if slot.logged {
                KVM_MEM_LOG_DIRTY_PAGES
            } else {
                0
            },
            guest_phys_addr: slot.gfn * PAGE,
            memory_size: pages * PAGE,
            userspace_addr: self.space.host(slot.offset) as u64,
        };
        // SAFETY: The range is within the mapping of `space`, which lives for as
        // long as a vCPU can run, and no Rust object is in it.
        unsafe { self.fd.set_user_memory_region(region) }
            .with_context(|| format!("KVM_SET_USER_MEMORY_REGION failed: {slot:x?}, {pages} pages"))
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Slot)) -> Result<()> {
        let mut slots = lock(&self.slots);
        let slot = &mut slots[index];
        let existed = slot.present;
        change(slot);
        match (existed, slot.present) {
            (false, false) => Ok(()),
            (true, false) => self.region(slot, 0),
            _ => self.region(slot, slot.pages),
        }
    }

    /// Adds a slot that is not there.
    pub fn add(&self, index: usize) -> Result<()> {
        self.change(index, |slot| slot.present = true)
    }

    /// Deletes a slot. No vCPU may need it meanwhile.
    pub fn delete(&self, index: usize) -> Result<()> {
        self.change(index, |slot| slot.present = false)
    }

    /// Moves a slot to another place in the guest.
    pub fn relocate(&self, index: usize, gfn: u64) -> Result<()> {
        self.change(index, |slot| slot.gfn = gfn)
    }

    /// Switches the logging of writes on or off, slot by slot.
    pub fn log(&self, on: bool) -> Result<()> {
        let count = lock(&self.slots).len();
        (0..count).try_for_each(|index| self.change(index, |slot| slot.logged = on))
    }

    fn enable_logs(&self) -> Result<()> {
        use kvm_bindings::{
            kvm_enable_cap, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        };
        let mut cap = kvm_enable_cap::default();
        if let Some(entries) = self.shape.ring {
            cap.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
            cap.args[0] = u64::from(entries) * Ring::ENTRY;
            self.fd
                .enable_cap(&cap)
                .context("KVM has no dirty ring of that size")?;
        }
        if self.shape.manual != 0 {
            cap.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
            cap.args[0] = self.shape.manual;
            self.fd
                .enable_cap(&cap)
                .context("KVM has no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 of that kind")?;
        }
        Ok(())
    }

    /// Its vCPU number `index`, about to execute `program`.
    pub fn vcpu(self: &Arc<Self>, index: u32, program: Program) -> Result<Runner> {
        ensure!(
            index < pages::MAX_VCPUS,
            "at most {} vCPUs",
            pages::MAX_VCPUS
        );
        let fd = self
            .fd
            .create_vcpu(index.into())
            .context("KVM_CREATE_VCPU failed")?;
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID failed")?;
        fd.set_cpuid2(&cpuid).context("KVM_SET_CPUID2 failed")?;
        self.set_registers(&fd, index, program)?;
        if let Some(entries) = self.shape.ring {
            lock(&self.rings).push(Ring::of(&fd, entries)?);
        }
        Ok(Runner::new(self.clone(), index, fd))
    }

    fn set_registers(&self, fd: &VcpuFd, index: u32, program: Program) -> Result<()> {
        let mut sregs = fd.get_sregs().context("KVM_GET_SREGS failed")?;
        vm::set_flat(&mut sregs);
        if let Some(paging) = self.shape.paging {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = Tables::ROOT;
            if paging != Paging::Narrow {
                sregs.cr4 |= CR4_PAE;
            }
        }
        let long = self.shape.paging == Some(Paging::Long);
        if long {
            sregs.efer |= EFER_LME_LMA;
            sregs.cs = kvm_segment {
                l: 1,
                db: 0,
                ..sregs.cs
            };
        }
        fd.set_sregs(&sregs).context("KVM_SET_SREGS failed")?;
        let mut regs = fd.get_regs().context("KVM_GET_REGS failed")?;
        regs.rip = program.entry(long);
        regs.rsi = pages::control(index);
        // The bit that is always set, and interrupts on: nobody sends it any, but
        // with them off Bochs 3.0 as it is keeps the host's back until the guest exits.
        regs.rflags = 0x202;
        fd.set_regs(&regs).context("KVM_SET_REGS failed")
    }
}

/// A slot of so many bytes beyond everything else, as a VM has it that could be given
/// more memory later.
fn reserve(fd: &VmFd, slot: u32, bytes: u64) -> Result<MmapRegion> {
    let region = MmapRegion::build(
        None,
        bytes as usize,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    )
    .context("no address space for the reserve")?;
    let memory = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: 4 << 30,
        memory_size: bytes,
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: The range is all of a mapping that the machine keeps for as long as a
    // vCPU can run, and no Rust object is in it.
    unsafe { fd.set_user_memory_region(memory) }
        .context("KVM does not take the reserve: is it beyond the guest's physical addresses?")?;
    Ok(region)
}

#[derive(Clone, Copy, Debug)]
enum Job {
    /// Run until the guest says that it is done.
    Run,
    /// Be in system management mode first thing in the next run.
    Smi,
}

/// A vCPU in a thread of its own, which it keeps: KVM waits for an RCU grace
/// period whenever another thread takes a vCPU over.
pub struct Runner {
    machine: Arc<Machine>,
    /// Its number.
    pub index: u32,
    jobs: Option<Sender<Job>>,
    results: Receiver<Result<u64>>,
    thread: Option<JoinHandle<()>>,
    order: u32,
    spinning: bool,
}

impl Runner {
    fn new(machine: Arc<Machine>, index: u32, mut fd: VcpuFd) -> Self {
        let (jobs, inbox) = channel();
        let (outbox, results) = channel();
        // So that the guest's memory outlives its last entry.
        let keep = machine.clone();
        let thread = thread::spawn(move || {
            for job in inbox {
                let before = cpu_time();
                let result = match job {
                    Job::Run => run(&keep, &mut fd),
                    Job::Smi => smi(&fd),
                };
                if outbox.send(result.map(|()| cpu_time() - before)).is_err() {
                    break;
                }
            }
            drop(fd);
            drop(keep);
        });
        Self {
            machine,
            index,
            jobs: Some(jobs),
            results,
            thread: Some(thread),
            order: 0,
            spinning: false,
        }
    }

    /// Writes a field of its control page.
    pub fn set(&self, field: u64, value: u32) -> Result<()> {
        self.machine
            .space
            .set(pages::control(self.index) + field, value)
    }

    /// Reads a field of its control page.
    pub fn get(&self, field: u64) -> Result<u32> {
        self.machine.space.get(pages::control(self.index) + field)
    }

    /// Reads a field of two words. Only while it does not run.
    pub fn get_wide(&self, field: u64) -> Result<u64> {
        self.machine
            .space
            .get_wide(pages::control(self.index) + field)
    }

    fn job(&self, job: Job) -> Result<()> {
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        ensure!(sent, self.gone());
        Ok(())
    }

    /// Has it run until it is done.
    pub fn start(&self) -> Result<()> {
        self.job(Job::Run)
    }

    /// Waits until it is done; returns the CPU time it took, in ns.
    pub fn wait(&self) -> Result<u64> {
        match self.results.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => self.give_up(),
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    /// The same of a guest that is not to come to an end, however long that takes.
    pub fn wait_for_ever(&self) -> Result<u64> {
        self.results.recv().map_err(|_| self.gone())?
    }

    fn gone(&self) -> anyhow::Error {
        anyhow!("the thread of vCPU {} is gone", self.index)
    }

    /// Ends the process, and says where the guest is.
    fn give_up(&self) -> ! {
        LATE.store(true, Ordering::Relaxed);
        // Unheeded, it would end the process without a word.
        if let (Some(thread), Ok(())) = (&self.thread, vm::heed_wakes()) {
            // SAFETY: The thread has not been joined: its name is still valid.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), vm::WAKE) };
        }
        let said = match self.results.recv_timeout(PATIENCE / 10) {
            Ok(Ok(_)) => "its guest came to its end too late".into(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(RecvTimeoutError::Timeout) => "it does not leave its guest".into(),
            Err(RecvTimeoutError::Disconnected) => "its thread is gone".into(),
        };
        let _ = writeln!(io::stderr(), "guest: vCPU {}: {said}", self.index);
        std::process::exit(1)
    }

    /// The same, if it is done already.
    pub fn done(&self) -> Result<bool> {
        match self.results.try_recv() {
            Ok(result) => result.map(|_| true),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(self.gone()),
        }
    }

    /// Has it enter system management mode in the next run.
    pub fn smi(&self) -> Result<()> {
        self.job(Job::Smi)?;
        self.wait().map(drop)
    }

    /// From now on it waits for passes within the guest.
    pub fn spin(&mut self) -> Result<()> {
        self.spinning = true;
        self.set(pages::SPIN, 1)?;
        self.start()
    }

    /// Whether it does.
    pub fn spins(&self) -> bool {
        self.spinning
    }

    /// Writes its list; to be touched by the next pass.
    pub fn list(&self, list: &[(u64, Touch)]) -> Result<()> {
        ensure!(list.len() <= pages::LIST_ENTRIES, "the list is too long");
        let bytes: Vec<u8> = list
            .iter()
            .flat_map(|&(gfn, touch)| pages::entry(gfn, touch).to_le_bytes())
            .collect();
        self.machine.space.write(pages::list(self.index), &bytes)?;
        self.set(0, pages::list(self.index) as u32)?;
        self.set(pages::COUNT, list.len() as u32)
    }

    /// Begins a pass over its list.
    pub fn order(&mut self) -> Result<()> {
        self.order = self.order.wrapping_add(1);
        self.set(pages::STAMP, self.order)?;
        self.set(pages::ORDER, self.order)?;
        if self.spinning {
            return Ok(());
        }
        self.start()
    }

    /// Waits until the pass is over.
    pub fn finish(&self) -> Result<()> {
        if !self.spinning {
            self.wait()?;
            ensure!(
                self.get(pages::DONE)? == self.order,
                "the guest did not make its pass"
            );
            return Ok(());
        }
        while self.get(pages::DONE)? != self.order {
            if let Ok(result) = self.results.try_recv() {
                result?;
                bail!("the spinning guest came to an end");
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Whatever it does, it is to come to an end.
        let _ = self.set(pages::SPIN, 0);
        let _ = self.set(pages::REPEAT, 0);
        let _ = self.set(pages::STOP, 1);
        self.jobs = None;
        loop {
            match self.results.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.give_up(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a vCPU has been waited for in vain.
static LATE: AtomicBool = AtomicBool::new(false);

fn run(machine: &Machine, fd: &mut VcpuFd) -> Result<()> {
    loop {
        ensure!(
            !LATE.load(Ordering::Relaxed),
            "the guest does not come to its end, {}",
            vm::state(fd)
        );
        match fd.run() {
            Ok(VcpuExit::IoOut(pages::PORT_DONE, _)) => return Ok(()),
            // Whoever harvests the ring makes room.
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => {
                thread::sleep(Duration::from_micros(200));
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                bail!("CPU {cpu} refused to enter the guest: hardware's reason is {reason:#x}")
            }
            Ok(VcpuExit::InternalError) => bail!("{}", vm::internal_error(fd)),
            Ok(other) => {
                let what = format!("{other:?}");
                return Err(vm::astray(&what, machine.code_is_intact(), fd));
            }
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => bail!("KVM_RUN failed: {error}"),
        }
    }
}

fn smi(fd: &VcpuFd) -> Result<()> {
    // SAFETY: KVM_SMI takes no argument and touches no memory of this process.
    let failed = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SMI) };
    ensure!(
        failed == 0,
        "KVM_SMI failed: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is there to be written to.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The CPU time of this thread, in ns.
pub fn cpu_time() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The CPU time of this process, in ns.
pub fn process_time() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CLOCK_MONOTONIC, in ns.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}
