// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! The kernel's include/uapi/linux/kvm_ept_sample.h, by scripts/uapi: not to be edited.

#![allow(non_camel_case_types, dead_code, clippy::all)]

pub const KVM_EPT_SAMPLE_READ: u32 = 1;
pub const KVM_EPT_SAMPLE_WRITE: u32 = 2;
pub const KVM_EPT_SAMPLE_EXEC: u32 = 4;
pub const KVM_EPT_SAMPLE_VERSION: u32 = 1;
pub const KVM_EPT_SAMPLE_SWEEP: u32 = 0;
pub const KVM_EPT_SAMPLE_RANDOM: u32 = 1;
pub const KVM_EPT_SAMPLE_MAX_RATE: u32 = 1000000;
pub const KVM_EPT_SAMPLE_MAX_BUDGET: u32 = 1000000;
pub const KVM_EPT_SAMPLE_BUDGET: u32 = 10000;
pub const KVM_EPT_SAMPLE_MIN_RECORDS: u32 = 64;
pub const KVM_EPT_SAMPLE_MAX_RECORDS: u32 = 1048576;
pub const KVM_EPT_SAMPLE_RECORDS: u32 = 65536;
pub const KVM_EPT_SAMPLE_TABLE: u32 = 1;
pub const KVM_EPT_SAMPLE_SLOT_READONLY: u32 = 1;
pub const KVM_EPT_SAMPLE_IO: u32 = 229;
pub type __u8 = ::core::ffi::c_uchar;
pub type __u16 = ::core::ffi::c_ushort;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct kvm_ept_sample_config {
    pub size: __u32,
    pub flags: __u32,
    pub pid: __s32,
    pub vm_fd: __s32,
    pub strategy: __u32,
    pub access: __u32,
    pub rate: __u32,
    pub budget_ppm: __u32,
    pub ring_records: __u32,
    pub reserved: [__u32; 7usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kvm_ept_sample_config"][::core::mem::size_of::<kvm_ept_sample_config>() - 64usize];
    ["Alignment of kvm_ept_sample_config"]
        [::core::mem::align_of::<kvm_ept_sample_config>() - 4usize];
    ["Offset of field: kvm_ept_sample_config::size"]
        [::core::mem::offset_of!(kvm_ept_sample_config, size) - 0usize];
    ["Offset of field: kvm_ept_sample_config::flags"]
        [::core::mem::offset_of!(kvm_ept_sample_config, flags) - 4usize];
    ["Offset of field: kvm_ept_sample_config::pid"]
        [::core::mem::offset_of!(kvm_ept_sample_config, pid) - 8usize];
    ["Offset of field: kvm_ept_sample_config::vm_fd"]
        [::core::mem::offset_of!(kvm_ept_sample_config, vm_fd) - 12usize];
    ["Offset of field: kvm_ept_sample_config::strategy"]
        [::core::mem::offset_of!(kvm_ept_sample_config, strategy) - 16usize];
    ["Offset of field: kvm_ept_sample_config::access"]
        [::core::mem::offset_of!(kvm_ept_sample_config, access) - 20usize];
    ["Offset of field: kvm_ept_sample_config::rate"]
        [::core::mem::offset_of!(kvm_ept_sample_config, rate) - 24usize];
    ["Offset of field: kvm_ept_sample_config::budget_ppm"]
        [::core::mem::offset_of!(kvm_ept_sample_config, budget_ppm) - 28usize];
    ["Offset of field: kvm_ept_sample_config::ring_records"]
        [::core::mem::offset_of!(kvm_ept_sample_config, ring_records) - 32usize];
    ["Offset of field: kvm_ept_sample_config::reserved"]
        [::core::mem::offset_of!(kvm_ept_sample_config, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct kvm_ept_sample_stats {
    pub size: __u32,
    pub reserved: __u32,
    pub armed: __u64,
    pub taken: __u64,
    pub filtered: __u64,
    pub disarmed: __u64,
    pub delivered: __u64,
    pub lost: __u64,
    pub waiting: __u64,
    pub batches: __u64,
    pub flushes: __u64,
    pub spent_ns: __u64,
    pub elapsed_ns: __u64,
    pub rate_now: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kvm_ept_sample_stats"][::core::mem::size_of::<kvm_ept_sample_stats>() - 104usize];
    ["Alignment of kvm_ept_sample_stats"][::core::mem::align_of::<kvm_ept_sample_stats>() - 8usize];
    ["Offset of field: kvm_ept_sample_stats::size"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, size) - 0usize];
    ["Offset of field: kvm_ept_sample_stats::reserved"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, reserved) - 4usize];
    ["Offset of field: kvm_ept_sample_stats::armed"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, armed) - 8usize];
    ["Offset of field: kvm_ept_sample_stats::taken"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, taken) - 16usize];
    ["Offset of field: kvm_ept_sample_stats::filtered"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, filtered) - 24usize];
    ["Offset of field: kvm_ept_sample_stats::disarmed"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, disarmed) - 32usize];
    ["Offset of field: kvm_ept_sample_stats::delivered"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, delivered) - 40usize];
    ["Offset of field: kvm_ept_sample_stats::lost"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, lost) - 48usize];
    ["Offset of field: kvm_ept_sample_stats::waiting"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, waiting) - 56usize];
    ["Offset of field: kvm_ept_sample_stats::batches"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, batches) - 64usize];
    ["Offset of field: kvm_ept_sample_stats::flushes"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, flushes) - 72usize];
    ["Offset of field: kvm_ept_sample_stats::spent_ns"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, spent_ns) - 80usize];
    ["Offset of field: kvm_ept_sample_stats::elapsed_ns"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, elapsed_ns) - 88usize];
    ["Offset of field: kvm_ept_sample_stats::rate_now"]
        [::core::mem::offset_of!(kvm_ept_sample_stats, rate_now) - 96usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct kvm_ept_sample_record {
    pub time_ns: __u64,
    pub gfn: __u64,
    pub sequence: __u64,
    pub vcpu: __u32,
    pub level: __u8,
    pub access: __u8,
    pub flags: __u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kvm_ept_sample_record"][::core::mem::size_of::<kvm_ept_sample_record>() - 32usize];
    ["Alignment of kvm_ept_sample_record"]
        [::core::mem::align_of::<kvm_ept_sample_record>() - 8usize];
    ["Offset of field: kvm_ept_sample_record::time_ns"]
        [::core::mem::offset_of!(kvm_ept_sample_record, time_ns) - 0usize];
    ["Offset of field: kvm_ept_sample_record::gfn"]
        [::core::mem::offset_of!(kvm_ept_sample_record, gfn) - 8usize];
    ["Offset of field: kvm_ept_sample_record::sequence"]
        [::core::mem::offset_of!(kvm_ept_sample_record, sequence) - 16usize];
    ["Offset of field: kvm_ept_sample_record::vcpu"]
        [::core::mem::offset_of!(kvm_ept_sample_record, vcpu) - 24usize];
    ["Offset of field: kvm_ept_sample_record::level"]
        [::core::mem::offset_of!(kvm_ept_sample_record, level) - 28usize];
    ["Offset of field: kvm_ept_sample_record::access"]
        [::core::mem::offset_of!(kvm_ept_sample_record, access) - 29usize];
    ["Offset of field: kvm_ept_sample_record::flags"]
        [::core::mem::offset_of!(kvm_ept_sample_record, flags) - 30usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct kvm_ept_sample_slot {
    pub gpa: __u64,
    pub hva: __u64,
    pub pages: __u64,
    pub id: __u32,
    pub flags: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kvm_ept_sample_slot"][::core::mem::size_of::<kvm_ept_sample_slot>() - 32usize];
    ["Alignment of kvm_ept_sample_slot"][::core::mem::align_of::<kvm_ept_sample_slot>() - 8usize];
    ["Offset of field: kvm_ept_sample_slot::gpa"]
        [::core::mem::offset_of!(kvm_ept_sample_slot, gpa) - 0usize];
    ["Offset of field: kvm_ept_sample_slot::hva"]
        [::core::mem::offset_of!(kvm_ept_sample_slot, hva) - 8usize];
    ["Offset of field: kvm_ept_sample_slot::pages"]
        [::core::mem::offset_of!(kvm_ept_sample_slot, pages) - 16usize];
    ["Offset of field: kvm_ept_sample_slot::id"]
        [::core::mem::offset_of!(kvm_ept_sample_slot, id) - 24usize];
    ["Offset of field: kvm_ept_sample_slot::flags"]
        [::core::mem::offset_of!(kvm_ept_sample_slot, flags) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct kvm_ept_sample_slots {
    pub size: __u32,
    pub capacity: __u32,
    pub count: __u32,
    pub reserved: __u32,
    pub slots: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kvm_ept_sample_slots"][::core::mem::size_of::<kvm_ept_sample_slots>() - 24usize];
    ["Alignment of kvm_ept_sample_slots"][::core::mem::align_of::<kvm_ept_sample_slots>() - 8usize];
    ["Offset of field: kvm_ept_sample_slots::size"]
        [::core::mem::offset_of!(kvm_ept_sample_slots, size) - 0usize];
    ["Offset of field: kvm_ept_sample_slots::capacity"]
        [::core::mem::offset_of!(kvm_ept_sample_slots, capacity) - 4usize];
    ["Offset of field: kvm_ept_sample_slots::count"]
        [::core::mem::offset_of!(kvm_ept_sample_slots, count) - 8usize];
    ["Offset of field: kvm_ept_sample_slots::reserved"]
        [::core::mem::offset_of!(kvm_ept_sample_slots, reserved) - 12usize];
    ["Offset of field: kvm_ept_sample_slots::slots"]
        [::core::mem::offset_of!(kvm_ept_sample_slots, slots) - 16usize];
};
pub const IOCTL_GET_VERSION: kvm_ept_sample_ioctl = 58624;
pub const IOCTL_START: kvm_ept_sample_ioctl = 1077994753;
pub const IOCTL_CHANGE: kvm_ept_sample_ioctl = 1077994754;
pub const IOCTL_STOP: kvm_ept_sample_ioctl = 58627;
pub const IOCTL_STATS: kvm_ept_sample_ioctl = 3228099844;
pub const IOCTL_MEMSLOTS: kvm_ept_sample_ioctl = 3222856965;
pub type kvm_ept_sample_ioctl = ::core::ffi::c_uint;
