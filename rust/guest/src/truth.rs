// SPDX-License-Identifier: GPL-2.0

//! What a guest touched in a period, and what may therefore be reported of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use crate::pages::Touch;
use crate::tracking::{Chunk, Pages, CHUNK};

/// From when to when a touch may have happened, in ns of CLOCK_MONOTONIC.
pub type When = (u64, u64);

#[derive(Clone, Debug, Default)]
struct Page {
    /// A touch each.
    writes: Vec<When>,
    read: bool,
    /// Anything may be reported of it.
    free: bool,
    /// Written to over and over: as often as there are sub-intervals.
    often: bool,
    /// And at least so often.
    always: bool,
}

/// The pages that a guest touched.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pages: BTreeMap<u64, Page>,
}

/// What may be reported of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    at_least: u8,
    at_most: u8,
    must_read: bool,
    may_read: bool,
}

impl Bounds {
    /// Of a page that consists of two.
    fn and(self, other: Self, intervals: u8) -> Self {
        Self {
            at_least: self.at_least.max(other.at_least),
            at_most: self.at_most.saturating_add(other.at_most).min(intervals),
            must_read: self.must_read || other.must_read,
            may_read: self.may_read || other.may_read,
        }
    }
}

/// How strictly to compare.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The guest's page tables.
    pub tables: Range<u64>,
    /// Writes so many ns apart, if given, fall into different sub-intervals.
    pub apart: Option<u64>,
    /// Chunks that must be tracked as one page of 2 MiB, and others must not.
    pub huge: Range<u64>,
    /// Chunks that may be tracked either way.
    pub either: Range<u64>,
}

impl Truth {
    /// A page was touched.
    pub fn touch(&mut self, gfn: u64, touch: Touch, when: When) {
        let page = self.pages.entry(gfn).or_default();
        page.read = true;
        if touch != Touch::Read {
            page.writes.push(when);
        }
    }

    /// A page was written to, any number of times.
    pub fn often(&mut self, gfn: u64, when: When) {
        self.touch(gfn, Touch::Write, when);
        self.pages.entry(gfn).or_default().often = true;
    }

    /// A page was written to in every sub-interval.
    pub fn always(&mut self, gfn: u64, when: When) {
        self.often(gfn, when);
        self.pages.entry(gfn).or_default().always = true;
    }

    /// A page may have been touched or not.
    pub fn free(&mut self, gfn: u64) {
        self.pages.entry(gfn).or_default().free = true;
    }

    /// How many pages were touched.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    fn bounds(&self, gfn: u64, intervals: u8, apart: Option<u64>) -> Bounds {
        let Some(page) = self.pages.get(&gfn) else {
            return Bounds::default();
        };
        if page.free {
            return Bounds {
                at_most: intervals,
                may_read: true,
                ..Bounds::default()
            };
        }
        let most = if page.often {
            usize::MAX
        } else {
            page.writes.len()
        };
        let written = !page.writes.is_empty();
        Bounds {
            at_least: if page.always {
                intervals
            } else {
                in_different_intervals(&page.writes, apart).min(intervals)
            },
            at_most: u8::try_from(most).unwrap_or(u8::MAX).min(intervals),
            must_read: written || page.read,
            may_read: written || page.read,
        }
    }

    /// The differences between this and what was reported, a line each.
    pub fn compare(&self, reported: &Pages, rules: &Rules) -> Vec<String> {
        let intervals = u8::try_from(reported.intervals).unwrap_or(u8::MAX);
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut differ = |what, gfn: u64, detail: String| {
            lists
                .entry(what)
                .or_default()
                .push(format!("{gfn:#x}{detail}"));
        };
        let nothing = |gfn| Chunk::empty(gfn);
        let mut chunks: BTreeMap<u64, Chunk> =
            reported.chunks.iter().map(|c| (c.gfn, c.clone())).collect();
        for &gfn in self.pages.keys() {
            let first = gfn / CHUNK * CHUNK;
            chunks.entry(first).or_insert_with(|| nothing(first));
        }
        for (first, chunk) in chunks {
            let mut bounds: Vec<Bounds> = (first..first + CHUNK)
                .map(|gfn| self.bounds(gfn, intervals, rules.apart))
                .collect();
            // What was only read is in no report without reads.
            let shown = |b: &Bounds| b.at_least > 0 || (reported.reads && b.must_read);
            let touched = bounds.iter().any(shown);
            let either = rules.either.contains(&first);
            if touched && !either && chunk.huge != rules.huge.contains(&first) {
                let what = if chunk.huge { "huge" } else { "not huge" };
                differ(what, first, String::new());
            }
            if chunk.huge {
                let all = bounds
                    .iter()
                    .fold(Bounds::default(), |a, b| a.and(*b, intervals));
                bounds = vec![all; CHUNK as usize];
            }
            for (index, bounds) in bounds.iter().enumerate() {
                let gfn = first + index as u64;
                let (count, read) = (chunk.count[index], chunk.read(index));
                let detail = format!(
                    " count {count}, not {}..={}",
                    bounds.at_least, bounds.at_most
                );
                match (count, bounds.at_least, bounds.at_most) {
                    (0, least, _) if least > 0 => differ("written missing", gfn, String::new()),
                    (1.., _, 0) => differ("written extra", gfn, format!(" count {count}")),
                    (_, least, _) if count < least => differ("count too low", gfn, detail),
                    (_, _, most) if count > most => differ("count too high", gfn, detail),
                    _ => {}
                }
                if reported.reads && bounds.must_read && !read {
                    differ("read missing", gfn, String::new());
                }
                if reported.reads && !bounds.may_read && read {
                    differ("read extra", gfn, String::new());
                }
                if chunk.table(index) && !rules.tables.contains(&gfn) {
                    differ("not a table", gfn, String::new());
                }
            }
        }
        lists
            .into_iter()
            .map(|(what, gfns)| line(what, &gfns))
            .collect()
    }
}

