// SPDX-License-Identifier: GPL-2.0

//! The boundary to C: everything that `kvm_scope_abi.h` declares, and all the
//! unsafe code there is.
//!
//! C calls [`kvm_scope_start`] before the first vCPU or knob exists and
//! [`kvm_scope_stop`] after the last is gone; every other function is called in
//! between. That is what makes [`registry`] sound.

use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::init;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::{new_mutex, Mutex};

use crate::books::Books;
use crate::counters::{Counters, Table};
use crate::dump::dump;
use crate::knobs;
use crate::reasons::{self, Isa};

/// The C header as Rust sees it (bindgen).
#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    clippy::all
)]
mod bindings {
    include!(concat!(env!("KVM_SCOPE_GENERATED"), "/abi_generated.rs"));
}
use bindings::kvm_scope_counters;

// What the header and the logic both state must be the same.
const _: () = {
    assert!(size_of::<Counters>() == size_of::<kvm_scope_counters>());
    assert!(align_of::<Counters>() == align_of::<kvm_scope_counters>());
    assert!(reasons::DIRECT == bindings::KVM_SCOPE_DIRECT as usize);
    assert!(reasons::VMFAIL == bindings::KVM_SCOPE_VMFAIL as usize);
    assert!(reasons::EMULATION_REQUIRED == bindings::KVM_SCOPE_EMULATION_REQUIRED as usize);
    assert!(reasons::SLOTS == bindings::KVM_SCOPE_SLOTS as usize);
};

/// Fails to compile when a function and its prototype in C differ, as the
/// `#[export]` of later kernels does.
macro_rules! matches_prototype {
    ($($f:ident),* $(,)?) => {
        $(const _: () = {
            if true { bindings::$f } else { $f };
        };)*
    };
}
matches_prototype!(
    kvm_scope_start,
    kvm_scope_stop,
    kvm_scope_vcpu_register,
    kvm_scope_vcpu_retire,
    kvm_scope_count_rare,
    kvm_scope_dump,
    kvm_scope_reset,
    kvm_scope_parse_switch,
);

// SAFETY: Integers only, for which all zeroes is a value.
unsafe impl init::Zeroable for Counters {}
// SAFETY: As above.
unsafe impl init::Zeroable for Books {}

/// Identifies a live vCPU: the addresses of its `struct kvm` and `kvm_vcpu`.
/// Sorted, so that the vCPUs of one VM stand together.
type Key = (u64, u64);

/// The live vCPUs, and what is remembered of the dead.
struct Ledger {
    live: RBTree<Key, KBox<Counters>>,
    books: KBox<Books>,
}

impl Ledger {
    fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.live.values().map(|counters| &**counters)
    }
}

