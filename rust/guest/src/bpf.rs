// SPDX-License-Identifier: GPL-2.0

//! What users of BPF would do to count exits: a program on KVM's trace event that
//! counts by reason in an array.
//!
//! The least that can be done: no ring buffer, no hash, no stack. The calls are
//! bpf(2) and perf_event_open(2) themselves, and the program is written out, so
//! that nothing else has to be in L1.

use std::ffi::c_long;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

/// Count exits by reason with a BPF program while CMD runs
///
/// Prints `bpf REASON N` for each reason that was seen, after what CMD prints.
#[derive(clap::Args)]
pub struct Args {
    /// What is run meanwhile, with sh
    #[arg(value_name = "CMD")]
    command: String,
}

const EVENT: &str = "/sys/kernel/tracing/events/kvm/kvm_exit";
/// More than there are reasons below SVM's nested page faults, and these too.
const REASONS: u32 = 2048;

/// Attaches the program, runs the command, and prints what was counted.
pub fn run(args: &Args) -> Result<()> {
    let event = |file: &str| {
        let path = format!("{EVENT}/{file}");
        fs::read_to_string(&path).with_context(|| format!("{path}: is tracefs mounted?"))
    };
    let id = event("id")?.trim().parse()?;
    let offset = field_offset(&event("format")?, "exit_reason")?;

    let map = map_create()?;
    let program = program_load(&program(map.as_raw_fd(), offset))?;
    let attached = attach(id, &program)?;
    let status = Command::new("sh")
        .args(["-c", &args.command])
        .status()
        .context("sh cannot be run")?;
    drop(attached);
    ensure!(status.success(), "`{}` failed: {status}", args.command);

    for reason in 0..REASONS {
        match lookup(&map, reason)? {
            0 => {}
            count => writeln!(io::stdout(), "bpf {reason} {count}")?,
        }
    }
    Ok(())
}

/// Where a field of a trace event is, from its `format`.
fn field_offset(format: &str, name: &str) -> Result<i16> {
    let field = format!(" {name};");
    let line = format.lines().find(|line| line.contains(&field));
    let offset = line.and_then(|line| line.split("offset:").nth(1)?.split(';').next());
    offset
        .with_context(|| format!("the event has no field {name}"))?
        .parse()
        .with_context(|| format!("the offset of {name}"))
}

/// An instruction of BPF (linux/bpf.h, struct bpf_insn).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// The source register in the upper half, the destination in the lower.
    registers: u8,
    offset: i16,
    value: i32,
}

/// `++map[event->reason]`, for an event whose reason is at `offset`. Registers:
/// r0 results, r1 to r5 arguments, r10 the frame; r1 is the event at first.
fn program(map: RawFd, offset: i16) -> [Instruction; 12] {
    let instruction = |code, destination: u8, source: u8, offset, value| Instruction {
        code,
        registers: (source << 4) | destination,
        offset,
        value,
    };
    [
        instruction(0x61, 2, 1, offset, 0), // r2 = *(u32 *)(r1 + offset)
        instruction(0x63, 10, 2, -4, 0),    // *(u32 *)(r10 - 4) = r2
        instruction(0x18, 1, 1, 0, map),    // r1 = map, in two parts
        instruction(0x00, 0, 0, 0, 0),
        instruction(0xbf, 2, 10, 0, 0), // r2 = r10
        instruction(0x07, 2, 0, 0, -4), // r2 -= 4
        instruction(0x85, 0, 0, 0, 1),  // r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x15, 0, 0, 2, 0),  // if r0 == 0, skip two
        instruction(0xb7, 1, 0, 0, 1),  // r1 = 1
        instruction(0xdb, 0, 1, 0, 0),  // lock *(u64 *)r0 += r1
        instruction(0xb7, 0, 0, 0, 0),  // r0 = 0: no sample for perf
        instruction(0x95, 0, 0, 0, 0),  // return r0
    ]
}

