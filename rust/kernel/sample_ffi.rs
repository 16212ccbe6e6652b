// SPDX-License-Identifier: GPL-2.0

//! The boundary to C of the access sampler: everything that
//! `asm/kvm_scope_sample_abi.h` declares, and its unsafe code.
//!
//! C has a lock around all that is done with one sampler, and another around what
//! is done with one ring, so a function may take their pointers for unique
//! references.

use core::ffi::c_int;
use core::mem::offset_of;
use core::slice;

use kernel::prelude::*;

use crate::sample::{self, Params, Plan, Ring, Sampler, Seen, Slot};

bindings_of!("/sample_abi_generated.rs");
use bindings::{
    kvm_scope_sample_params, kvm_scope_sample_place, kvm_scope_sample_plan, kvm_scope_sample_ring,
    kvm_scope_sample_row, kvm_scope_sample_seen, kvm_scope_sample_slot, kvm_scope_sampler,
};

/// Asserts that a struct of C is laid out as its twin in Rust, whose fields have the
/// same names and types.
macro_rules! twins {
    ($($c:ty = $rust:ty { $($field:ident),* })*) => {
        $(const _: () = {
            assert!(size_of::<$c>() == size_of::<$rust>());
            assert!(align_of::<$c>() == align_of::<$rust>());
            $(assert!(offset_of!($c, $field) == offset_of!($rust, $field));)*
        };)*
    };
}
twins! {
    kvm_scope_sampler = Sampler {}
    kvm_scope_sample_params = Params { strategy, access, rate, budget_ppm }
    kvm_scope_sample_slot = Slot { gfn, pages, before }
    kvm_scope_sample_seen = Seen {
        now_ns, armed, taken, filtered, disarmed, fault_ns, batch_ns, guest_ns, batches, vcpus
    }
    kvm_scope_sample_plan = Plan { want, wait_ns, rate_now }
    kvm_scope_sample_ring = Ring { head, tail, lost, dropped, records }
}

const _: () = {
    assert!(sample::REGION == bindings::KVM_SCOPE_SAMPLE_REGION as u64);
    assert!(sample::MAX_WANT == bindings::KVM_SCOPE_SAMPLE_MAX_WANT as u64);
};

matches_prototype!(
    kvm_scope_sample_valid,
    kvm_scope_sample_takes,
    kvm_scope_sample_kind,
    kvm_scope_sample_old,
    kvm_scope_sampler_init,
    kvm_scope_sampler_change,
    kvm_scope_sampler_plan,
    kvm_scope_sampler_choose,
    kvm_scope_sample_spent_ns,
    kvm_scope_sample_room,
    kvm_scope_sample_put,
    kvm_scope_sample_heed,
    kvm_scope_sample_next,
    kvm_scope_sample_consume,
);

fn params(params: &kvm_scope_sample_params) -> Params {
    Params {
        strategy: params.strategy,
        access: params.access,
        rate: params.rate,
        budget_ppm: params.budget_ppm,
    }
}

/// Whether there are such parameters: 0 or -EINVAL.
///
/// # Safety
///
/// `this` is valid.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_valid(this: *const kvm_scope_sample_params) -> c_int {
    // SAFETY: By our own contract.
    if params(unsafe { &*this }).are_valid() {
        0
    } else {
        EINVAL.to_errno()
    }
}

/// The accesses to take away so as to see those of `access`.
///
/// # Safety
///
/// None needed: plain data.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_takes(access: u32) -> u32 {
    sample::widened(access)
}

/// The kind of an access, by three conditions that are 0 or not.
///
/// # Safety
///
/// None needed: plain data.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_kind(write: u64, fetch: u64, walk: u64) -> u32 {
    sample::kind(write != 0, fetch != 0, walk != 0)
}

/// A sample as programs of old have it, or 0 if it is none that they could have.
///
/// # Safety
///
/// None needed: plain data.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_old(gfn: u64, access: u32) -> u32 {
    sample::old(gfn, access).unwrap_or(0)
}

/// # Safety
///
/// `this` is what [`kvm_scope_sampler_init`] has initialised, and nobody else uses
/// it meanwhile.
unsafe fn sampler<'a>(this: *mut kvm_scope_sampler) -> &'a mut Sampler {
    // SAFETY: Of the same size and alignment, and initialised, by our own contract.
    unsafe { &mut *this.cast::<Sampler>() }
}

