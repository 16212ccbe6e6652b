// SPDX-License-Identifier: GPL-2.0

//! Watching VMs: tracking is on while they are watched, and each period that ends
//! is handed out once. VMs that come later are watched as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, ensure, Result};

use crate::kernel::Kernel;
use crate::say;
use crate::snapshot::{About, VmId};
use crate::wss::estimate::Estimate;
use crate::wss::knobs::{Knobs, Refusal, Setup};
use crate::wss::period::Period;
use crate::wss::tracking::Tracking;
use crate::wss::which::Which;

/// How often it is looked for VMs that have come or gone.
const SEARCH: Duration = Duration::from_secs(1);

pub struct Watch<'a> {
    kernel: &'a Kernel,
    which: Which,
    setup: Setup,
    /// Whether pages are wanted, too.
    pages: bool,
    vms: BTreeMap<VmId, Watched>,
    /// VMs that are not to be tried again.
    passed_over: BTreeSet<VmId>,
    searched: Instant,
    /// Remarks that nobody has read yet.
    pub remarks: Vec<String>,
}

pub struct Watched {
    pub about: About,
    tracking: Tracking,
    period_ms: u64,
    /// The last period handed out, by when it started, and by its number.
    start_ns: u64,
    number: u64,
    /// Periods that came and went unseen.
    missed: u64,
}

