// SPDX-License-Identifier: GPL-2.0

//! Which regions of a guest's memory belong on the fast node, and which of them are
//! to move now. Nothing here reads a clock or moves a page: what is known comes in,
//! and moves go out.
//!
//! The hottest regions are wanted on the fast node, as many as its share of the
//! guest's memory holds. Three things keep a region from moving for nothing: it must
//! be hotter by the tolerance than what has to make room for it, it must have been so
//! for the migration delay, and moves must not take more than the bandwidth. What
//! makes room is the coldest first, and of what nobody touches nothing moves but to
//! make room.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sample::heat::Decaying;
use crate::sample::sample::{Access, Sample, PAGE};

/// The parameters, all of them the user's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub half_life: Duration,
    /// What an access of each kind adds to the heat of its region.
    pub read: f64,
    pub write: f64,
    pub execute: f64,
    /// How long a region must have been on the wrong node.
    pub delay: Duration,
    /// Bytes per second that may be moved.
    pub bandwidth: u64,
    /// Of the guest's memory, as much may be on the fast node.
    pub fast_ratio: f64,
    /// By what share a region must be hotter than the one that it displaces.
    pub tolerance: f64,
    /// Of a region.
    pub pages: u64,
    /// Between two plans.
    pub interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Fast,
    Slow,
}

/// Where pages of a region are. Those that are nowhere have never been touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub fast: u64,
    pub slow: u64,
}

impl Place {
    pub fn pages(self) -> u64 {
        self.fast + self.slow
    }

    /// How many are not there.
    fn away_from(self, node: Node) -> u64 {
        match node {
            Node::Fast => self.slow,
            Node::Slow => self.fast,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    heat: Decaying,
    place: Place,
    /// Since when it has been wanted on the fast node, or in the way there.
    misplaced_ns: Option<u64>,
    /// It is not to be tried again before.
    rest_until_ns: u64,
}

/// Moves all pages of a region that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The region's first page.
    pub gfn: u64,
    pub to: Node,
    /// As many are known to be elsewhere.
    pub pages: u64,
}

pub struct Policy {
    rules: Rules,
    regions: BTreeMap<u64, Region>,
    /// Bytes that may be moved.
    allowance: f64,
    planned_ns: Option<u64>,
    /// What the fast node has turned out to hold, when that is less than its share,
    /// and until when that is believed.
    room: Option<(u64, u64)>,
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    pub fast_pages: u64,
    pub slow_pages: u64,
    /// Of all heat, the share of the regions on the fast node.
    pub fast_heat: f64,
    /// Whether there is any heat.
    pub heat: f64,
}

impl Policy {
    pub fn new(rules: Rules) -> Policy {
        Policy {
            rules,
            regions: BTreeMap::new(),
            allowance: 0.0,
            planned_ns: None,
            room: None,
        }
    }

    /// A region of the guest's, and where its pages are. One that had another place
    /// before may have been moved by anybody.
    pub fn place(&mut self, gfn: u64, place: Place) {
        let first = gfn / self.rules.pages * self.rules.pages;
        self.regions.entry(first).or_default().place = place;
    }

    /// Whether the region has no pages anywhere, as far as is known.
    pub fn is_nowhere(&self, gfn: u64) -> bool {
        let region = self.regions.get(&gfn);
        region.is_none_or(|region| region.place == Place::default())
    }

    /// Memory that the guest has no more.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.regions.retain(|gfn, _| is_there(*gfn));
    }

    pub fn sample(&mut self, sample: &Sample) {
        let first = sample.gfn / self.rules.pages * self.rules.pages;
        // Memory whose place is not known cannot be moved.
        let Some(region) = self.regions.get_mut(&first) else {
            return;
        };
        let weights = [
            (Access::READ, self.rules.read),
            (Access::WRITE, self.rules.write),
            (Access::EXECUTE, self.rules.execute),
        ];
        let kinds = weights.iter().filter(|(kind, _)| sample.access.has(*kind));
        let weight = kinds.map(|(_, weight)| weight).sum();
        region
            .heat
            .add(weight, sample.time_ns, self.rules.half_life);
    }

