// SPDX-License-Identifier: GPL-2.0

//! A virtual machine of a few pages that runs one of the [`code`] programs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::Ordering;

use anyhow::{anyhow, bail, ensure, Context, Result};
use kvm_bindings::{
    kvm_enable_cap, kvm_mp_state, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use crate::code::{self, Kind, Program};

/// As many as fit in [`MEMORY`]; more would prove nothing.
pub const MAX_VCPUS: u32 = 16;
const PAGE: u64 = 4096;
const MEMORY: usize = (code::PAGES + MAX_VCPUS as u64 * PAGE) as usize;

/// Below the BIOS, where Intel's vendor module wants three pages of its own
/// when it has to emulate real mode; nothing else is there.
pub const TSS_ADDRESS: usize = 0xfffb_d000;

const CR0_PE: u64 = 1;
const APIC_X2APIC: u64 = 1 << 10;

/// The memory of a guest, shared with every process forked after it was made.
#[derive(Clone)]
pub struct Memory(GuestMemoryMmap);

impl Memory {
    /// Zeroed memory with the programs in it.
    pub fn new() -> Result<Self> {
        let region = MmapRegion::build(
            None,
            MEMORY,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        )
        .context("no memory for the guest")?;
        let region = GuestRegionMmap::new(region, GuestAddress(0)).context("guest memory wraps")?;
        let memory = GuestMemoryMmap::from_regions(vec![region])?;
        memory.write_slice(code::bytes(), GuestAddress(code::CODE))?;
        Ok(Self(memory))
    }

    /// The page of vCPU `index`.
    pub fn page(&self, index: u32) -> Page {
        Page {
            memory: self.clone(),
            base: code::PAGES + PAGE * u64::from(index),
        }
    }
}

/// The page a vCPU shares with the VMM; see [`code`] for its fields.
#[derive(Clone)]
pub struct Page {
    memory: Memory,
    base: u64,
}

impl Page {
    /// Reads a field that the guest may be writing at this moment.
    pub fn get(&self, field: u64) -> Result<u32> {
        let address = GuestAddress(self.base + field);
        Ok(self.memory.0.load(address, Ordering::Acquire)?)
    }

    /// Writes a field that the guest may be reading at this moment.
    pub fn set(&self, field: u64, value: u32) -> Result<()> {
        let address = GuestAddress(self.base + field);
        Ok(self.memory.0.store(value, address, Ordering::Release)?)
    }

    /// Reads a field of two words. Only for a vCPU that is not running.
    pub fn get_wide(&self, field: u64) -> Result<u64> {
        Ok((u64::from(self.get(field + 4)?) << 32) | u64::from(self.get(field)?))
    }

    /// Whether the guest's memory has the programs that were loaded, as the VMM sees it.
    fn code_is_intact(&self) -> bool {
        let mut code = vec![0; code::bytes().len()];
        let address = GuestAddress(code::CODE);
        self.memory.0.read_slice(&mut code, address).is_ok() && code == code::bytes()
    }
}

/// KVM_GET_STATS_FD, of a VM or a vCPU (include/uapi/linux/kvm.h).
const GET_STATS_FD: libc::Ioctl = 0xaece;

/// A file of KVM's statistics of it. Allocates nothing in this process.
pub fn statistics(of: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: It takes no argument, and makes a file descriptor.
    let fd = unsafe { libc::ioctl(of.as_raw_fd(), GET_STATS_FD) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: It is new, so nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// KVM, or why there is none.
pub fn open() -> Result<Kvm> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT => anyhow!("there is no /dev/kvm: load kvm-intel or kvm-amd"),
        libc::EACCES => anyhow!("/dev/kvm may not be opened: become root or join its group"),
        _ => anyhow!("/dev/kvm cannot be opened: {error}"),
    })
}

/// A virtual machine.
pub struct Vm {
    kvm: Kvm,
    /// KVM's handle, for what only one test does.
    pub fd: VmFd,
    memory: Memory,
    /// With a local APIC in the kernel, in x2APIC mode.
    apic: bool,
}

