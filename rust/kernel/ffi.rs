// SPDX-License-Identifier: GPL-2.0

//! The boundary to C: everything that `asm/kvm_scope_abi.h` declares, and all
//! the unsafe code there is.
//!
//! C calls [`kvm_scope_start`] before the first vCPU or file exists and
//! [`kvm_scope_stop`] after the last is gone; every other function is called in
//! between. That is what makes [`registry`] sound.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::init;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{new_mutex, Mutex};

use crate::books::Books;
use crate::counters::{Counters, Table};
use crate::dump::dump;
use crate::knobs::{self, Dump};
use crate::latency::{Latency, WHO};
use crate::leaves::{self, Numbering, Question};
use crate::reasons::{self, Isa};
use crate::tables;

/// The C header as Rust sees it: a module `bindings` of what bindgen made of it.
macro_rules! bindings_of {
    ($generated:literal) => {
        #[allow(
            dead_code,
            missing_docs,
            non_camel_case_types,
            non_upper_case_globals,
            unreachable_pub,
            clippy::all
        )]
        mod bindings {
            include!(concat!(env!("KVM_SCOPE_GENERATED"), $generated));
        }
    };
}
bindings_of!("/abi_generated.rs");
use bindings::{
    kvm_scope_clock, kvm_scope_cost, kvm_scope_counters, kvm_scope_question, kvm_scope_text,
};

// What the header and the logic both state must be the same.
const _: () = {
    assert!(size_of::<Counters>() == size_of::<kvm_scope_counters>());
    assert!(align_of::<Counters>() == align_of::<kvm_scope_counters>());
    assert!(size_of::<Table>() == size_of::<kvm_scope_counters>());
    assert!(size_of::<Latency>() == 2 * reasons::SLOTS * size_of::<kvm_scope_cost>());
    assert!(align_of::<Latency>() == align_of::<kvm_scope_cost>());
    assert!(WHO == bindings::KVM_SCOPE_WHO as usize);
    assert!(reasons::DIRECT == bindings::KVM_SCOPE_DIRECT as usize);
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
    kvm_scope_slot,
    kvm_scope_name,
    kvm_scope_latency_start,
    kvm_scope_latency_stop,
    kvm_scope_vm_exits,
    kvm_scope_show,
    kvm_scope_dump,
    kvm_scope_reset,
    kvm_scope_parse_switch,
    kvm_scope_parse_leaves,
    kvm_scope_leaf,
);

// SAFETY: Integers only, for which all zeroes is a value.
unsafe impl init::Zeroable for Table {}
// SAFETY: As above.
unsafe impl init::Zeroable for Books {}
// SAFETY: As above.
unsafe impl init::Zeroable for Latency {}

/// Room for the name of a VM: two numbers and a dash.
const NAME: usize = bindings::KVM_SCOPE_NAME as usize;

/// Identifies a live vCPU: the address of its `struct kvm`, its number, and the
/// address of its `struct kvm_vcpu`, for there may for a moment be two of one
/// number. Sorted, the vCPUs of a VM stand together.
type Key = (u64, u32, u64);

/// A live vCPU.
struct Vcpu {
    /// In `vcpu->stat`, incremented by the vCPU's thread.
    counters: NonNull<Counters>,
    /// In `vcpu->arch`, kept by the vCPU's thread.
    clock: NonNull<kvm_scope_clock>,
    /// Where the clock's times go, once any were taken.
    latency: Option<KVBox<Latency>>,
    /// The VM's name: the creator's pid and the number of its file.
    name: [u8; NAME],
}

// SAFETY: What it points to is used under the ledger's lock, atomically or with
// the vCPU's thread kept away, by whichever thread that is.
unsafe impl Send for Vcpu {}

impl Vcpu {
    fn counters(&self) -> &Counters {
        // SAFETY: By the contract of `kvm_scope_vcpu_register` the counters
        // stay until the vCPU retires, which takes `self` out of the ledger.
        // Rust's accesses are atomic; C's increments are single instructions
        // by the one thread that writes.
        unsafe { self.counters.as_ref() }
    }