    /// The fast node had no room for a move that was planned.
    pub fn is_full(&mut self, now_ns: u64) {
        self.room = Some((self.fast_pages(), self.later(now_ns)));
    }

    /// A region could not be moved: it is left alone for a while.
    pub fn failed(&mut self, gfn: u64, now_ns: u64) {
        let later = self.later(now_ns);
        if let Some(region) = self.regions.get_mut(&gfn) {
            region.rest_until_ns = later;
        }
    }

    /// When what did not work may be tried again.
    fn later(&self, now_ns: u64) -> u64 {
        let rest = (self.rules.delay + self.rules.interval) * 10;
        now_ns.saturating_add(rest.as_nanos() as u64)
    }

    fn fast_pages(&self) -> u64 {
        self.regions.values().map(|region| region.place.fast).sum()
    }

    /// As many pages as may be on the fast node.
    fn capacity(&self) -> u64 {
        let all: u64 = self.regions.values().map(|r| r.place.pages()).sum();
        let share = (all as f64 * self.rules.fast_ratio) as u64;
        share.min(self.room.map_or(u64::MAX, |(pages, _)| pages))
    }

    pub fn standing(&self, now_ns: u64) -> Standing {
        let mut standing = Standing::default();
        let mut fast_heat = 0.0;
        for region in self.regions.values() {
            let heat = region.heat.at(now_ns, self.rules.half_life);
            standing.fast_pages += region.place.fast;
            standing.slow_pages += region.place.slow;
            standing.heat += heat;
            if region.place.pages() != 0 {
                let share = region.place.fast as f64 / region.place.pages() as f64;
                fast_heat += heat * share;
            }
        }
        if standing.heat > 0.0 {
            standing.fast_heat = fast_heat / standing.heat;
        }
        standing
    }

    /// What is to move now: what makes room first. The moves count as made, until
    /// `place` says otherwise.
    pub fn plan(&mut self, now_ns: u64) -> Vec<Move> {
        self.earn(now_ns);
        self.room.take_if(|(_, until_ns)| *until_ns <= now_ns);
        let wanted = self.wanted(now_ns);
        self.note_misplaced(&wanted, now_ns);
        let moves = self.choose(&wanted, now_ns);
        for made in &moves {
            if let Some(region) = self.regions.get_mut(&made.gfn) {
                let pages = region.place.pages();
                region.place = match made.to {
                    Node::Fast => Place {
                        fast: pages,
                        slow: 0,
                    },
                    Node::Slow => Place {
                        fast: 0,
                        slow: pages,
                    },
                };
                region.misplaced_ns = None;
            }
        }
        moves
    }

    /// What was not spent can be saved up for one region, or for one interval, but no
    /// longer: else a quiet hour would allow a storm.
    fn earn(&mut self, now_ns: u64) {
        let rules = &self.rules;
        let since = now_ns.saturating_sub(self.planned_ns.unwrap_or(now_ns));
        self.planned_ns = Some(now_ns);
        let most = most_saved(rules);
        self.allowance += rules.bandwidth as f64 * since as f64 / 1e9;
        self.allowance = self.allowance.min(most);
    }

    /// Which regions belong on the fast node, hottest first, and by how much the
    /// coldest of them is above the hottest of the others.
    fn wanted(&self, now_ns: u64) -> Wanted {
        let mut ranked: Vec<(f64, u64)> = self
            .regions
            .iter()
            .filter(|(_, region)| region.place.pages() != 0)
            .map(|(gfn, region)| {
                let heat = region.heat.at(now_ns, self.rules.half_life);
                // By the page: the last region of a slot may be small.
                let heat = heat / region.place.pages() as f64;
                // What is there already is as good as what is hotter by the tolerance.
                let share = region.place.fast as f64 / region.place.pages() as f64;
                (heat * (1.0 + self.rules.tolerance * share), *gfn)
            })
            .filter(|(heat, _)| *heat > 0.0)
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let capacity = self.capacity();
        let mut pages = 0;
        let mut fast = Vec::new();
        for (_, gfn) in &ranked {
            let its = self.regions[gfn].place.pages();
            if pages + its > capacity {
                break;
            }
            pages += its;
            fast.push(*gfn);
        }
        Wanted {
            order: fast.clone(),
            fast: fast.into_iter().collect(),
            capacity,
        }
    }