impl Vm {
    /// A machine around `memory`, with local APICs in the kernel if `apic`.
    pub fn new(memory: &Memory, apic: bool) -> Result<Self> {
        let kvm = open()?;
        let fd = kvm.create_vm().context("KVM_CREATE_VM failed")?;
        Self::around(kvm, fd, memory, apic)
    }

    /// The same of a VM that KVM has just created.
    pub fn around(kvm: Kvm, fd: VmFd, memory: &Memory, apic: bool) -> Result<Self> {
        fd.set_tss_address(TSS_ADDRESS)
            .context("KVM_SET_TSS_ADDR failed")?;
        if apic {
            fd.enable_cap(&kvm_enable_cap {
                cap: KVM_CAP_SPLIT_IRQCHIP,
                ..Default::default()
            })
            .context("KVM offers no local APIC in the kernel (KVM_CAP_SPLIT_IRQCHIP)")?;
        }
        let region = kvm_userspace_memory_region {
            memory_size: MEMORY as u64,
            userspace_addr: memory.0.get_host_address(GuestAddress(0))? as u64,
            ..Default::default()
        };
        // SAFETY: The region is one whole mapping. Only a running vCPU writes
        // to it, and a `Vcpu` keeps the mapping alive for as long as it can run.
        unsafe { fd.set_user_memory_region(region) }
            .context("KVM_SET_USER_MEMORY_REGION failed")?;
        Ok(Self {
            kvm,
            fd,
            memory: memory.clone(),
            apic,
        })
    }

    /// Its vCPU number `index`, about to execute `program`.
    pub fn vcpu(&self, index: u32, program: Program) -> Result<Vcpu> {
        if index >= MAX_VCPUS {
            bail!("at most {MAX_VCPUS} vCPUs fit in a guest");
        }
        let fd = self
            .fd
            .create_vcpu(index.into())
            .context("KVM_CREATE_VCPU failed")?;
        self.vcpu_around(fd, index, program)
    }

    /// The same of a vCPU that KVM has just created.
    pub fn vcpu_around(&self, fd: VcpuFd, index: u32, program: Program) -> Result<Vcpu> {
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID failed")?;
        fd.set_cpuid2(&cpuid).context("KVM_SET_CPUID2 failed")?;
        set_registers(&fd, index, program, self.apic)?;
        let page = self.memory.page(index);
        page.set(code::VMMCALL, has_svm().into())?;
        if self.apic {
            // All but the first would wait for INIT and SIPI.
            fd.set_mp_state(kvm_mp_state {
                mp_state: KVM_MP_STATE_RUNNABLE,
            })
            .context("KVM_SET_MP_STATE failed")?;
        }
        Ok(Vcpu { fd, page })
    }

    /// How often its vCPUs have exited so far by KVM's own statistics, a figure
    /// that kvmscope has no part in. None without debugfs.
    pub fn exits_by_kvm(&self) -> Option<u64> {
        let directory = format!("{}-{}", std::process::id(), self.fd.as_raw_fd());
        let path = format!("/sys/kernel/debug/kvm/{directory}/exits");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

/// Whether the CPU's virtualization extension is AMD's: CPUID says so in bit 2 of
/// leaf 0x80000001's ecx.
fn has_svm() -> bool {
    // SAFETY: Every CPU with either extension has CPUID, and this leaf.
    let ecx = unsafe { core::arch::x86_64::__cpuid(0x8000_0001) }.ecx;
    ecx & (1 << 2) != 0
}

/// Flat 32-bit segments, paging off.
pub fn set_flat(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3, // read, write, accessed
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cr0 |= CR0_PE;
    sregs.cs = kvm_segment {
        selector: 8,
        type_: 11, // execute, read, accessed
        ..data
    };
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
}

/// A flat machine, ESI at the vCPU's page.
fn set_registers(fd: &VcpuFd, index: u32, program: Program, apic: bool) -> Result<()> {
    let mut sregs = fd.get_sregs().context("KVM_GET_SREGS failed")?;
    set_flat(&mut sregs);
    if apic {
        sregs.apic_base |= APIC_X2APIC;
    }
    fd.set_sregs(&sregs).context("KVM_SET_SREGS failed")?;

    let mut regs = fd.get_regs().context("KVM_GET_REGS failed")?;
    regs.rip = program.entry();
    regs.rsi = code::PAGES + PAGE * u64::from(index);
    regs.rflags = 2; // the bit that is always set; interrupts off
    fd.set_regs(&regs).context("KVM_SET_REGS failed")
}

/// What the VMM itself saw of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Writes to [`code::PORT_IO`].
    pub io: u32,
    /// Halts.
    pub hlt: u32,
}

/// A vCPU with its page.
pub struct Vcpu {
    /// KVM's handle, for what only one test does.
    pub fd: VcpuFd,
    /// What it shares with the VMM; also keeps the guest's memory mapped.
    pub page: Page,
}

impl Vcpu {
    /// Has the next run execute `kind` so many times.
    pub fn order(&self, kind: Kind, times: u32) -> Result<()> {
        self.page.set(kind.order(), times)
    }