    /// Makes sure that there is a place for times.
    fn make_room(&mut self) -> Result {
        if self.latency.is_none() {
            self.latency = Some(no_latency()?);
        }
        Ok(())
    }

    /// Forgets all times, and the exit that the clock is running for. What the
    /// world switch takes is kept, or has to be found out before times are taken
    /// that somebody reads; until then they go to `nowhere`.
    ///
    /// # Safety
    ///
    /// The vCPU's thread is in no hook that uses the clock, and will be in none
    /// before this is over. `nowhere` stays until there are no vCPUs any more.
    unsafe fn set_clock(&mut self, world_switch: u64, nowhere: Option<&Latency>) {
        let costs = |latency: Option<&Latency>| {
            latency.map_or(ptr::null_mut(), |latency| {
                ptr::from_ref(latency).cast_mut().cast()
            })
        };
        if let Some(latency) = &self.latency {
            latency.clear();
        }
        let own = costs(self.latency.as_deref());
        let known = world_switch != 0;
        let clock = kvm_scope_clock {
            exit: bindings::KVM_SCOPE_NEVER as u64,
            cost: ptr::null_mut(),
            costs: if known { own } else { costs(nowhere) },
            entry: 0,
            world_switch,
            since: [0; WHO],
            own,
            forced: if known { 0 } else { FORCED_EXITS },
            armed: 0,
        };
        // SAFETY: Valid as the counters are; by our contract nobody else
        // accesses it now.
        unsafe { self.clock.as_ptr().write(clock) };
    }

    /// What the world switch takes, 0 if it is not known.
    ///
    /// # Safety
    ///
    /// As for [`Self::set_clock`].
    unsafe fn world_switch(&self) -> u64 {
        // SAFETY: Valid as the counters are; by our contract nobody writes to it
        // now.
        unsafe { (*self.clock.as_ptr()).world_switch }
    }

    fn cost_to(&self, sum: &Latency) {
        if let Some(latency) = &self.latency {
            latency.add_to(sum);
        }
    }
}

/// How often a vCPU is made to exit to find out what the world switch takes. The
/// first tells nothing, and the fewest that nothing interfered with would do.
const FORCED_EXITS: u32 = 10;

/// A VM's name as text.
fn text(name: &[u8; NAME]) -> &str {
    let name = name.split(|&byte| byte == 0).next();
    name.and_then(|name| core::str::from_utf8(name).ok())
        .unwrap_or("?")
}

/// The live vCPUs, and what is remembered of the dead.
struct Ledger {
    live: RBTree<Key, Vcpu>,
    books: KBox<Books>,
    /// What the exits of dead vCPUs cost, once anything was measured.
    retired: Option<KVBox<Latency>>,
    /// Where times go that nobody is to read. The vCPUs' threads write to it
    /// without regard to each other, and so it stays for as long as `live` does.
    nowhere: Option<KVBox<Latency>>,
    /// Whether new vCPUs are to be measured.
    measuring: bool,
}

/// Room to add up what is about to be printed.
struct Sums {
    table: KBox<Table>,
    latency: Option<KVBox<Latency>>,
}

