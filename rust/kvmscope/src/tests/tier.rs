// SPDX-License-Identifier: GPL-2.0

//! The policy of tiering, on simulated guests whose hot memory is known.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::sample::sample::{Access, PAGE};
use crate::tests::sample::sample;
use crate::tier::policy::{most_saved, Move, Node, Place, Policy, Rules};

const PAGES: u64 = 512;
const SECOND: u64 = 1_000_000_000;
const REGION: u64 = PAGES * PAGE;

fn rules() -> Rules {
    Rules {
        half_life: Duration::from_secs(10),
        read: 1.0,
        write: 1.0,
        execute: 1.0,
        delay: Duration::from_secs(2),
        bandwidth: 8 * REGION,
        fast_ratio: 0.5,
        tolerance: 0.5,
        pages: PAGES,
        interval: Duration::from_secs(1),
    }
}

/// Of 32 bits; good enough to choose regions with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) * bound) >> 31
    }
}

struct Guest {
    policy: Policy,
    rules: Rules,
    /// By region.
    nodes: BTreeMap<u64, Node>,
    hot: Vec<u64>,
    /// Of a thousand accesses, those to hot regions.
    hot_share: u64,
    random: Random,
    now_ns: u64,
    /// When, and how many bytes.
    moved: Vec<(u64, f64)>,
}

impl Guest {
    fn new(rules: Rules, regions: u64, hot: Vec<u64>, hot_share: u64, seed: u64) -> Guest {
        let mut guest = Guest {
            policy: Policy::new(rules),
            rules,
            nodes: BTreeMap::new(),
            hot,
            hot_share,
            random: Random(seed),
            now_ns: SECOND,
            moved: Vec::new(),
        };
        for region in 0..regions {
            let fast = guest.random.below(4) == 0;
            guest.put(region * PAGES, if fast { Node::Fast } else { Node::Slow });
        }
        guest
    }

    fn put(&mut self, gfn: u64, node: Node) {
        self.nodes.insert(gfn, node);
        let place = match node {
            Node::Fast => Place {
                fast: PAGES,
                slow: 0,
            },
            Node::Slow => Place {
                fast: 0,
                slow: PAGES,
            },
        };
        self.policy.place(gfn, place);
    }

    fn interval(&mut self, samples: u64) -> Vec<Move> {
        let step = self.rules.interval.as_nanos() as u64;
        for i in 0..samples {
            let is_hot = self.random.below(1000) < self.hot_share;
            let region = if is_hot {
                self.hot[self.random.below(self.hot.len() as u64) as usize]
            } else {
                self.random.below(self.nodes.len() as u64)
            };
            let gfn = region * PAGES + self.random.below(PAGES);
            let time_ns = self.now_ns + step * i / samples;
            self.policy.sample(&sample(time_ns, gfn, Access::WRITE));
        }
        self.now_ns += step;
        let moves = self.policy.plan(self.now_ns);
        let mut bytes = 0.0;
        for made in &moves {
            let was = self.nodes.insert(made.gfn, made.to);
            assert_ne!(was, Some(made.to), "it was there already");
            assert_eq!(made.pages, PAGES);
            bytes += REGION as f64;
        }
        self.moved.push((self.now_ns, bytes));
        moves
    }

    fn fast(&self) -> u64 {
        self.nodes.values().filter(|n| **n == Node::Fast).count() as u64
    }

    /// Of all accesses, by what the guest really does.
    fn fast_accesses(&self) -> f64 {
        let on_fast = |gfn: u64| self.nodes[&gfn] == Node::Fast;
        let hot = self.hot.iter().filter(|region| on_fast(**region * PAGES));
        let hot = hot.count() as f64 / self.hot.len() as f64;
        let cold = self.fast() as f64 / self.nodes.len() as f64;
        let share = self.hot_share as f64 / 1e3;
        share * hot + (1.0 - share) * cold
    }

    /// In any stretch of time, and from the start.
    fn check_bandwidth(&self) {
        let per_second = self.rules.bandwidth as f64;
        let seconds = |ns: u64| ns as f64 / 1e9;
        for (i, (from, _)) in self.moved.iter().enumerate() {
            let mut bytes = 0.0;
            for (to, more) in &self.moved[i..] {
                bytes += more;
                let most = per_second * seconds(to - from) + most_saved(&self.rules);
                assert!(bytes <= most + 0.5, "{bytes} bytes within {from}..{to}");
            }
        }
        let mut bytes = 0.0;
        let start = self.moved[0].0;
        for (to, more) in &self.moved {
            bytes += more;
            assert!(bytes <= per_second * seconds(to - start) + 0.5);
        }
    }
}

