// SPDX-License-Identifier: GPL-2.0

//! A VM that only files of its statistics keep.

use std::ffi::CString;
use std::io::{self, Read, Write};

use anyhow::{ensure, Context, Result};

use crate::code::{Kind, Program};
use crate::vm::{self, Memory, Vm};

/// Close all of a VM but files of its statistics, and see that its module stays
///
/// The module must be one that nothing else uses. It is asked to go, which it must not
/// while what it has made is there, and the statistics are read to their end. Prints
/// `remains bytes N`.
#[derive(clap::Args)]
pub struct Args {
    /// The vendor module, such as kvm_intel
    module: String,
    /// CPUIDs of the guest
    #[arg(long, value_name = "N", default_value_t = 100)]
    cpuid: u32,
}

/// Runs the guest, and looks at what remains of it.
pub fn run(args: &Args) -> Result<()> {
    let module = CString::new(args.module.as_str())?;
    let files = {
        let vm = Vm::new(&Memory::new()?, false)?;
        let mut vcpu = vm.vcpu(0, Program::Exits)?;
        vcpu.order(Kind::Cpuid, args.cpuid)?;
        vcpu.run()?;
        [vm::statistics(&vm.fd)?, vm::statistics(&vcpu.fd)?]
    };

    // SAFETY: The name is a string that ends with 0; the module is gone, or it is not.
    let gone = unsafe { libc::syscall(libc::SYS_delete_module, module.as_ptr(), libc::O_NONBLOCK) };
    let error = io::Error::last_os_error();
    ensure!(gone != 0, "{} went while its VM was there", args.module);
    ensure!(
        error.raw_os_error() == Some(libc::EWOULDBLOCK),
        "{} was to be in use: {error}",
        args.module
    );

    let mut bytes = 0;
    for mut file in files {
        let read = file.read_to_end(&mut Vec::new()).context("statistics")?;
        ensure!(read != 0, "the statistics are empty");
        bytes += read;
    }
    writeln!(io::stdout(), "remains bytes {bytes}")?;
    Ok(())
}