impl<'a> Watch<'a> {
    /// Fails when there is nothing to watch, and says why.
    pub fn start(kernel: &'a Kernel, which: Which, setup: Setup, pages: bool) -> Result<Watch<'a>> {
        kernel.check()?;
        let mut watch = Watch {
            kernel,
            which,
            setup,
            pages,
            vms: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            searched: Instant::now(),
            remarks: Vec::new(),
        };
        let refusals = watch.search()?;
        if watch.vms.is_empty() {
            return Err(watch.why_none(refusals));
        }
        for (id, vm) in &watch.vms {
            if !vm.tracking.is_ours() {
                say(&format!(
                    "{id} is tracked already: its parameters are left alone, and tracking \
                     stays on; to end it: echo 0 > {}",
                    vm.tracking.knobs.path("active").display()
                ));
            }
        }
        // Of some of them: the others are worth watching.
        for (id, refusal) in refusals {
            say(&describe(id, &refusal));
        }
        Ok(watch)
    }

    pub fn vms(&self) -> &BTreeMap<VmId, Watched> {
        &self.vms
    }

    /// The shortest period of any.
    pub fn period(&self) -> Duration {
        let shortest = self.vms.values().map(|vm| vm.period_ms).min();
        Duration::from_millis(shortest.unwrap_or(1_000).max(1))
    }

    /// What is being done, for who waits for it.
    pub fn about(&self) -> String {
        let vms = match self.vms.len() {
            1 => "1 VM".to_string(),
            n => format!("{n} VMs"),
        };
        let period = seconds_text(self.period());
        format!("tracking {vms}, with a period of {period}")
    }

    /// How long to wait between polls, so that no period goes unseen.
    pub fn pace(&self) -> Duration {
        let pace = self.period() / 10;
        pace.clamp(Duration::from_millis(2), Duration::from_millis(200))
    }

    /// When so much time is over. A period that ends about then is waited for.
    pub fn end(&self, time: Duration) -> Instant {
        Instant::now() + time + (self.period() / 4).min(Duration::from_secs(1))
    }

    /// Nothing would come of less than a period, unless one is under way.
    pub fn check_duration(&self, duration: Option<Duration>) -> Result<()> {
        let period = self.period();
        let all_begin = self.vms.values().all(|vm| vm.tracking.is_ours());
        ensure!(
            !all_begin || duration.is_none_or(|time| time >= period),
            "a period lasts {}: give a shorter --period, or a longer --duration",
            seconds_text(period)
        );
        Ok(())
    }

    /// How many periods went unseen, pages aside.
    pub fn missed(&self) -> u64 {
        self.vms.values().map(|vm| vm.missed).sum()
    }

    /// Changes the parameters of what is tracked for us.
    pub fn set_up(&mut self, setup: Setup) -> Result<()> {
        for vm in self.vms.values_mut() {
            vm.tracking.set_up(&setup)?;
            vm.period_ms = vm
                .tracking
                .knobs
                .number("period_ms")?
                .unwrap_or(vm.period_ms);
        }
        // Those that come later get what was not refused.
        self.setup.period_ms = setup.period_ms.or(self.setup.period_ms);
        Ok(())
    }

    /// The periods that have ended since the last poll.
    pub fn poll(&mut self) -> Result<Vec<Period>> {
        if self.searched.elapsed() >= SEARCH {
            for (id, refusal) in self.search()? {
                self.remarks.push(describe(id, &refusal));
            }
        }
        let mut periods = Vec::new();
        let mut lost = Vec::new();
        for (id, vm) in &mut self.vms {
            match vm.poll(*id, self.pages) {
                Ok(Some(new)) => periods.extend(new),
                Ok(None) => lost.push((*id, Refusal::Gone)),
                Err(error) => lost.push((*id, Refusal::Failed(error))),
            }
        }
        for (id, why) in lost {
            self.vms.remove(&id);
            self.passed_over.insert(id);
            match why {
                Refusal::Failed(error) if self.vms.is_empty() => {
                    return Err(error.context(id.to_string()));
                }
                why => self.remarks.push(describe(id, &why)),
            }
        }
        Ok(periods)
    }

    fn forget(&mut self, id: VmId, why: &str) {
        self.remarks.push(format!("{id} {why}"));
        self.vms.remove(&id);
    }

    /// Starts on VMs that are new, and forgets those that are not tracked any more.
    fn search(&mut self) -> Result<Vec<(VmId, Refusal)>> {
        self.searched = Instant::now();
        let mut refusals = Vec::new();
        let found = self.kernel.vm_directories()?;
        let gone = self
            .vms
            .keys()
            .filter(|id| !found.iter().any(|(its, _)| its == *id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.forget(id, "has ended");
        }
        let off =
            |(_, vm): &(&VmId, &Watched)| matches!(vm.tracking.knobs.number("active"), Ok(Some(0)));
        for id in self
            .vms
            .iter()
            .filter(off)
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
        {
            // Whoever did it has a reason.
            self.forget(id, "is not tracked any more: somebody switched it off");
            self.passed_over.insert(id);
        }
        for (id, directory) in found {
            if self.vms.contains_key(&id) || self.passed_over.contains(&id) {
                continue;
            }
            let about = self.kernel.about(id);
            if !self.which.wants(id, &about) {
                self.passed_over.insert(id);
                continue;
            }
            let started = Watched::start(about, Knobs::new(id, &directory), &self.setup);
            match started.unwrap_or_else(|error| Err(Refusal::Failed(error))) {
                Ok(watched) => drop(self.vms.insert(id, watched)),
                Err(Refusal::Gone) => {}
                Err(refusal) => {
                    self.passed_over.insert(id);
                    refusals.push((id, refusal));
                }
            }
        }
        Ok(refusals)
    }

    fn why_none(&self, refusals: Vec<(VmId, Refusal)>) -> anyhow::Error {
        if let Some((id, refusal)) = refusals.first() {
            return anyhow!("{}", describe(*id, refusal));
        }
        match self.kernel.which_vms() {
            Ok(there) if self.which.is_all() => anyhow!("{there}"),
            Ok(there) => anyhow!("the filter matches no VM; {there}"),
            Err(error) => error,
        }
    }
}

impl Watched {
    fn start(about: About, knobs: Knobs, setup: &Setup) -> Result<Result<Watched, Refusal>> {
        // Before it starts: a period may be over in no time.
        if let Some(refusal) = knobs.refusal() {
            return Ok(Err(refusal));
        }
        let Some(last) = knobs.estimate()? else {
            return Ok(Err(Refusal::Gone));
        };
        let tracking = match Tracking::start(knobs, setup)? {
            Ok(tracking) => tracking,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(period_ms) = tracking.knobs.number("period_ms")? else {
            return Ok(Err(Refusal::Gone));
        };
        Ok(Ok(Watched {
            about,
            period_ms,
            start_ns: last.start_ns,
            number: if tracking.is_ours() { 0 } else { last.period },
            tracking,
            missed: 0,
        }))
    }

    /// None when the VM has ended.
    fn poll(&mut self, id: VmId, want_pages: bool) -> Result<Option<Vec<Period>>> {
        let knobs = &self.tracking.knobs;
        let Some(mut latest) = knobs.estimate()? else {
            return Ok(None);
        };
        if latest.period == 0 || latest.start_ns <= self.start_ns {
            return Ok(Some(Vec::new()));
        }
        let mut pages = None;
        if want_pages {
            pages = knobs.pages()?;
            // One more may have ended meanwhile.
            if pages
                .as_ref()
                .is_some_and(|pages| pages.start_ns > latest.start_ns)
            {
                match knobs.estimate()? {
                    Some(estimate) => latest = estimate,
                    None => return Ok(None),
                }
            }
        }
        let mut estimates = vec![latest];
        if latest.period != self.number + 1 {
            let Some(history) = knobs.history()? else {
                return Ok(None);
            };
            let new = |estimate: &Estimate| {
                estimate.start_ns > self.start_ns && estimate.start_ns < latest.start_ns
            };
            estimates.splice(0..0, history.into_iter().filter(new));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let time_ns = now.map_or(0, |t| t.as_nanos() as u64);
        let periods = estimates.into_iter().map(|estimate| {
            if estimate.period > self.number {
                self.missed += estimate.period - self.number - 1;
            }
            self.number = estimate.period;
            self.start_ns = estimate.start_ns;
            Period {
                time_ns,
                vm: id,
                about: self.about.clone(),
                estimate,
                pages: pages.take_if(|pages| pages.start_ns == estimate.start_ns),
            }
        });
        Ok(Some(periods.collect()))
    }
}

pub fn seconds_text(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

fn describe(id: VmId, refusal: &Refusal) -> String {
    match refusal {
        Refusal::Gone => format!("{id} has ended"),
        Refusal::Failed(error) => format!("{id}: {error:#}"),
        Refusal::Missing(path) => format!(
            "this kernel's kvmscope has no working sets: there is no {}; build and boot one with \
             CONFIG_KVM_SCOPE_WSS=y",
            path.display()
        ),
        Refusal::Unsupported => format!(
            "{id} cannot be tracked here: dmesg says why, in a line with \"kvmscope: no working sets\""
        ),
    }
}