/// bpf(2) with `attribute`, the part of union bpf_attr that `command` looks at.
fn bpf<T>(command: c_long, attribute: &mut T) -> io::Result<c_long> {
    // SAFETY: `attribute` is as long as we say, and each caller's has pointers
    // only to what lives, and is as large as the command takes it to be.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size_of::<T>()) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(r)
}

fn owned(fd: c_long) -> OwnedFd {
    // SAFETY: The kernel has just made it for us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

fn map_create() -> Result<OwnedFd> {
    #[repr(C)]
    struct MapCreate {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }
    const BPF_MAP_CREATE: c_long = 0;
    let fd = bpf(
        BPF_MAP_CREATE,
        &mut MapCreate {
            kind: 2, // BPF_MAP_TYPE_ARRAY
            key_size: 4,
            value_size: 8,
            max_entries: REASONS,
            flags: 0,
        },
    );
    Ok(owned(fd.context(
        "BPF_MAP_CREATE failed: has the kernel CONFIG_BPF_SYSCALL?",
    )?))
}

fn program_load(program: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C)]
    struct ProgramLoad {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    const BPF_PROG_LOAD: c_long = 5;
    let mut log = vec![0u8; 16384];
    let fd = bpf(
        BPF_PROG_LOAD,
        &mut ProgramLoad {
            kind: 5, // BPF_PROG_TYPE_TRACEPOINT
            instructions: program.len() as u32,
            code: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
        },
    );
    match fd {
        Ok(fd) => Ok(owned(fd)),
        Err(error) => bail!(
            "BPF_PROG_LOAD failed: {error}: {}",
            String::from_utf8_lossy(&log).trim_end_matches('\0')
        ),
    }
}

fn lookup(map: &OwnedFd, key: u32) -> Result<u64> {
    #[repr(C)]
    struct MapElement {
        map: u32,
        _reserved: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_ELEM: c_long = 1;
    let mut value = 0u64;
    bpf(
        BPF_MAP_LOOKUP_ELEM,
        &mut MapElement {
            map: map.as_raw_fd() as u32,
            _reserved: 0,
            key: &raw const key as u64,
            value: &raw mut value as u64,
            flags: 0,
        },
    )
    .context("BPF_MAP_LOOKUP_ELEM failed")?;
    Ok(value)
}

/// Has the program run for the trace event `id`, on every CPU, until what this
/// returns is dropped.
fn attach(id: u64, program: &OwnedFd) -> Result<OwnedFd> {
    /// The first version of struct perf_event_attr, which the kernel still takes.
    #[repr(C)]
    struct PerfEventAttr {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        rest: [u64; 5],
    }
    let attribute = PerfEventAttr {
        kind: 2, // PERF_TYPE_TRACEPOINT
        size: size_of::<PerfEventAttr>() as u32,
        config: id,
        sample_period: 1,
        rest: [0; 5],
    };
    const PERF_FLAG_FD_CLOEXEC: c_long = 8;
    // SAFETY: The attribute says how long it is, and holds no pointers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attribute,
            -1 as libc::pid_t,
            0 as libc::c_int,
            -1 as libc::c_int,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        bail!("perf_event_open failed: {}", io::Error::last_os_error());
    }
    let event = owned(fd);

    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // SAFETY: The ioctl takes the file by number, not by address.
    let r = unsafe {
        libc::ioctl(
            event.as_raw_fd(),
            PERF_EVENT_IOC_SET_BPF as _,
            program.as_raw_fd(),
        )
    };
    ensure!(
        r == 0,
        "PERF_EVENT_IOC_SET_BPF failed: {}",
        io::Error::last_os_error()
    );
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_event() {
        let format = "\
name: kvm_exit
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:unsigned int exit_reason;\toffset:8;\tsize:4;\tsigned:0;
\tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;
";
        assert_eq!(field_offset(format, "exit_reason").unwrap(), 8);
        assert_eq!(field_offset(format, "guest_rip").unwrap(), 16);
        assert!(field_offset(format, "reason").is_err());
    }
}