#[pin_data]
struct Registry {
    isa: Isa,
    tsc_khz: u32,
    #[pin]
    ledger: Mutex<Ledger>,
    /// Held while printing, so that the lines of two dumps do not mix and no
    /// vCPU waits for a slow console. Taken before the ledger.
    #[pin]
    sums: Mutex<Sums>,
    /// Room to add up a VM, for whom no console is waited. Before the ledger, too.
    #[pin]
    vm_sum: Mutex<KBox<Table>>,
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

fn errno(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

fn isa_from_c(isa: u32) -> Result<Isa> {
    match isa {
        bindings::KVM_SCOPE_VMX => Ok(Isa::Vmx),
        bindings::KVM_SCOPE_SVM => Ok(Isa::Svm),
        _ => Err(EINVAL),
    }
}

fn no_latency() -> Result<KVBox<Latency>> {
    let latency = KVBox::<Latency>::init(init::zeroed(), GFP_KERNEL_ACCOUNT)?;
    latency.clear();
    Ok(latency)
}

/// Gets ready to count on a CPU with `isa`, one of KVM_SCOPE_VMX and
/// KVM_SCOPE_SVM, whose TSC counts so many kHz. Returns 0, or -EINVAL or
/// -ENOMEM, with nothing to undo.
///
/// # Safety
///
/// Not between an earlier call that succeeded and its [`kvm_scope_stop`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_start(isa: u32, tsc_khz: u32) -> c_int {
    errno(isa_from_c(isa).and_then(|isa| start(isa, tsc_khz)))
}

fn start(isa: Isa, tsc_khz: u32) -> Result {
    let ledger = Ledger {
        live: RBTree::new(),
        books: KBox::init(init::zeroed(), GFP_KERNEL)?,
        retired: None,
        nowhere: None,
        measuring: false,
    };
    let sums = Sums {
        table: KBox::init(init::zeroed(), GFP_KERNEL)?,
        latency: None,
    };
    let vm_sum = KBox::init(init::zeroed(), GFP_KERNEL)?;
    let registry = KBox::pin_init(
        pin_init!(Registry {
            isa,
            tsc_khz,
            ledger <- new_mutex!(ledger, "kvm_scope_ledger"),
            sums <- new_mutex!(sums, "kvm_scope_sums"),
            vm_sum <- new_mutex!(vm_sum, "kvm_scope_vm_sum"),
        }),
        GFP_KERNEL,
    )?;

    // SAFETY: Nothing moves out of the box: the only other use of the pointer
    // is to make the box again, in `kvm_scope_stop`.
    let registry = KBox::into_raw(unsafe { Pin::into_inner_unchecked(registry) });
    REGISTRY.store(registry, Ordering::Release);
    Ok(())
}

/// Forgets everything.
///
/// # Safety
///
/// After a [`kvm_scope_start`] that succeeded, when no vCPU is registered any
/// more, no file is left, and none can come.
#[no_mangle]
unsafe extern "C" fn kvm_scope_stop() {
    let registry = REGISTRY.swap(ptr::null_mut(), Ordering::AcqRel);

    // SAFETY: The pointer is the one that `start` made of a pinned box, and by
    // the contract nobody else uses it any more.
    drop(unsafe { Pin::new_unchecked(KBox::from_raw(registry)) });
}

/// Takes a new vCPU in: number `id` of the VM `vm`, whose name is at `name`,
/// KVM_SCOPE_NAME bytes with zeroes at the end, and sets its clock. Returns 0 or -ENOMEM.
///
/// # Safety
///
/// Between start and stop; may sleep. `vm` and `vcpu` are addresses that no
/// other VM and vCPU has meanwhile. `counters` and `clock` are valid, and zero,
/// until the vCPU retires.
#[no_mangle]
unsafe extern "C" fn kvm_scope_vcpu_register(
    vm: u64,
    id: u32,
    vcpu: u64,
    name: *const u8,
    counters: *mut kvm_scope_counters,
    clock: *mut kvm_scope_clock,
) -> c_int {
    // SAFETY: By our own contract.
    let (registry, name) = unsafe { (registry(), *name.cast::<[u8; NAME]>()) };
    let (Some(counters), Some(clock)) = (NonNull::new(counters.cast()), NonNull::new(clock)) else {
        return EINVAL.to_errno();
    };

    let vcpu_entry = Vcpu {
        counters,
        clock,
        latency: None,
        name,
    };
    errno(register(registry, (vm, id, vcpu), vcpu_entry))
}

fn register(registry: &Registry, key: Key, mut vcpu: Vcpu) -> Result {
    // Nothing is allocated under the lock: in a cgroup that is short of memory
    // that may take long, and other VMs want to come and go.
    let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
    loop {
        {
            let mut ledger = registry.ledger.lock();
            if !ledger.measuring || vcpu.latency.is_some() {
                // SAFETY: The vCPU does not run yet.
                unsafe { vcpu.set_clock(0, ledger.nowhere.as_deref()) };
                ledger.live.insert(node.into_node(key, vcpu));
                return Ok(());
            }
        }
        vcpu.make_room()?;
    }
}

/// Takes over what the vCPU counted.
///
/// # Safety
///
/// Between start and stop; may sleep. The vCPU was registered, and will not run
/// again.
#[no_mangle]
unsafe extern "C" fn kvm_scope_vcpu_retire(vm: u64, id: u32, vcpu: u64) {
    // SAFETY: Between start and stop, by our own contract.
    let mut ledger = unsafe { registry() }.ledger.lock();

    // Taken out and added up under one lock: no reader sees neither or both.
    if let Some(vcpu) = ledger.live.remove(&(vm, id, vcpu)) {
        ledger.books.retire(vcpu.counters());
        if let (Some(latency), Some(retired)) = (&vcpu.latency, &ledger.retired) {
            latency.add_to(retired);
        }
    }
}

/// The slot of an exit whose reason is not simply an index below
/// KVM_SCOPE_DIRECT: always less than KVM_SCOPE_SLOTS.
///
/// # Safety
///
/// None needed. Any context.
#[no_mangle]
unsafe extern "C" fn kvm_scope_slot(isa: u32, reason: u32) -> u32 {
    let slot = match isa_from_c(isa) {
        Ok(isa) => reasons::slot(isa, reason),
        Err(_) => reasons::UNKNOWN,
    };
    slot as u32
}

/// The name of what is counted in a slot.
///
/// # Safety
///
/// Between start and stop; any context.
#[no_mangle]
unsafe extern "C" fn kvm_scope_name(slot: u32) -> kvm_scope_text {
    // SAFETY: Between start and stop, by our own contract.
    let isa = unsafe { registry() }.isa;
    let name = reasons::reason(isa, slot as usize).map_or("?", |reason| reason.name);
    kvm_scope_text {
        text: name.as_ptr(),
        len: name.len() as u64,
    }
}

/// Makes room for times, of all vCPUs and of those that are created from now on,
/// and forgets earlier ones. Returns 0, or -ENOMEM with nothing changed.
///
/// # Safety
///
/// Between start and stop; may sleep. No vCPU's thread is in a hook that uses
/// its clock, and will be in none before this is over.
#[no_mangle]
unsafe extern "C" fn kvm_scope_latency_start() -> c_int {
    // SAFETY: Between start and stop, by our own contract.
    let registry = unsafe { registry() };

    let make_room = || {
        let mut sums = registry.sums.lock();
        let mut ledger = registry.ledger.lock();
        for vcpu in ledger.live.values_mut() {
            vcpu.make_room()?;
        }
        if sums.latency.is_none() {
            sums.latency = Some(no_latency()?);
        }
        if ledger.retired.is_none() {
            ledger.retired = Some(no_latency()?);
        }
        if ledger.nowhere.is_none() {
            ledger.nowhere = Some(no_latency()?);
        }
        // SAFETY: By our own contract.
        unsafe { ledger.set_clocks(|_| 0) };
        ledger.measuring = true;
        Ok(())
    };
    errno(make_room())
}

/// Makes no room for the times of vCPUs that are created from now on. What was
/// taken stays.
///
/// # Safety
///
/// Between start and stop; may sleep.
#[no_mangle]
unsafe extern "C" fn kvm_scope_latency_stop() {
    // SAFETY: Between start and stop, by our own contract.
    unsafe { registry() }.ledger.lock().measuring = false;
}

/// Writes the sum of what the vCPUs of a VM counted to `out`.
///
/// # Safety
///
/// Between start and stop; may sleep. `out` is valid, and nobody writes to it
/// but through this function.
#[no_mangle]
unsafe extern "C" fn kvm_scope_vm_exits(vm: u64, out: *mut kvm_scope_counters) {
    // SAFETY: By our own contract, and accessed atomically by Rust. C copies it
    // to userspace meanwhile, each value before or after.
    let (registry, out) = unsafe { (registry(), &*out.cast::<Counters>()) };

    // Held until `out` is written: of two sums the later one stays.
    let mut sum = registry.vm_sum.lock();
    registry.ledger.lock().sum_of(vm, 0, &mut sum);
    out.set(&sum);
}

impl Ledger {
    /// Forgets all times, and leaves each vCPU with this world switch.
    ///
    /// # Safety
    ///
    /// As for [`Vcpu::set_clock`], for every vCPU.
    unsafe fn set_clocks(&mut self, world_switch: impl Fn(&Vcpu) -> u64) {
        for vcpu in self.live.values_mut() {
            let world_switch = world_switch(vcpu);
            // SAFETY: By our own contract; what has been made stays.
            unsafe { vcpu.set_clock(world_switch, self.nowhere.as_deref()) };
        }
        if let Some(retired) = &self.retired {
            retired.clear();
        }
    }