/// How many sub-intervals they fall into at least.
fn in_different_intervals(writes: &[When], apart: Option<u64>) -> u8 {
    let Some(apart) = apart else {
        return u8::from(!writes.is_empty());
    };
    let (mut count, mut last) = (0u8, None);
    for &(begin, end) in writes {
        if last.is_none_or(|last: u64| begin >= last.saturating_add(apart)) {
            count = count.saturating_add(1);
            last = Some(end);
        }
    }
    count
}

fn line(what: &str, gfns: &[String]) -> String {
    const SHOWN: usize = 16;
    let mut line = format!("{what} ({}):", gfns.len());
    for gfn in gfns.iter().take(SHOWN) {
        let _ = write!(line, " {gfn}");
    }
    if gfns.len() > SHOWN {
        line += " ...";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracking::tests::pages;

    /// Pages 1 read, 2 written twice, 3 written at times far apart.
    fn truth() -> Truth {
        let mut truth = Truth::default();
        truth.touch(1, Touch::Read, (10, 20));
        truth.touch(2, Touch::Write, (10, 20));
        truth.touch(2, Touch::Both, (30, 40));
        truth.touch(3, Touch::Write, (10, 20));
        truth.touch(3, Touch::Write, (500, 510));
        truth
    }

    fn differences(truth: &Truth, read: &[usize], counts: &[(usize, u8)], rules: &Rules) -> String {
        truth
            .compare(&pages(&[(0, 0, read, &[], counts)]), rules)
            .join("; ")
    }

    #[test]
    fn equal_sets_do_not_differ() {
        for n in 1..=2 {
            let counts = [(2, n), (3, 2)];
            assert_eq!(
                differences(&truth(), &[1, 2, 3], &counts, &Rules::default()),
                ""
            );
        }
        assert!(Truth::default()
            .compare(&pages(&[]), &Rules::default())
            .is_empty());
    }

    #[test]
    fn each_difference_is_named() {
        let rules = Rules {
            apart: Some(100),
            ..Rules::default()
        };
        for (read, counts, expected) in [
            (&[1, 2, 3][..], &[(3, 2)][..], "written missing (1): 0x2"),
            (
                &[1, 2, 3],
                &[(1, 1), (2, 1), (3, 2)],
                "written extra (1): 0x1 count 1",
            ),
            (
                &[1, 2, 3],
                &[(2, 3), (3, 2)],
                "count too high (1): 0x2 count 3, not 1..=2",
            ),
            (
                &[1, 2, 3],
                &[(2, 1), (3, 1)],
                "count too low (1): 0x3 count 1, not 2..=2",
            ),
            (&[2, 3], &[(2, 1), (3, 2)], "read missing (1): 0x1"),
            (&[1, 2, 3, 9], &[(2, 1), (3, 2)], "read extra (1): 0x9"),
        ] {
            assert_eq!(differences(&truth(), read, counts, &rules), expected);
        }
        let nothing = truth().compare(&pages(&[]), &rules).join("; ");
        assert_eq!(
            nothing,
            "read missing (3): 0x1 0x2 0x3; written missing (2): 0x2 0x3"
        );
    }

    #[test]
    fn a_huge_page_is_touched_as_a_whole() {
        let all: Vec<usize> = (0..512).collect();
        let counts: Vec<_> = all.iter().map(|&i| (i, 3)).collect();
        let rules = Rules {
            huge: 0..512,
            ..Rules::default()
        };
        let report = pages(&[(0, 1, &all, &[], &counts)]);
        assert!(truth().compare(&report, &rules).is_empty());
        let some = pages(&[(0, 1, &all, &[], &counts[1..])]);
        assert!(!truth().compare(&some, &rules).is_empty());
        assert_eq!(
            truth().compare(&report, &Rules::default()),
            ["huge (1): 0x0"]
        );
        let split = pages(&[(0, 0, &[1, 2, 3], &[], &[(2, 1), (3, 2)])]);
        assert_eq!(truth().compare(&split, &rules), ["not huge (1): 0x0"]);
    }

    #[test]
    fn what_is_always_written_is_counted_in_every_interval() {
        let mut truth = Truth::default();
        truth.always(7, (10, 20));
        let rules = Rules::default();
        assert_eq!(differences(&truth, &[7], &[(7, 10)], &rules), "");
        assert_ne!(differences(&truth, &[7], &[(7, 9)], &rules), "");
    }

    #[test]
    fn only_tables_may_be_called_tables() {
        let report = pages(&[(0, 0, &[1, 2, 3], &[3], &[(2, 1), (3, 2)])]);
        let rules = Rules {
            tables: 3..4,
            ..Rules::default()
        };
        assert!(truth().compare(&report, &rules).is_empty());
        assert_eq!(
            truth().compare(&report, &Rules::default()),
            ["not a table (1): 0x3"]
        );
    }
}