    /// How often it has executed `kind` so far.
    pub fn done(&self, kind: Kind) -> Result<u32> {
        self.page.get(kind.done())
    }

    /// Runs until the guest says that it is done.
    pub fn run(&mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        loop {
            match self.fd.run() {
                Ok(VcpuExit::IoOut(code::PORT_IO, _)) => seen.io += 1,
                Ok(VcpuExit::IoOut(code::PORT_DONE, _)) => return Ok(seen),
                Ok(VcpuExit::Hlt) => seen.hlt += 1,
                Ok(VcpuExit::FailEntry(reason, cpu)) => {
                    bail!("CPU {cpu} refused to enter the guest: hardware's reason is {reason:#x}")
                }
                Ok(VcpuExit::InternalError) => bail!("{}", internal_error(&mut self.fd)),
                Ok(other) => {
                    let what = format!("{other:?}");
                    return Err(astray(&what, self.page.code_is_intact(), &self.fd));
                }
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => bail!("KVM_RUN failed: {error}"),
            }
        }
    }
}

/// What to say of a guest that has left with an exit that it has no reason for.
pub fn astray(exit: &str, code_is_intact: bool, fd: &VcpuFd) -> anyhow::Error {
    let code = if code_is_intact {
        "as it was"
    } else {
        "not what it was"
    };
    let state = state(fd);
    anyhow!("the guest went astray, its code is {code}: {exit}, {state}")
}

/// The signal that has KVM_RUN end with EINTR in the thread that gets it.
pub const WAKE: libc::c_int = libc::SIGUSR1;

extern "C" fn wake(_: libc::c_int) {}

/// Has this process take that signal for nothing else.
pub fn heed_wakes() -> Result<()> {
    // SAFETY: The handler does nothing, which is safe at any moment. The mask is
    // empty, and without SA_RESTART KVM_RUN ends with EINTR.
    let r = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = wake as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(WAKE, &action, std::ptr::null_mut())
    };
    ensure!(r == 0, "sigaction failed: {}", io::Error::last_os_error());
    Ok(())
}

/// Where a vCPU is: what to know of one that is not where it should be.
pub fn state(fd: &VcpuFd) -> String {
    let (Ok(regs), Ok(sregs)) = (fd.get_regs(), fd.get_sregs()) else {
        return "and its registers cannot be read".into();
    };
    format!(
        "at {:#x} in a segment at {:#x}: {regs:x?} {sregs:x?}",
        regs.rip, sregs.cs.base
    )
}

/// Why KVM gave up. Only right after KVM_EXIT_INTERNAL_ERROR.
pub fn internal_error(fd: &mut VcpuFd) -> String {
    // SAFETY: All members of the union are plain integers, so that none is
    // invalid, and KVM wrote this one if the caller keeps to the rule above.
    let error = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let data = &error.data[..error.data.len().min(error.ndata as usize)];
    format!(
        "KVM gave up on the guest: internal error {}, data {data:#x?}",
        error.suberror
    )
}