/// Begins, with valid parameters.
///
/// # Safety
///
/// `this` and `first` are valid, and nobody else uses `this` meanwhile.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sampler_init(
    this: *mut kvm_scope_sampler,
    seed: u64,
    first: *const kvm_scope_sample_params,
) {
    // SAFETY: Room for a sampler, by our own contract; it needs no drop.
    unsafe {
        this.cast::<Sampler>()
            .write(Sampler::new(seed, params(&*first)))
    };
}

/// Goes on with other valid parameters.
///
/// # Safety
///
/// As for [`sampler`]; `next` is valid.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sampler_change(
    this: *mut kvm_scope_sampler,
    next: *const kvm_scope_sample_params,
) {
    // SAFETY: By our own contract.
    unsafe { sampler(this).change(params(&*next)) };
}

/// How much to take away now, and when to ask again.
///
/// # Safety
///
/// As for [`sampler`]; `seen` is valid.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sampler_plan(
    this: *mut kvm_scope_sampler,
    seen: *const kvm_scope_sample_seen,
) -> kvm_scope_sample_plan {
    // SAFETY: Twins, and valid by our own contract.
    let plan = unsafe { sampler(this).plan(&*seen.cast::<Seen>()) };
    kvm_scope_sample_plan {
        want: plan.want,
        wait_ns: plan.wait_ns,
        rate_now: plan.rate_now,
    }
}

/// Chooses up to `max` pages of `count` slots, sorted by address. Returns how many.
///
/// # Safety
///
/// As for [`sampler`]; `slots` points to so many, or is null with a `count` of 0,
/// and `gfns` to `max` numbers, whatever they are.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sampler_choose(
    this: *mut kvm_scope_sampler,
    slots: *const kvm_scope_sample_slot,
    count: u64,
    gfns: *mut u64,
    max: u64,
) -> u64 {
    if count == 0 {
        return 0;
    }
    // SAFETY: Twins, and valid by our own contract.
    unsafe {
        sampler(this).choose(
            slice::from_raw_parts(slots.cast::<Slot>(), count as usize),
            slice::from_raw_parts_mut(gfns, max as usize),
        ) as u64
    }
}

/// What sampling has cost the guest.
///
/// # Safety
///
/// `seen` is valid.
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_spent_ns(seen: *const kvm_scope_sample_seen) -> u64 {
    // SAFETY: Twins, and valid by our own contract.
    unsafe { &*seen.cast::<Seen>() }.spent_ns()
}

/// # Safety
///
/// `this` is valid, and nobody else uses it meanwhile.
unsafe fn ring<'a>(this: *mut kvm_scope_sample_ring) -> &'a mut Ring {
    // SAFETY: Twins, and by our own contract.
    unsafe { &mut *this.cast::<Ring>() }
}

/// Takes a sample: where its record goes, with its number, if there is room.
///
/// # Safety
///
/// As for [`ring`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_room(
    this: *mut kvm_scope_sample_ring,
) -> kvm_scope_sample_place {
    // SAFETY: By our own contract.
    let ring = unsafe { ring(this) };
    let sequence = ring.taken();
    match ring.room() {
        Some(at) => kvm_scope_sample_place {
            at,
            sequence,
            room: 1,
        },
        None => kvm_scope_sample_place {
            at: 0,
            sequence,
            room: 0,
        },
    }
}

/// The record is where [`kvm_scope_sample_room`] said.
///
/// # Safety
///
/// As for [`ring`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_put(this: *mut kvm_scope_sample_ring) {
    // SAFETY: By our own contract.
    unsafe { ring(this) }.put();
}

/// Takes the reader's word, which may be any, for how far it has come.
///
/// # Safety
///
/// As for [`ring`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_heed(this: *mut kvm_scope_sample_ring, tail: u64) {
    // SAFETY: By our own contract.
    unsafe { ring(this) }.heed(tail);
}

/// Where the next records are, and how many in a row, up to `max`.
///
/// # Safety
///
/// As for [`ring`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_next(
    this: *mut kvm_scope_sample_ring,
    max: u64,
) -> kvm_scope_sample_row {
    // SAFETY: By our own contract.
    let (at, count) = unsafe { ring(this) }.next(max);
    kvm_scope_sample_row { at, count }
}

/// So many records were taken out, `dropped` of them for nothing.
///
/// # Safety
///
/// As for [`ring`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_sample_consume(
    this: *mut kvm_scope_sample_ring,
    count: u64,
    dropped: u64,
) {
    // SAFETY: By our own contract.
    unsafe { ring(this) }.consume(count, dropped);
}
