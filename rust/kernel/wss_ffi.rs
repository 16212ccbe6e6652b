// SPDX-License-Identifier: GPL-2.0

//! The boundary to C of the working-set estimator: everything that
//! `asm/kvm_scope_wss_abi.h` declares, and its unsafe code.
//!
//! C has a lock around all that is done with one estimator, so a function may
//! take its pointer for a unique reference.

use core::ffi::{c_int, c_void};
use core::{ptr, slice};

use kernel::init;
use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};

use crate::ffi::Seq;
use crate::wss::{self, Params, Period, Region, Regions};
use crate::wss_tables;

bindings_of!("/wss_abi_generated.rs");
use bindings::{kvm_scope_wss_bits, kvm_scope_wss_params, kvm_scope_wss_period};

// What the header and the logic both state must be the same.
const _: () = {
    assert!(size_of::<Params>() == size_of::<kvm_scope_wss_params>());
    assert!(size_of::<Period>() == size_of::<kvm_scope_wss_period>());
    assert!(wss::PAGES == bindings::KVM_SCOPE_REGION_PAGES as u64);
    assert!(size_of::<wss::Bits>() == 8 * bindings::KVM_SCOPE_REGION_WORDS as usize);
    assert!(wss::MAX_INTERVALS == bindings::KVM_SCOPE_WSS_MAX_INTERVALS);
};

matches_prototype!(
    kvm_scope_wss_new,
    kvm_scope_wss_free,
    kvm_scope_wss_begin,
    kvm_scope_wss_logged,
    kvm_scope_wss_end_interval,
    kvm_scope_wss_is_over,
    kvm_scope_wss_scanned,
    kvm_scope_wss_unmapped_pages,
    kvm_scope_wss_end_period,
    kvm_scope_wss_candidates,
    kvm_scope_wss_probed,
    kvm_scope_wss_show,
    kvm_scope_wss_pages,
);

/// Regions by their number.
#[repr(transparent)]
struct Tree(RBTree<u64, KBox<Region>>);

impl Regions for Tree {
    fn region(&mut self, number: u64) -> Option<&mut Region> {
        match self.0.entry(number) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                let region = KBox::init(init::zeroed(), GFP_KERNEL_ACCOUNT).ok()?;
                let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT).ok()?;
                Some(entry.insert(region, node))
            }
        }
    }

    fn known(&mut self, number: u64) -> Option<&mut Region> {
        self.0.get_mut(&number).map(|region| &mut **region)
    }

    fn for_some(
        &mut self,
        from: u64,
        count: usize,
        mut f: impl FnMut(u64, &mut Region),
    ) -> Option<u64> {
        let mut cursor = self.0.cursor_lower_bound(&from);
        for _ in 0..count {
            let mut at = cursor?;
            let (number, region) = at.current_mut();
            f(*number, region);
            cursor = at.move_next();
        }
        cursor.map(|at| *at.current().0)
    }

    fn retain(&mut self, mut keep: impl FnMut(&Region) -> bool) {
        let mut cursor = self.0.cursor_front();
        while let Some(at) = cursor {
            cursor = if keep(at.current().1) {
                at.move_next()
            } else {
                // Goes to the next, or at the end back to one that was kept.
                let last = at.peek_next().is_none();
                let (next, _) = at.remove_current();
                next.filter(|_| !last)
            };
        }
    }
}

type Wss = wss::Wss<Tree>;

// SAFETY: Integers and booleans, for which all zeroes is a value.
unsafe impl init::Zeroable for Region {}
// SAFETY: Integers and booleans, and a tree: the root of an empty one is a null
// pointer, as `RBTree::new` makes it.
unsafe impl init::Zeroable for Wss {}

/// # Safety
///
/// `wss` came from [`kvm_scope_wss_new`], was not freed, and nobody else uses it
/// meanwhile.
unsafe fn wss<'a>(wss: *mut c_void) -> &'a mut Wss {
    // SAFETY: A box's pointer, and unique, by our own contract.
    unsafe { &mut *wss.cast::<Wss>() }
}

fn params(params: &kvm_scope_wss_params) -> Params {
    Params {
        period_ms: params.period_ms,
        intervals: params.intervals,
        threshold: params.threshold,
        reads: params.reads,
        split: params.split,
        sample: params.sample,
    }
}

/// A new estimator, or null without memory.
///
/// # Safety
///
/// May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_new() -> *mut c_void {
    match KVBox::<Wss>::init(init::zeroed(), GFP_KERNEL_ACCOUNT) {
        Ok(wss) => KVBox::into_raw(wss).cast(),
        Err(_) => ptr::null_mut(),
    }
}

/// Frees an estimator.
///
/// # Safety
///
/// As for [`wss`], and it is not used any more. May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_free(wss: *mut c_void) {
    // SAFETY: The pointer is of the box that `kvm_scope_wss_new` made.
    drop(unsafe { KVBox::from_raw(wss.cast::<Wss>()) });
}

/// Forgets everything and begins the first period.
///
/// # Safety
///
/// As for [`wss`]; `next` is valid. May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_begin(this: *mut c_void, next: *const kvm_scope_wss_params) {
    // SAFETY: By our own contract.
    let (this, next) = unsafe { (wss(this), &*next) };
    this.begin(params(next));
}

/// Takes `count` entries of a log.
///
/// # Safety
///
/// As for [`wss`]; `gpas` points to so many entries that nobody writes any more.
/// May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_logged(this: *mut c_void, gpas: *const u64, count: u64) {
    // SAFETY: By our own contract.
    let (this, gpas) = unsafe { (wss(this), slice::from_raw_parts(gpas, count as usize)) };
    this.logged(gpas);
}