#[pin_data]
struct Registry {
    isa: Isa,
    #[pin]
    ledger: Mutex<Ledger>,
    /// The table being printed; held while printing, so that the lines of two
    /// dumps do not mix and no vCPU waits for a slow console.
    #[pin]
    printing: Mutex<KBox<Table>>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// # Safety
///
/// To be called between [`kvm_scope_start`] and [`kvm_scope_stop`] only, and
/// not to be kept beyond that.
unsafe fn registry<'a>() -> &'a Registry {
    // SAFETY: `kvm_scope_start` stored a box that `kvm_scope_stop` frees; by
    // the contract we are between the two, and what is shared is only ever
    // borrowed immutably.
    unsafe { &*REGISTRY.load(Ordering::Acquire) }
}

fn start(isa: Isa) -> Result {
    let ledger = Ledger {
        live: RBTree::new(),
        books: KBox::init(init::zeroed(), GFP_KERNEL)?,
    };
    let table = KBox::init(init::zeroed(), GFP_KERNEL)?;
    let registry = KBox::pin_init(
        pin_init!(Registry {
            isa,
            ledger <- new_mutex!(ledger, "kvm_scope_ledger"),
            printing <- new_mutex!(table, "kvm_scope_printing"),
        }),
        GFP_KERNEL,
    )?;

    // SAFETY: Nothing moves out of the box: the only other use of the pointer
    // is to make the box again, in `kvm_scope_stop`.
    let registry = KBox::into_raw(unsafe { Pin::into_inner_unchecked(registry) });
    REGISTRY.store(registry, Ordering::Release);
    Ok(())
}

fn errno(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// Gets ready to count on a CPU with `isa`, one of KVM_SCOPE_VMX and
/// KVM_SCOPE_SVM. Returns 0, or -EINVAL or -ENOMEM, with nothing to undo.
///
/// # Safety
///
/// Not between an earlier call that succeeded and its [`kvm_scope_stop`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_start(isa: u32) -> c_int {
    errno(isa_from_c(isa).and_then(start))
}

fn isa_from_c(isa: u32) -> Result<Isa> {
    match isa {
        bindings::KVM_SCOPE_VMX => Ok(Isa::Vmx),
        bindings::KVM_SCOPE_SVM => Ok(Isa::Svm),
        _ => Err(EINVAL),
    }
}

/// Forgets everything.
///
/// # Safety
///
/// After a [`kvm_scope_start`] that succeeded, when no vCPU is registered any
/// more, no knob is left, and none can come.
#[no_mangle]
unsafe extern "C" fn kvm_scope_stop() {
    let registry = REGISTRY.swap(ptr::null_mut(), Ordering::AcqRel);

    // SAFETY: The pointer is the one that `start` made of a pinned box, and by
    // the contract nobody else uses it any more.
    drop(unsafe { Pin::new_unchecked(KBox::from_raw(registry)) });
}

/// Returns zeroed counters for a vCPU, or NULL when there is no memory. They
/// stay where they are until the vCPU retires; its thread increments them.
///
/// # Safety
///
/// Between start and stop; may sleep. `vm` and `vcpu` identify the vCPU, and
/// are not registered already.
#[no_mangle]
unsafe extern "C" fn kvm_scope_vcpu_register(vm: u64, vcpu: u64) -> *mut kvm_scope_counters {
    // SAFETY: Between start and stop, by our own contract.
    let registry = unsafe { registry() };

    register(registry, (vm, vcpu)).unwrap_or(ptr::null_mut())
}

fn register(registry: &Registry, key: Key) -> Result<*mut kvm_scope_counters> {
    let counters = KBox::into_raw(KBox::<Counters>::init(init::zeroed(), GFP_KERNEL_ACCOUNT)?);
    // SAFETY: Just made of a box. It is taken apart for a pointer that may be
    // used beside the box: moving the box does not move what it points to.
    let owned = unsafe { KBox::from_raw(counters) };

    registry
        .ledger
        .lock()
        .live
        .try_create_and_insert(key, owned, GFP_KERNEL_ACCOUNT)?;
    Ok(counters.cast())
}

/// Takes over what the vCPU counted and frees its counters.
///
/// # Safety
///
/// Between start and stop; may sleep. The vCPU will not run again, and its
/// counters are not used any more.
#[no_mangle]
unsafe extern "C" fn kvm_scope_vcpu_retire(vm: u64, vcpu: u64) {
    // SAFETY: Between start and stop, by our own contract.
    let mut ledger = unsafe { registry() }.ledger.lock();

    // Taken out and added up under one lock: no reader sees neither or both.
    if let Some(counters) = ledger.live.remove(&(vm, vcpu)) {
        ledger.books.retire(&counters);
    }
}

/// Counts an exit whose reason is not simply an index below KVM_SCOPE_DIRECT.
///
/// # Safety
///
/// Called by the thread that runs the vCPU, with what
/// [`kvm_scope_vcpu_register`] returned for it, not yet retired. Any context.
#[no_mangle]
unsafe extern "C" fn kvm_scope_count_rare(
    counters: *mut kvm_scope_counters,
    isa: u32,
    reason: u32,
) {
    // SAFETY: By the contract the pointer came from a box that still exists.
    // All access from Rust is atomic, and C increments in this same thread.
    let counters = unsafe { &*counters.cast::<Counters>() };

    if let Ok(isa) = isa_from_c(isa) {
        counters.count(reasons::slot(isa, reason));
    }
}

/// Carries out a write to the knob `dump`. Returns 0 or -EINVAL.
///
/// # Safety
///
/// Between start and stop; may sleep. `written` points to `len` bytes that do
/// not change meanwhile.
#[no_mangle]
unsafe extern "C" fn kvm_scope_dump(written: *const u8, len: u64) -> c_int {
    // SAFETY: By our own contract.
    let (registry, written) = unsafe {
        (
            registry(),
            core::slice::from_raw_parts(written, len as usize),
        )
    };

    let Some(what) = knobs::dump(written) else {
        return EINVAL.to_errno();
    };

    let mut table = registry.printing.lock();
    {
        let ledger = registry.ledger.lock();
        ledger.books.since_reset(ledger.counters(), &mut table);
    }
    pr_info!("VM exits by reason ({})\n", registry.isa.name());
    dump(registry.isa, what, &table, |line| pr_info!("{}\n", line));
    0
}

/// Carries out a write to the knob `reset`. Returns 0 or -EINVAL.
///
/// # Safety
///
/// As for [`kvm_scope_dump`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_reset(written: *const u8, len: u64) -> c_int {
    // SAFETY: By our own contract.
    let (registry, written) = unsafe {
        (
            registry(),
            core::slice::from_raw_parts(written, len as usize),
        )
    };

    if knobs::trigger(written).is_none() {
        return EINVAL.to_errno();
    }

    let mut ledger = registry.ledger.lock();
    let Ledger { live, books } = &mut *ledger;
    books.reset(live.values().map(|counters| &**counters));
    0
}

/// Reads a write to a switch: 0 for off, 1 for on, or -EINVAL.
///
/// # Safety
///
/// `written` points to `len` bytes that do not change meanwhile.
#[no_mangle]
unsafe extern "C" fn kvm_scope_parse_switch(written: *const u8, len: u64) -> c_int {
    // SAFETY: By our own contract.
    let written = unsafe { core::slice::from_raw_parts(written, len as usize) };

    match knobs::switch(written) {
        Some(on) => on.into(),
        None => EINVAL.to_errno(),
    }
}