    /// Each vCPU of a VM, or the one with the address `vcpu` if that is not 0. Other
    /// VMs, of which there may be many, are not looked at.
    fn for_each_of(&mut self, vm: u64, vcpu: u64, mut f: impl FnMut(&Vcpu)) {
        let mut cursor = self.live.cursor_lower_bound(&(vm, 0, 0));
        while let Some(at) = cursor {
            let (key, found) = at.current();
            if key.0 != vm {
                break;
            }
            if vcpu == 0 || key.2 == vcpu {
                f(found);
            }
            cursor = at.move_next();
        }
    }

    fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.live.values().map(Vcpu::counters)
    }

    /// Sets `table` to what those of [`Self::for_each_of`] counted.
    fn sum_of(&mut self, vm: u64, vcpu: u64, table: &mut Table) {
        table.copy_from(const { &Table::new() });
        self.for_each_of(vm, vcpu, |vcpu| vcpu.counters().add_to(table));
    }
}

/// A `struct seq_file` to write to.
pub(crate) struct Seq(*mut c_void);

impl Seq {
    /// # Safety
    ///
    /// `seq` is a `struct seq_file` that is being shown for as long as this exists.
    pub(crate) unsafe fn new(seq: *mut c_void) -> Self {
        Self(seq)
    }
}