/// Some of so many regions.
fn some_of(regions: u64, random: &mut Random, count: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..regions).collect();
    let mut some = Vec::new();
    for _ in 0..count {
        some.push(all.swap_remove(random.below(all.len() as u64) as usize));
    }
    some
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Wherever memory was, the hot part of it gets to the fast node, and again when
    /// other memory becomes hot; and all that within the bandwidth and the ratio.
    #[test]
    fn hot_memory_becomes_fast(
        regions in 16..80_u64,
        hot_tenths in 1..4_u64,
        hot_share in 970..1000_u64,
        bandwidth in 2..16_u64,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let hot = (regions * hot_tenths / 10).max(1);
        let rules = Rules { bandwidth: bandwidth * REGION / 2, ..rules() };
        let chosen = some_of(regions, &mut random, hot);
        let mut guest = Guest::new(rules, regions, chosen, hot_share, seed);
        let capacity = regions / 2;
        for _ in 0..2 {
            let intervals = 2 * regions * 2 / bandwidth + 60;
            for _ in 0..intervals {
                let before = guest.fast();
                guest.interval(500);
                prop_assert!(guest.fast() <= capacity.max(before));
            }
            let share = guest.fast_accesses();
            prop_assert!(share >= 0.95, "{share} of the accesses are fast");
            let standing = guest.policy.standing(guest.now_ns);
            prop_assert_eq!(standing.fast_pages, guest.fast() * PAGES);
            prop_assert!(standing.fast_heat >= 0.9, "{}", standing.fast_heat);
            guest.hot = some_of(regions, &mut random, hot);
        }
        guest.check_bandwidth();
    }

    /// What is as hot as the rest, give or take the tolerance, stays where it is.
    #[test]
    fn like_regions_do_not_take_turns(seed: u64) {
        let mut random = Random(seed);
        let mut guest = Guest::new(rules(), 16, vec![0], 0, seed);
        for region in 0..16 {
            guest.put(region * PAGES, if region % 2 == 0 { Node::Fast } else { Node::Slow });
        }
        for interval in 1..100 {
            // 18 to 22 samples of each in every interval.
            for region in 0..16 {
                for _ in 0..18 + random.below(5) {
                    let time_ns = guest.now_ns;
                    guest.policy.sample(&sample(time_ns, region * PAGES, Access::READ));
                }
            }
            let moves = guest.interval(0);
            prop_assert!(moves.is_empty(), "{interval}: {moves:?}");
        }
    }

    /// Nothing moves before its time, and then it does.
    #[test]
    fn the_delay_is_kept(delay in 0..20_u64, seed: u64) {
        let rules = Rules { delay: Duration::from_secs(delay), ..rules() };
        let mut guest = Guest::new(rules, 16, vec![3, 4], 990, seed);
        for region in 0..16 {
            guest.put(region * PAGES, Node::Slow);
        }
        // It is known to be hot from the first plan on.
        let known = guest.now_ns + SECOND;
        while guest.interval(100).is_empty() {
            prop_assert!(guest.now_ns < known + (delay + 2) * SECOND, "it does not move");
        }
        prop_assert!(guest.now_ns >= known + delay * SECOND);
    }
}

#[test]
fn room_is_made_by_the_coldest() {
    // Enough for one region and what makes room for it, every other second.
    let rules = Rules {
        bandwidth: REGION,
        ..rules()
    };
    let mut guest = Guest::new(rules, 4, vec![2, 3], 1000, 1);
    for (region, node) in [Node::Fast, Node::Fast, Node::Slow, Node::Slow]
        .iter()
        .enumerate()
    {
        guest.put(region as u64 * PAGES, *node);
    }
    // Region 0 is warm, 1 cold, 2 and 3 hot.
    let start = guest.now_ns;
    for (region, samples) in [(0, 10), (1, 3)] {
        for _ in 0..samples {
            guest
                .policy
                .sample(&sample(start, region * PAGES, Access::READ));
        }
    }
    let mut moves = Vec::new();
    for _ in 0..12 {
        moves.extend(guest.interval(100));
    }
    let to_slow = moves.iter().filter(|made| made.to == Node::Slow);
    let to_slow: Vec<u64> = to_slow.map(|made| made.gfn).collect();
    assert_eq!(to_slow, [PAGES, 0]);
    assert_eq!((moves.len(), moves[0].to), (4, Node::Slow));
}

#[test]
fn weights_decide_what_is_hot() {
    let only_writes = Rules {
        read: 0.0,
        write: 2.0,
        ..rules()
    };
    let mut policy = Policy::new(only_writes);
    for region in 0..2 {
        policy.place(
            region * PAGES,
            Place {
                fast: 0,
                slow: PAGES,
            },
        );
    }
    for _ in 0..100 {
        policy.sample(&sample(SECOND, 0, Access::READ));
        policy.sample(&sample(SECOND, PAGES, Access::WRITE));
        // Of memory that is not there.
        policy.sample(&sample(SECOND, 99 * PAGES, Access::WRITE));
    }
    assert_eq!(policy.standing(SECOND).heat, 200.0);
    let mut moves = Vec::new();
    for second in 1..10 {
        moves.extend(policy.plan(second * SECOND));
    }
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].gfn, moves[0].to), (PAGES, Node::Fast));
}

/// A node that is full is not tried again and again, and holds what it holds.
#[test]
fn a_node_that_fills() {
    let mut guest = Guest::new(rules(), 16, (0..8).collect(), 1000, 7);
    for region in 0..16 {
        guest.put(region * PAGES, Node::Slow);
    }
    let mut tried = 0;
    for _ in 0..40 {
        for made in guest.interval(200) {
            tried += 1;
            if made.to == Node::Fast && guest.fast() > 4 {
                guest.put(made.gfn, Node::Slow);
                guest.policy.failed(made.gfn, guest.now_ns);
                let now_ns = guest.now_ns;
                guest.policy.is_full(now_ns);
            }
        }
    }
    assert_eq!(guest.fast(), 4);
    // Four that went well, and those of two tries with half a minute in between.
    assert!(tried <= 4 + 2 * 8, "{tried}");
}

/// What was moved for nothing: memory that was never touched has no place.
#[test]
fn untouched_memory_stays() {
    let mut policy = Policy::new(rules());
    policy.place(0, Place::default());
    for _ in 0..100 {
        policy.sample(&sample(SECOND, 0, Access::READ));
    }
    for second in 1..10 {
        assert_eq!(policy.plan(second * SECOND), []);
    }
    policy.retain(|_| false);
    assert_eq!(policy.standing(SECOND).heat, 0.0);
}
