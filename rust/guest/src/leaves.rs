// SPDX-License-Identifier: GPL-2.0

//! A guest that reads its own exits by CPUID.

use std::io::{self, Write};
use std::process::Command;
use std::str::FromStr;

use anyhow::{ensure, Context, Result};

use crate::code::{Kind, Program, ANSWER, INDEX, LEAF};
use crate::vm::{Memory, Vm};

/// Ask for leaves of CPUID from within a guest
///
/// Each of the guest's vCPUs executes the ordered number of CPUIDs, then CMD is
/// run with sh, whose parent is this process, and then vCPU 0 executes a CPUID
/// for each LEAF in turn. After each of these it executes one OUT, to say so,
/// and one CPUID and one OUT come before the first. Prints for each `leaf LEAF
/// INDEX eax N ebx N ecx N edx N`.
#[derive(clap::Args)]
pub struct Args {
    /// CPUIDs before the first question
    #[arg(long, value_name = "N", default_value_t = 0)]
    cpuid: u32,
    /// vCPUs
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::vm::MAX_VCPUS)))]
    vcpus: u32,
    /// What is run before the questions
    #[arg(long, value_name = "CMD")]
    between: Option<String>,
    /// What is asked: the leaf in hexadecimal, and the index after a colon
    #[arg(value_name = "LEAF[:INDEX]", required = true)]
    questions: Vec<Question>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    leaf: u32,
    index: u32,
}

impl FromStr for Question {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (leaf, index) = text.split_once(':').unwrap_or((text, "0"));
        let digits = leaf.strip_prefix("0x").unwrap_or(leaf);
        Ok(Self {
            leaf: u32::from_str_radix(digits, 16).context("the leaf is a hexadecimal number")?,
            index: index.parse().context("the index is a number")?,
        })
    }
}

/// Runs the guest, the command, and the guest again for each question.
pub fn run(args: &Args) -> Result<()> {
    let vm = Vm::new(&Memory::new()?, false)?;
    let mut vcpus = (0..args.vcpus)
        .map(|index| vm.vcpu(index, Program::Asks))
        .collect::<Result<Vec<_>>>()?;
    for vcpu in &mut vcpus {
        // The one for the leaf is a CPUID as well.
        vcpu.order(Kind::Cpuid, args.cpuid)?;
        vcpu.run()?;
        vcpu.order(Kind::Cpuid, 0)?;
    }
    if let Some(command) = &args.between {
        let status = Command::new("sh")
            .args(["-c", command])
            .status()
            .context("sh cannot be run")?;
        ensure!(status.success(), "`{command}` failed: {status}");
    }

    let vcpu = &mut vcpus[0];
    for question in &args.questions {
        vcpu.page.set(LEAF, question.leaf)?;
        vcpu.page.set(INDEX, question.index)?;
        vcpu.run()?;
        let mut line = format!("leaf {:#x} {}", question.leaf, question.index);
        for (register, name) in (0..).zip(["eax", "ebx", "ecx", "edx"]) {
            line += &format!(" {name} {}", vcpu.page.get(ANSWER + 4 * register)?);
        }
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let question: Question = "0x4ffffffd:48".parse().unwrap();
        assert_eq!((question.leaf, question.index), (0x4fff_fffd, 48));
        let question: Question = "4fffffff".parse().unwrap();
        assert_eq!((question.leaf, question.index), (0x4fff_ffff, 0));
        assert!("x".parse::<Question>().is_err());
        assert!("1:x".parse::<Question>().is_err());
    }
}
