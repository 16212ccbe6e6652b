// SPDX-License-Identifier: GPL-2.0

//! The study of working sets: what qemu-test/study-wss-l1 prints, and what it says.
//! Its JSON is wss-study.json.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{bail, ensure, Context, Result};
use serde::Serialize;

/// Raised when a field of the JSON changes its meaning.
const VERSION: u32 = 1;
/// Of the normal distribution, for an interval of 95 %.
const Z: f64 = 1.959964;

/// All there is to say.
#[derive(Serialize)]
pub struct Study {
    wss_study: u32,
    /// What ran L1.
    pub engine: String,
    /// Which kernel L1 was.
    pub kernel: String,
    /// VMX or SVM.
    pub isa: String,
    /// Length of a period.
    pub period_ms: u64,
    /// The guest's, in pages.
    pub memory: u64,
    /// In the order in which they ran.
    pub patterns: Vec<Pattern>,
}

/// A guest that touches the same pages in each period.
#[derive(Serialize)]
pub struct Pattern {
    /// What it does.
    pub name: String,
    /// In order.
    pub periods: Vec<Period>,
}

/// A period of a pattern, and what the estimators made of it. The last one's is of
/// a run of its own, and the same period there.
#[derive(Clone, Serialize)]
pub struct Period {
    /// From 1.
    pub period: u64,
    /// The guest read its pages.
    pub reads: bool,
    /// The guest wrote to its pages.
    pub writes: bool,
    /// How many it really touched.
    pub touched: u64,
    /// To how many of them it really wrote.
    pub stored: u64,
    /// The written set, from Page-Modification Logging.
    pub written: u64,
    /// Page tables; this guest has none.
    pub tables: u64,
    /// What was written or read.
    pub read_set: u64,
    /// Dirty pages that were not in the log.
    pub lost: u64,
    /// The CPU time that these took, sampling included.
    pub spent_ns: u64,
    /// None if the kernel does not sample.
    pub sampling: Option<Sampling>,
    /// By idle page tracking.
    pub idle: u64,
    /// The CPU time that it took, in the process that used it.
    pub idle_spent_ns: u64,
}

/// Random pages that were unmapped at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// How many.
    pub sampled: u64,
    /// How many of them were touched.
    pub touched: u64,
    /// The same part of the memory, in pages.
    pub estimate: f64,
    /// Where the interval of 95 % (Wilson's) begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl Sampling {
    fn new(sampled: u64, touched: u64, memory: u64) -> Result<Self> {
        ensure!(
            sampled > 0 && touched <= sampled,
            "{touched} of {sampled} samples were touched"
        );
        let n = sampled as f64;
        let part = touched as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let middle = (part + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (part * (1.0 - part) / n + Z * Z / (4.0 * n * n)).sqrt();
        let pages = |part: f64| part.clamp(0.0, 1.0) * memory as f64;
        Ok(Self {
            sampled,
            touched,
            estimate: pages(part),
            low: pages(middle - half),
            high: pages(middle + half),
        })
    }
}

/// The names and values of a line.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Result<Self> {
        let words: Vec<_> = line.split(' ').collect();
        ensure!(words.len() % 2 == 0, "names and values do not pair");
        let pairs = words.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok(Self(pairs.collect()))
    }

    fn word(&self, name: &str) -> Result<&'a str> {
        let word = self.0.get(name).copied();
        word.with_context(|| format!("there is no {name}"))
    }

    fn get<T: FromStr>(&self, name: &str) -> Result<T> {
        let word = self.word(name)?;
        word.parse().ok().with_context(|| format!("{name} {word}?"))
    }

    fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.get::<u8>(name)? != 0)
    }
}

