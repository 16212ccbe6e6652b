// SPDX-License-Identifier: GPL-2.0

//! kvmscope heatmap: which memory a VM works with, and when.
//!
//! - `source` gathers periods with their pages, from VMs or from a file;
//! - `axis` folds the address space, `heat` fills the cells between it and time;
//! - `text` draws them on a terminal; `picture` on a `canvas`, which is SVG or,
//!   with letters from `font`, PNG.

pub mod axis;
pub mod canvas;
pub mod color;
pub mod font;
pub mod heat;
pub mod picture;
pub mod png;
pub mod source;
pub mod svg;
pub mod text;

use std::fs::{remove_file, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::cli::Heatmap;
use crate::kernel::Kernel;
use crate::output::{check_no_recording, create, print};
use crate::say;
use crate::signals::Stop;
use canvas::Canvas;
use source::Source;

pub fn run(kernel: &Kernel, args: &Heatmap) -> Result<()> {
    let sources = match &args.from {
        Some(file) => source::read(file, args)?,
        None => source::watch(kernel, args, &Stop::install()?)?,
    };
    check_reads(&sources, args)?;
    if args.pictures().next().is_none() {
        let style = text::Style::new(args);
        for (i, source) in sources.iter().enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            print(format!("{gap}{}", text::draw(source, args, &style)).as_bytes())?;
        }
        return Ok(());
    }
    let [source] = &sources[..] else {
        bail!(one_vm_only(sources.iter().map(Source::name)));
    };
    let (width, height) = args.size;
    if let Some(path) = &args.svg {
        let mut canvas = svg::Svg::new(width, height);
        picture::draw(&mut canvas, source, args);
        write(path, &canvas.finish()?)?;
    }
    if let Some(path) = &args.png {
        let mut canvas = png::Png::new(width, height);
        picture::draw(&mut canvas, source, args);
        write(path, &canvas.finish()?)?;
    }
    Ok(())
}

/// Why there is no picture of them.
fn one_vm_only(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    format!(
        "a picture is of one VM, and there are {}: choose one",
        names.join(", ")
    )
}

/// Fails if a picture cannot be written there. Leaves what is there as it is.
fn check_writable(path: &Path) -> Result<()> {
    if path.as_os_str() == "-" {
        return Ok(());
    }
    check_no_recording(path)?;
    let is_new = !path.exists();
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|_| if is_new { remove_file(path) } else { Ok(()) })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A map of what nobody measured would look like one of nothing.
fn check_reads(sources: &[Source], args: &Heatmap) -> Result<()> {
    if !args.reads {
        return Ok(());
    }
    for source in sources.iter().filter(|source| !source.sampled) {
        let mut pages = source.slots.iter().filter_map(|slot| slot.pages.as_ref());
        if !pages.any(|pages| pages.reads) {
            bail!("{}: reads were not measured", source.name());
        }
    }
    Ok(())
}

fn write(path: &Path, picture: &[u8]) -> Result<()> {
    let mut file = create(path)?;
    let written = file.write_all(picture).and_then(|()| file.flush());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    if path.as_os_str() != "-" {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}