    fn note_misplaced(&mut self, wanted: &Wanted, now_ns: u64) {
        for (gfn, region) in &mut self.regions {
            let node = wanted.node(*gfn);
            if region.place.away_from(node) == 0 {
                region.misplaced_ns = None;
            } else {
                region.misplaced_ns.get_or_insert(now_ns);
            }
        }
    }

    fn choose(&mut self, wanted: &Wanted, now_ns: u64) -> Vec<Move> {
        let delay_ns = self.rules.delay.as_nanos() as u64;
        let may_move = |region: &Region| {
            let since = region.misplaced_ns;
            since.is_some_and(|since| now_ns - since.min(now_ns) >= delay_ns)
                && now_ns >= region.rest_until_ns
        };
        // Coldest first.
        let mut in_the_way: Vec<(f64, u64)> = self
            .regions
            .iter()
            .filter(|(gfn, region)| {
                wanted.node(**gfn) == Node::Slow && region.place.fast != 0 && may_move(region)
            })
            .map(|(gfn, region)| (region.heat.at(now_ns, self.rules.half_life), *gfn))
            .collect();
        in_the_way.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut in_the_way = in_the_way.into_iter().map(|(_, gfn)| gfn).peekable();

        let mut fast_pages = self.fast_pages();
        let mut moves = Vec::new();
        // A share that was exceeded from the start, or became smaller.
        while fast_pages > wanted.capacity {
            let Some(gfn) = in_the_way.next() else { break };
            let pages = self.regions[&gfn].place.fast;
            if !self.spend(pages) {
                return moves;
            }
            fast_pages -= pages;
            moves.push(Move {
                gfn,
                to: Node::Slow,
                pages,
            });
        }
        for gfn in &wanted.order {
            let region = &self.regions[gfn];
            let pages = region.place.slow;
            if pages == 0 || !may_move(region) {
                continue;
            }
            // All that it takes, or nothing: room that was made for what then stays
            // would be moved for nothing.
            let mut makes_room = Vec::new();
            let mut freed = 0;
            while fast_pages + pages > wanted.capacity + freed {
                let Some(other) = in_the_way.peek() else {
                    break;
                };
                let its = self.regions[other].place.fast;
                makes_room.push((*other, its));
                freed += its;
                in_the_way.next();
            }
            if fast_pages + pages > wanted.capacity + freed {
                break;
            }
            if !self.spend(pages + freed) {
                break;
            }
            moves.extend(makes_room.iter().map(|&(gfn, pages)| Move {
                gfn,
                to: Node::Slow,
                pages,
            }));
            moves.push(Move {
                gfn: *gfn,
                to: Node::Fast,
                pages,
            });
            fast_pages = fast_pages + pages - freed;
        }
        moves
    }

    /// Whether so many pages may be moved now.
    fn spend(&mut self, pages: u64) -> bool {
        let bytes = (pages * PAGE) as f64;
        let affordable = bytes <= self.allowance;
        if affordable {
            self.allowance -= bytes;
        }
        affordable
    }
}

/// Bytes: an interval's, or what it takes at most to have one region make room for
/// another: two, of which the first may have next to nothing on the fast node.
pub fn most_saved(rules: &Rules) -> f64 {
    let interval = rules.bandwidth as f64 * rules.interval.as_secs_f64();
    interval.max((3 * rules.pages * PAGE) as f64)
}

struct Wanted {
    /// Hottest first.
    order: Vec<u64>,
    fast: std::collections::BTreeSet<u64>,
    /// Of the fast node, in pages.
    capacity: u64,
}

impl Wanted {
    fn node(&self, gfn: u64) -> Node {
        if self.fast.contains(&gfn) {
            Node::Fast
        } else {
            Node::Slow
        }
    }
}
