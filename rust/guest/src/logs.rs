// SPDX-License-Identifier: GPL-2.0

//! The dirty logs of KVM, each in the way it is meant to be used.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{ensure, Context, Result};
use kvm_bindings::{
    kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_PAGE_OFFSET,
};
use kvm_ioctls::VcpuFd;

use crate::machine::{lock, Machine, Shape, Slot};
use crate::pages::PAGE;

const KVM_CLEAR_DIRTY_LOG: libc::Ioctl = 0xc018_aec0;
const KVM_RESET_DIRTY_RINGS: libc::Ioctl = 0xaec7;
const KVM_DIRTY_GFN_F_DIRTY: u32 = 1;
const KVM_DIRTY_GFN_F_RESET: u32 = 2;

/// A way to log writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// KVM_GET_DIRTY_LOG, which also clears
    Bitmap,
    /// KVM_GET_DIRTY_LOG, then KVM_CLEAR_DIRTY_LOG
    Manual,
    /// The same, every page being dirty to begin with
    InitiallySet,
    /// KVM_CAP_DIRTY_LOG_RING_ACQ_REL
    Ring,
}

impl Mode {
    /// The word for it on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Bitmap => "bitmap",
            Mode::Manual => "manual",
            Mode::InitiallySet => "initially-set",
            Mode::Ring => "ring",
        }
    }

    /// What a machine needs for it.
    pub fn shape(self, shape: Shape) -> Shape {
        let manual = match self {
            Mode::Manual => KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
            Mode::InitiallySet => KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
            _ => 0,
        };
        Shape {
            // PML alone takes 512 entries and 64 in reserve off a ring.
            ring: (self == Mode::Ring).then_some(2048),
            manual: manual.into(),
            ..shape
        }
    }

    /// The pages written to since the last time, each of which is logged anew
    /// from now on. Pages must be looked at after that, not before. Unless `all` are
    /// asked for, logs that allow it are left with some: huge pages that are split
    /// for those taken are then split for others as well.
    pub fn harvest(self, machine: &Machine, all: bool) -> Result<Vec<u64>> {
        let mut gfns = Vec::new();
        if self == Mode::Ring {
            let slots = machine.logged();
            for ring in lock(&machine.rings).iter_mut() {
                ring.take(|slot, page| {
                    // Of another address space or a slot no longer logged: none of ours.
                    if let Some(slot) = slots.iter().find(|s| s.id() == slot) {
                        gfns.push(slot.gfn + page);
                    }
                });
            }
            // SAFETY: The ioctl takes no argument and touches none of our memory.
            let reset = unsafe { libc::ioctl(machine.fd.as_raw_fd(), KVM_RESET_DIRTY_RINGS) };
            ensure!(
                reset >= 0,
                "KVM_RESET_DIRTY_RINGS failed: {}",
                std::io::Error::last_os_error()
            );
            gfns.sort_unstable();
            gfns.dedup();
            return Ok(gfns);
        }
        for slot in machine.logged() {
            let bytes = (slot.pages * PAGE) as usize;
            let mut bitmap = match machine.fd.get_dirty_log(slot.id(), bytes) {
                // Switched off, or deleted, by another thread meanwhile.
                Err(error) if error.errno() == libc::ENOENT => continue,
                result => result.context("KVM_GET_DIRTY_LOG failed")?,
            };
            if self == Mode::InitiallySet && !all {
                bitmap
                    .iter_mut()
                    .skip(3)
                    .step_by(4)
                    .for_each(|word| *word = 0);
            }
            if self != Mode::Bitmap && !clear(machine, &slot, &mut bitmap)? {
                continue;
            }
            gfns.extend(set_bits(&bitmap).map(|page| slot.gfn + page));
        }
        Ok(gfns)
    }
}

/// Has the pages of `bitmap` logged anew; false if the slot is logged no more.
fn clear(machine: &Machine, slot: &Slot, bitmap: &mut [u64]) -> Result<bool> {
    let request = kvm_clear_dirty_log {
        slot: slot.id(),
        num_pages: slot.pages as u32,
        first_page: 0,
        __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
            dirty_bitmap: bitmap.as_mut_ptr().cast(),
        },
    };
    // SAFETY: `bitmap` has a bit for each of the slot's pages, and is only read.
    let failed = unsafe { libc::ioctl(machine.fd.as_raw_fd(), KVM_CLEAR_DIRTY_LOG, &request) };
    let error = std::io::Error::last_os_error();
    ensure!(
        failed == 0 || error.raw_os_error() == Some(libc::ENOENT),
        "KVM_CLEAR_DIRTY_LOG failed: {error}"
    );
    Ok(failed == 0)
}

/// The numbers of the bits that are set.
fn set_bits(bitmap: &[u64]) -> impl Iterator<Item = u64> + '_ {
    bitmap.iter().zip(0..).flat_map(|(&word, index)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| u64::from(rest.trailing_zeros()))?;
            rest &= rest - 1;
            Some(index * 64 + bit)
        })
    })
}

#[repr(C)]
struct Entry {
    flags: AtomicU32,
    slot: AtomicU32,
    page: [AtomicU32; 2],
}

/// The dirty ring of a vCPU.
pub struct Ring {
    entries: *const Entry,
    len: usize,
    next: usize,
}

// SAFETY: The pointer is to a mapping that is the Ring's own and that any thread
// may read and write; the kernel, as the other side, is one already.
unsafe impl Send for Ring {}

impl Ring {
    /// Bytes of an entry.
    pub const ENTRY: u64 = size_of::<Entry>() as u64;

    /// The ring of `vcpu`, which has so many entries.
    pub fn of(vcpu: &VcpuFd, entries: u32) -> Result<Self> {
        let len = entries as usize;
        // SAFETY: A new mapping, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<Entry>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                (u64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE) as libc::off_t,
            )
        };
        ensure!(
            address != libc::MAP_FAILED,
            "the dirty ring cannot be mapped: {}",
            std::io::Error::last_os_error()
        );
        Ok(Self {
            entries: address.cast(),
            len,
            next: 0,
        })
    }

    /// Takes out what is in it: slot, and page of the slot.
    fn take(&mut self, mut each: impl FnMut(u32, u64)) {
        loop {
            // SAFETY: The index is below `len`, and the mapping lives as long as
            // this; all of an entry is atomic.
            let entry = unsafe { &*self.entries.add(self.next % self.len) };
            if entry.flags.load(Ordering::Acquire) & KVM_DIRTY_GFN_F_DIRTY == 0 {
                return;
            }
            let [low, high] = &entry.page;
            let high = u64::from(high.load(Ordering::Relaxed));
            each(
                entry.slot.load(Ordering::Relaxed),
                (high << 32) | u64::from(low.load(Ordering::Relaxed)),
            );
            entry.flags.store(KVM_DIRTY_GFN_F_RESET, Ordering::Release);
            self.next += 1;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: The mapping is this one's own, and nothing refers to it any more.
        unsafe {
            libc::munmap(
                self.entries.cast_mut().cast(),
                self.len * size_of::<Entry>(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_the_numbers_of_pages() {
        let bits: Vec<_> = set_bits(&[(1 << 3) | (1 << 63), 0, 1]).collect();
        assert_eq!(bits, [3, 63, 128]);
    }

    #[test]
    fn an_entry_is_as_large_as_the_kernels() {
        assert_eq!(Ring::ENTRY, size_of::<kvm_bindings::kvm_dirty_gfn>() as u64);
    }
}
