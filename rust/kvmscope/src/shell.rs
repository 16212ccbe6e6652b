// SPDX-License-Identifier: GPL-2.0

//! What the shell and man know of the command line, made from the command line itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::print;

pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kvmscope", &mut script);
    print(&script)
}

/// kvmscope.1, and a page for each subcommand.
pub fn man(directory: &Path) -> Result<()> {
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        clap_mangen::generate_to(Cli::command(), directory)
    };
    write().with_context(|| directory.display().to_string())
}