impl Study {
    /// Understands all lines, or says which it does not.
    pub fn parse(engine: &str, kernel: &str, text: &str) -> Result<Self> {
        let mut study = Self {
            wss_study: VERSION,
            engine: engine.into(),
            kernel: kernel.into(),
            isa: String::new(),
            period_ms: 0,
            memory: 0,
            patterns: Vec::new(),
        };
        let mut idle = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            study
                .add(line, &mut idle)
                .with_context(|| format!("line {} from L1", index + 1))?;
        }
        for pattern in &mut study.patterns {
            for period in &mut pattern.periods {
                let key = (pattern.name.clone(), period.period);
                let found = idle.remove(&key);
                let what = || format!("{}, period {}: not by idle", key.0, key.1);
                (period.idle, period.idle_spent_ns) = found.with_context(what)?;
            }
        }
        ensure!(idle.is_empty(), "periods by idle that track has not");
        ensure!(!study.patterns.is_empty(), "L1 has said nothing");
        Ok(study)
    }

    fn add(&mut self, line: &str, idle: &mut BTreeMap<(String, u64), (u64, u64)>) -> Result<()> {
        if let Some(rest) = line.strip_prefix("study wss ") {
            let words = Words::new(rest)?;
            self.isa = words.word("isa")?.into();
            self.period_ms = words.get("period_ms")?;
            return Ok(());
        }
        let Some(rest) = line.strip_prefix("study wss_study ") else {
            bail!("what is this? {line:?}");
        };
        let words = Words::new(rest)?;
        let name = words.word("pattern")?;
        let number: u64 = words.get("period")?;
        if words.word("by")? == "idle" {
            let found = (words.get("in_use")?, words.get("spent_ns")?);
            let old = idle.insert((name.into(), number), found);
            ensure!(old.is_none(), "period {number} of {name} is there twice");
            return Ok(());
        }
        self.memory = words.get("memory")?;
        let period = Period {
            period: number,
            reads: words.flag("reads")?,
            writes: words.flag("writes")?,
            touched: words.get("touched")?,
            stored: words.get("stored")?,
            written: words.get("written")?,
            tables: words.get("tables")?,
            read_set: words.get("read_set")?,
            lost: words.get("lost")?,
            spent_ns: words.get("spent_ns")?,
            sampling: match words.0.contains_key("sampled") {
                true => Some(Sampling::new(
                    words.get("sampled")?,
                    words.get("sampled_touched")?,
                    self.memory,
                )?),
                false => None,
            },
            idle: 0,
            idle_spent_ns: 0,
        };
        if self.patterns.last().is_none_or(|last| last.name != name) {
            self.patterns.push(Pattern {
                name: name.into(),
                periods: Vec::new(),
            });
        }
        let pattern = self.patterns.last_mut().context("was just added")?;
        ensure!(
            number == pattern.periods.len() as u64 + 1,
            "period {number} is out of turn"
        );
        pattern.periods.push(period);
        Ok(())
    }

    /// Fails with all that cannot be.
    pub fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for pattern in &self.patterns {
            for period in &pattern.periods {
                let lines = period.wrong().into_iter();
                wrong.extend(
                    lines.map(|line| format!("{}, period {}: {line}", pattern.name, period.period)),
                );
            }
        }
        wrong.extend(self.wrong_sampling());
        let unread = |period: &Period| !period.writes;
        if !self.periods().any(unread) {
            wrong.push("no period in which nothing is written".into());
        }
        if !wrong.is_empty() {
            bail!("this cannot be:\n  {}", wrong.join("\n  "));
        }
        Ok(())
    }

    fn periods(&self) -> impl Iterator<Item = &Period> {
        self.patterns.iter().flat_map(|pattern| &pattern.periods)
    }

    /// All samples together must be near the truth: five standard deviations.
    fn wrong_sampling(&self) -> Option<String> {
        let (mut sampled, mut touched, mut expected, mut variance) = (0, 0, 0.0, 0.0);
        for period in self.periods() {
            let Some(sampling) = period.sampling else {
                continue;
            };
            let part = period.touched as f64 / self.memory as f64;
            sampled += sampling.sampled;
            touched += sampling.touched;
            expected += part * sampling.sampled as f64;
            variance += part * (1.0 - part) * sampling.sampled as f64;
        }
        let off = (touched as f64 - expected).abs();
        (off > 5.0 * variance.sqrt()).then(|| {
            format!("of {sampled} samples, {touched} were touched, and not about {expected:.0}")
        })
    }
}

impl Period {
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (what, value, truth) in [
            ("pages in the written set", self.written, self.stored),
            ("pages in the read set", self.read_set, self.touched),
            ("page tables", self.tables, 0),
            ("pages lost", self.lost, 0),
        ] {
            if value != truth {
                wrong.push(format!("{value} {what}, {truth} in truth"));
            }
        }
        // Reads are what PML does not log, so that most must be missing.
        if !self.writes && self.written * 50 > self.touched {
            wrong.push(format!(
                "PML has {} of {} pages that are only read",
                self.written, self.touched
            ));
        }
        wrong
    }
}