/// Ends a sub-interval, some regions at a time, from the number `from` on: has
/// kvm_scope_wss_rearm() clear the dirty bits of what was logged there. Returns where to
/// go on, or 0 at the end.
///
/// # Safety
///
/// As for [`wss`]; `kvm` is what kvm_scope_wss_rearm() wants, in the context that
/// it wants.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_end_interval(
    this: *mut c_void,
    kvm: *mut c_void,
    from: u64,
) -> u64 {
    // SAFETY: By our own contract.
    let this = unsafe { wss(this) };
    let next = this.end_interval(from, |gfn, pages| {
        let mut huge = 0;
        // SAFETY: `kvm` is right by our own contract; the other pointers are of a
        // bitmap as long as a region's and of an integer, both valid meanwhile.
        let rearmed = unsafe { bindings::kvm_scope_wss_rearm(kvm, gfn, pages.as_ptr(), &mut huge) };
        (rearmed, huge != 0)
    });
    // 0 is none of those: something comes before the next.
    next.unwrap_or(0)
}

/// Whether the period has had its sub-intervals: 0 or 1.
///
/// # Safety
///
/// As for [`wss`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_is_over(this: *mut c_void) -> u32 {
    // SAFETY: By our own contract.
    unsafe { wss(this) }.is_over().into()
}

/// Takes what the page tables say of the region at `gfn`. Returns 0 or -ENOMEM.
///
/// # Safety
///
/// As for [`wss`]; `bits` is valid. May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_scanned(
    this: *mut c_void,
    gfn: u64,
    bits: *const kvm_scope_wss_bits,
) -> c_int {
    // SAFETY: By our own contract.
    let (this, bits) = unsafe { (wss(this), &*bits) };
    if this.scanned(gfn, &bits.accessed, &bits.dirty, bits.huge != 0) {
        0
    } else {
        ENOMEM.to_errno()
    }
}

/// Takes what the leaves that mapped pages of the region at `gfn` said when they were
/// unmapped. Returns 0 or -ENOMEM.
///
/// # Safety
///
/// As for [`wss`]; `bits` is valid. May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_unmapped_pages(
    this: *mut c_void,
    gfn: u64,
    bits: *const kvm_scope_wss_bits,
) -> c_int {
    // SAFETY: By our own contract.
    let (this, bits) = unsafe { (wss(this), &*bits) };
    if this.unmapped(gfn, &bits.accessed, &bits.dirty, bits.huge != 0) {
        0
    } else {
        ENOMEM.to_errno()
    }
}

/// Ends a period and begins the next.
///
/// # Safety
///
/// As for [`wss`]; `period` and `next` are valid. May sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_end_period(
    this: *mut c_void,
    period: *const kvm_scope_wss_period,
    next: *const kvm_scope_wss_params,
) {
    // SAFETY: By our own contract.
    let (this, period, next) = unsafe { (wss(this), &*period, &*next) };
    let period = Period {
        start_ns: period.start_ns,
        duration_ns: period.duration_ns,
        swaps: period.swaps,
        in_place: period.in_place,
        full_exits: period.full_exits,
        flushes: period.flushes,
        spent_ns: period.spent_ns,
        nested_runs: period.nested_runs,
        sampled: period.sampled,
        sampled_touched: period.sampled_touched,
        unmapped_lost: period.unmapped_lost,
    };
    this.end_period(&period, params(next));
}

/// Writes up to `max` pages that may be page tables to `gfns`; returns how many.
///
/// # Safety
///
/// As for [`wss`]; `gfns` has room for `max`.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_candidates(this: *mut c_void, gfns: *mut u64, max: u64) -> u64 {
    // SAFETY: By our own contract.
    let (this, gfns) = unsafe { (wss(this), slice::from_raw_parts_mut(gfns, max as usize)) };
    let candidates = this.candidates();
    let count = candidates.len().min(gfns.len());
    for (to, from) in gfns.iter_mut().zip(candidates) {
        *to = *from;
    }
    count as u64
}

/// Takes what the first access to a candidate was: a page walk if `table` is not 0.
///
/// # Safety
///
/// As for [`wss`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_probed(this: *mut c_void, gfn: u64, table: u32) {
    // SAFETY: By our own contract.
    unsafe { wss(this) }.probed(gfn, table != 0);
}

/// Shows a table, `what`, of KVM_SCOPE_WSS_SHOW_*.
///
/// # Safety
///
/// As for [`wss`]; `seq` is a seq_file that is being shown.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_show(this: *mut c_void, what: u32, seq: *mut c_void) {
    // SAFETY: By our own contract.
    let (this, mut seq) = unsafe { (wss(this), Seq::new(seq)) };
    // Writing does not fail: a seq_file that is full is shown again, larger.
    let _ = if what == bindings::KVM_SCOPE_WSS_SHOW_ESTIMATE {
        wss_tables::estimate(&mut seq, &this.estimate())
    } else {
        wss_tables::history(&mut seq, this.history())
    };
}

/// Writes the pages of the last period to `out`, as far as there is room, and
/// returns how much they need.
///
/// # Safety
///
/// As for [`wss`]; `out` has room for `len` bytes, or is null with `len` 0.
#[no_mangle]
unsafe extern "C" fn kvm_scope_wss_pages(this: *mut c_void, out: *mut u8, len: u64) -> u64 {
    // SAFETY: By our own contract.
    let this = unsafe { wss(this) };
    let out = if len == 0 {
        &mut []
    } else {
        // SAFETY: By our own contract.
        unsafe { slice::from_raw_parts_mut(out, len as usize) }
    };
    wss_tables::pages(this, out) as u64
}