impl Write for Seq {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // SAFETY: By the contract of `new`, a seq_file that is being shown; the
        // string is valid during the call.
        unsafe { bindings::kvm_scope_print(self.0, s.as_ptr(), s.len() as u64) };
        Ok(())
    }
}

/// Shows a table, `what`, of KVM_SCOPE_SHOW_*: of one vCPU, of the VM if `vcpu`
/// is 0, of the system if `vm` is 0 too.
///
/// # Safety
///
/// Between start and stop; may sleep. `seq` is a seq_file that is being shown.
#[no_mangle]
unsafe extern "C" fn kvm_scope_show(what: u32, vm: u64, vcpu: u64, seq: *mut c_void) {
    // SAFETY: Between start and stop, by our own contract.
    let registry = unsafe { registry() };
    let mut sums = registry.sums.lock();
    let Sums { table, latency } = &mut *sums;

    let mut ledger = registry.ledger.lock();
    if what == bindings::KVM_SCOPE_SHOW_EXITS {
        if vm == 0 {
            ledger.books.since_reset(ledger.counters(), table);
        } else {
            ledger.sum_of(vm, vcpu, table);
        }
    } else if let Some(sum) = latency {
        sum.clear();
        if vm == 0 {
            ledger.live.values().for_each(|vcpu| vcpu.cost_to(sum));
            if let Some(retired) = &ledger.retired {
                retired.add_to(sum);
            }
        } else {
            ledger.for_each_of(vm, vcpu, |vcpu| vcpu.cost_to(sum));
        }
    }
    drop(ledger);

    // SAFETY: By our own contract.
    let mut seq = unsafe { Seq::new(seq) };
    // Writing does not fail: a seq_file that is full is shown again, larger.
    let _ = if what == bindings::KVM_SCOPE_SHOW_EXITS {
        tables::exits(&mut seq, registry.isa, table)
    } else {
        tables::latency(&mut seq, registry.isa, latency.as_deref(), registry.tsc_khz)
    };
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

    let mut sums = registry.sums.lock();
    let table = &mut sums.table;
    if what == Dump::Vms {
        dump_vms(registry, table);
        return 0;
    }

    {
        let ledger = registry.ledger.lock();
        ledger.books.since_reset(ledger.counters(), table);
    }
    pr_info!("VM exits by reason ({})\n", registry.isa.name());
    dump(registry.isa, what, table, |line| pr_info!("{}\n", line));
    0
}

