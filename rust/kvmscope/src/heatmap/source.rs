// SPDX-License-Identifier: GPL-2.0

//! What there is to draw: the periods of a VM, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Cursor, Read};
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use crate::cli::Heatmap;
use crate::columns::harmless;
use crate::heatmap::{check_writable, one_vm_only};
use crate::kernel::Kernel;
use crate::output::open;
use crate::recording::{Reader as Lines, SAMPLES, WORKING_SETS};
use crate::sample::map;
use crate::say;
use crate::signals::Stop;
use crate::snapshot::VmId;
use crate::wss::pages::{read_pages, Pages, MAGIC};
use crate::wss::period::Period;
use crate::wss::recording::Reader;
use crate::wss::watch::{seconds_text, Watch, Watched};

/// As long as a kernel's `pages` may be: that of a guest with 6 TiB.
const PAGES_FILE_MAX: u64 = 1 << 31;

#[derive(Debug)]
pub struct Source {
    /// None when only its pages are known.
    vm: Option<(VmId, String)>,
    /// Its periods count samples.
    pub sampled: bool,
    pub slots: Vec<Slot>,
}

/// A period.
#[derive(Debug)]
pub struct Slot {
    pub start_ns: u64,
    pub duration_ns: u64,
    /// None when they were not recorded.
    pub pages: Option<Pages>,
}

impl Source {
    #[cfg(test)]
    pub fn of_slots(slots: Vec<Slot>) -> Source {
        Source {
            vm: None,
            sampled: false,
            slots,
        }
    }

    pub fn name(&self) -> String {
        match &self.vm {
            Some((id, its)) => name(*id, its),
            None => "a VM".to_string(),
        }
    }

    /// The time of an instant of the recording, in seconds since its beginning.
    pub fn seconds(&self, ns: u64) -> f64 {
        let start = self.slots.first().map_or(0, |slot| slot.start_ns);
        ns.saturating_sub(start) as f64 / 1e9
    }

    /// When the last period ended.
    pub fn end_ns(&self) -> u64 {
        let last = self.slots.last();
        last.map_or(0, |slot| slot.start_ns.saturating_add(slot.duration_ns))
    }
}

fn name(id: VmId, name: &str) -> String {
    format!("{id} ({})", harmless(name))
}

#[derive(Default)]
struct Gathered(BTreeMap<VmId, Source>);

impl Gathered {
    fn add(&mut self, period: Period) {
        let name = period.about.name;
        let source = self.0.entry(period.vm).or_insert_with(|| Source {
            vm: Some((period.vm, name)),
            sampled: false,
            slots: Vec::new(),
        });
        source.slots.push(Slot {
            start_ns: period.estimate.start_ns,
            duration_ns: period.estimate.duration_ns,
            pages: period.pages,
        });
    }

    /// Fails when there is nothing to draw.
    fn finish(self) -> Result<Vec<Source>> {
        let has_pages = |source: &Source| source.slots.iter().any(|slot| slot.pages.is_some());
        let (drawable, others): (Vec<_>, Vec<_>) = self.0.into_values().partition(has_pages);
        if let Some(without) = others.first() {
            let what = format!("{}: its pages were not recorded", without.name());
            ensure!(!drawable.is_empty(), what);
            say(&what);
        }
        Ok(drawable)
    }
}

/// From a recording, or a kernel's `pages`.
pub fn read(file: &Path, args: &Heatmap) -> Result<Vec<Source>> {
    let name = file.display();
    from(open(file)?, args).with_context(|| name.to_string())
}

/// The same of what was opened.
pub fn from(mut input: impl BufRead, args: &Heatmap) -> Result<Vec<Source>> {
    let mut first = Vec::new();
    let mut begun = input.by_ref().take(MAGIC.len() as u64);
    begun.read_to_end(&mut first).context("cannot read")?;
    if first == MAGIC {
        ensure!(
            args.which.is_all(),
            "a kernel's pages do not say of which VM they are: leave out the filter"
        );
        let rest = input.take(PAGES_FILE_MAX);
        pages_file(first, rest).map(|source| vec![source])
    } else {
        recording(Cursor::new(first).chain(input), args)
    }
}

fn pages_file(mut bytes: Vec<u8>, mut rest: impl Read) -> Result<Source> {
    rest.read_to_end(&mut bytes)?;
    let pages = read_pages(&bytes)?.context("no period has ended")?;
    Ok(Source {
        vm: None,
        sampled: false,
        slots: vec![Slot {
            start_ns: pages.start_ns,
            duration_ns: pages.duration_ns,
            pages: Some(pages),
        }],
    })
}

fn recording(input: impl BufRead, args: &Heatmap) -> Result<Vec<Source>> {
    let lines = Lines::of_any(input, &[&WORKING_SETS, &SAMPLES])?;
    if lines.format() == &SAMPLES {
        return samples(lines, args);
    }
    let mut reader = Reader::of(lines);
    let mut gathered = Gathered::default();
    let mut others = 0;
    while let Some(period) = reader.read()? {
        if args.which.wants(period.vm, &period.about) {
            gathered.add(period);
        } else {
            others += 1;
        }
    }
    if gathered.0.is_empty() {
        ensure!(others == 0, "the filter matches no VM in it");
        bail!("there is no period in it");
    }
    gathered.finish()
}

/// Of all accesses, or of writes, as with working sets.
fn samples(lines: Lines<impl std::io::BufRead>, args: &Heatmap) -> Result<Vec<Source>> {
    let (begin, slots) = map::read(lines, !args.reads)?;
    ensure!(
        args.which.wants(begin.vm, &begin.about),
        "the filter matches no VM in it"
    );
    Ok(vec![Source {
        vm: Some((begin.vm, begin.about.name)),
        sampled: true,
        slots,
    }])
}

/// From VMs, for as long as asked.
pub fn watch(kernel: &Kernel, args: &Heatmap, stop: &Stop) -> Result<Vec<Source>> {
    let mut watch = Watch::start(kernel, args.which.clone(), args.tracking.setup(), true)?;
    let vms: BTreeSet<VmId> = watch.vms().keys().copied().collect();
    let is_picture = args.pictures().next().is_some();
    if is_picture && vms.len() != 1 {
        let name = |(id, vm): (&VmId, &Watched)| name(*id, &vm.about.name);
        bail!(one_vm_only(watch.vms().iter().map(name)));
    }
    watch.check_duration(args.duration)?;
    args.pictures().try_for_each(check_writable)?;
    say(&format!("{}; Ctrl-C ends it and draws", watch.about()));
    let end = args.duration.map(|time| watch.end(time));
    let period = watch.period();
    let mut gathered = Gathered::default();
    let mut left_out = BTreeSet::new();
    loop {
        let stopped = stop.wait(watch.pace()).is_err();
        for period in watch.poll()? {
            // One that came later.
            if is_picture && !vms.contains(&period.vm) {
                left_out.insert(period.vm);
            } else {
                gathered.add(period);
            }
        }
        for remark in watch.remarks.drain(..) {
            say(&remark);
        }
        let over = end.is_some_and(|end| Instant::now() >= end);
        if stopped || over || watch.vms().is_empty() {
            break;
        }
    }
    for id in left_out {
        say(&format!("{id} came later, and the picture is of one VM"));
    }
    ensure!(
        !gathered.0.is_empty(),
        "no period has ended: each lasts {}",
        seconds_text(period)
    );
    gathered.finish()
}
