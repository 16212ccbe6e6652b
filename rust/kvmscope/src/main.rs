// SPDX-License-Identifier: GPL-2.0

//! The program; everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmscope_command::main()
}