/// Prints a table for each live vCPU. The ledger is released between two of
/// them: consoles are slow, and a VM may want to end.
fn dump_vms(registry: &Registry, table: &mut Table) {
    let mut from = (0, 0, 0);
    loop {
        let mut ledger = registry.ledger.lock();
        let next = ledger.live.cursor_lower_bound(&from);
        let Some((key, name)) = next.map(|at| (*at.current().0, at.current().1.name)) else {
            break;
        };
        ledger.sum_of(key.0, key.2, table);
        drop(ledger);

        pr_info!(
            "VM exits by reason ({}) of VM {}, vCPU {}\n",
            registry.isa.name(),
            text(&name),
            key.1
        );
        dump(registry.isa, Dump::Seen, table, |line| {
            pr_info!("{}\n", line)
        });
        from = (key.0, key.1, key.2.wrapping_add(1));
    }
}

/// Counts from zero, and forgets all times.
///
/// # Safety
///
/// As for [`kvm_scope_latency_start`].
#[no_mangle]
unsafe extern "C" fn kvm_scope_reset() {
    // SAFETY: Between start and stop, by our own contract.
    let registry = unsafe { registry() };

    let mut ledger = registry.ledger.lock();
    let Ledger { live, books, .. } = &mut *ledger;
    books.reset(live.values().map(Vcpu::counters));
    // SAFETY: By our own contract.
    let keep = |vcpu: &Vcpu| unsafe { vcpu.world_switch() };
    // SAFETY: By our own contract.
    unsafe { ledger.set_clocks(keep) };
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

/// Reads a write to a VM's `cpuid`: one of KVM_SCOPE_LEAVES_*, or -EINVAL.
///
/// # Safety
///
/// `written` points to `len` bytes that do not change meanwhile.
#[no_mangle]
unsafe extern "C" fn kvm_scope_parse_leaves(written: *const u8, len: u64) -> c_int {
    // SAFETY: By our own contract.
    let written = unsafe { core::slice::from_raw_parts(written, len as usize) };

    let leaves = match knobs::leaves(written) {
        Some(None) => bindings::KVM_SCOPE_LEAVES_OFF,
        Some(Some(Numbering::A)) => bindings::KVM_SCOPE_LEAVES_A,
        Some(Some(Numbering::B)) => bindings::KVM_SCOPE_LEAVES_B,
        None => return EINVAL.to_errno(),
    };
    leaves as c_int
}

/// What a leaf of CPUID asks for in this numbering, one of KVM_SCOPE_LEAVES_*.
///
/// # Safety
///
/// Between start and stop; any context.
#[no_mangle]
unsafe extern "C" fn kvm_scope_leaf(numbering: u32, leaf: u32, index: u32) -> kvm_scope_question {
    // SAFETY: Between start and stop, by our own contract.
    let isa = unsafe { registry() }.isa;
    let numbering = match numbering {
        bindings::KVM_SCOPE_LEAVES_A => Some(Numbering::A),
        bindings::KVM_SCOPE_LEAVES_B => Some(Numbering::B),
        _ => None,
    };

    let question = numbering.and_then(|n| leaves::question(n, isa, leaf, index));
    let (asks, slot) = match question {
        None => (bindings::KVM_SCOPE_ASKS_NOTHING, None),
        Some(Question::Exits(slot)) => (bindings::KVM_SCOPE_ASKS_EXITS, slot),
        Some(Question::Ticks(slot)) => (bindings::KVM_SCOPE_ASKS_TICKS, slot),
        Some(Question::Undefined) => (bindings::KVM_SCOPE_ASKS_UNDEFINED, None),
    };
    kvm_scope_question {
        asks,
        slot: slot.unwrap_or(reasons::SLOTS) as u32,
    }
}
