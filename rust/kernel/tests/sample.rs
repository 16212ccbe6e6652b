// SPDX-License-Identifier: GPL-2.0

//! The sampler against guests in miniature, which touch what was taken away sooner,
//! later or never, and the ring against a queue.

use std::collections::{BTreeSet, VecDeque};

use kvmscope::sample::{
    kind, old, widened, Params, Random, Ring, Sampler, Seen, Slot, EXEC, MAX_BUDGET, MAX_RATE,
    MAX_WANT, RANDOM, READ, REGION, SWEEP, WRITE,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

const PARAMS: Params = Params {
    strategy: RANDOM,
    access: READ | WRITE | EXEC,
    rate: 1000,
    budget_ppm: MAX_BUDGET,
};

/// Slots of so many pages with gaps of so many before them.
fn slots(shape: &[(u64, u64)]) -> Vec<Slot> {
    let (mut gfn, mut before) = (0, 0);
    shape
        .iter()
        .map(|&(gap, pages)| {
            let slot = Slot {
                gfn: gfn + gap,
                pages,
                before,
            };
            gfn += gap + pages;
            before += pages;
            slot
        })
        .collect()
}

fn all_pages(slots: &[Slot]) -> BTreeSet<u64> {
    slots
        .iter()
        .flat_map(|slot| slot.gfn..slot.gfn + slot.pages)
        .collect()
}

/// Whether such counts come of equal chances, as far as a million such tests can tell
/// times: by the normal approximation of chi-squared, which many bins allow.
fn are_uniform(counts: &[u64]) -> bool {
    let bins = counts.len() as f64;
    let mean = counts.iter().sum::<u64>() as f64 / bins;
    assert!(bins >= 30.0 && mean >= 5.0, "too few to tell");
    let chi = counts
        .iter()
        .map(|&count| (count as f64 - mean).powi(2) / mean)
        .sum::<f64>();
    let freedom = bins - 1.0;
    ((chi - freedom) / (2.0 * freedom).sqrt()).abs() < 7.0
}

fn shapes() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0u64..2000, 1u64..3000), 1..8)
}

proptest! {
    #[test]
    fn numbers_below_are_below(seed: u64, n in 1u64..) {
        let mut random = Random::new(seed);
        for _ in 0..20 {
            prop_assert!(random.below(n) < n);
        }
        prop_assert_eq!(random.below(0), 0);
    }

    #[test]
    fn only_pages_of_slots_are_chosen(seed: u64, shape in shapes(), strategy in SWEEP..=RANDOM) {
        let slots = slots(&shape);
        let pages = all_pages(&slots);
        let mut sampler = Sampler::new(seed, Params { strategy, ..PARAMS });
        let mut gfns = [0; 500];
        prop_assert_eq!(sampler.choose(&slots, &mut gfns), gfns.len());
        for gfn in gfns {
            prop_assert!(pages.contains(&gfn), "{:x}", gfn);
        }
        prop_assert_eq!(sampler.choose(&[], &mut gfns), 0);
    }

    #[test]
    fn every_page_is_as_likely_as_any_other(seed: u64, shape in prop::collection::vec((0u64..50, 1u64..40), 2..6)) {
        let slots = slots(&shape);
        let pages: Vec<u64> = all_pages(&slots).into_iter().collect();
        prop_assume!(pages.len() >= 30);
        let mut sampler = Sampler::new(seed, PARAMS);
        let mut gfns = vec![0; pages.len() * 40];
        sampler.choose(&slots, &mut gfns);
        let mut counts = vec![0; pages.len()];
        for gfn in gfns {
            counts[pages.binary_search(&gfn).unwrap()] += 1;
        }
        prop_assert!(are_uniform(&counts), "{:?}", counts);
    }

    /// A round has each region once, or each part of it that a slot has.
    #[test]
    fn a_sweep_visits_each_region_in_turn(seed: u64, shape in shapes()) {
        let slots = slots(&shape);
        let parts: Vec<(u64, u64)> = slots
            .iter()
            .flat_map(|slot| {
                let end = slot.gfn + slot.pages;
                (slot.gfn / REGION..=(end - 1) / REGION).map(move |region| {
                    (slot.gfn.max(region * REGION), end.min((region + 1) * REGION))
                })
            })
            .collect();
        let mut sampler = Sampler::new(seed, Params { strategy: SWEEP, ..PARAMS });
        let mut gfns = vec![0; parts.len() * 3];
        // In pieces of any length.
        for piece in gfns.chunks_mut(7) {
            sampler.choose(&slots, piece);
        }
        for (gfn, (first, end)) in gfns.iter().zip(parts.iter().cycle()) {
            prop_assert!((*first..*end).contains(gfn), "{:x} not in {:x}..{:x}", gfn, first, end);
        }
    }

    /// Slots come and go between two rounds, and at any place.
    #[test]
    fn a_sweep_goes_on_when_slots_change(seed: u64, a in shapes(), b in shapes()) {
        let mut sampler = Sampler::new(seed, Params { strategy: SWEEP, ..PARAMS });
        let mut gfns = [0; 5];
        for shape in [&a, &b, &a, &b] {
            let slots = slots(shape);
            let pages = all_pages(&slots);
            prop_assert_eq!(sampler.choose(&slots, &mut gfns), 5);
            prop_assert!(gfns.iter().all(|gfn| pages.contains(gfn)));
        }
    }

    #[test]
    fn the_ring_is_a_queue(
        power in 0u32..8,
        steps in prop::collection::vec((0u8..4, any::<u64>()), 1..400),
    ) {
        let mut ring = Ring { records: 1 << power, ..Ring::default() };
        let mut memory = vec![u64::MAX; 1 << power];
        let mut queue = VecDeque::new();
        let (mut taken, mut delivered, mut lost, mut dropped) = (0u64, 0, 0, 0);
        for (what, value) in steps {
            match what {
                0 | 1 => {
                    match ring.room() {
                        Some(at) => {
                            memory[at as usize] = taken;
                            ring.put();
                            queue.push_back(taken);
                        }
                        None => {
                            prop_assert_eq!(queue.len(), 1 << power);
                            lost += 1;
                        }
                    }
                    taken += 1;
                }
                2 => {
                    let (at, count) = ring.next(value % 10);
                    prop_assert!(count <= value % 10 && at + count <= 1 << power);
                    prop_assert!(count > 0 || queue.is_empty() || value % 10 == 0);
                    for place in at..at + count {
                        prop_assert_eq!(Some(memory[place as usize]), queue.pop_front());
                    }
                    let for_nothing = value % (count + 1);
                    ring.consume(count, for_nothing);
                    delivered += count - for_nothing;
                    dropped += for_nothing;
                }
                // The reader's own word, mostly wild.
                _ => {
                    let tail = if value % 2 == 0 { value } else { ring.tail + value % 20 };
                    let (before, ahead) = (ring.tail, tail.wrapping_sub(ring.tail));
                    ring.heed(tail);
                    if ahead <= queue.len() as u64 {
                        prop_assert_eq!(ring.tail, tail);
                        queue.drain(..ahead as usize);
                        delivered += ahead;
                    } else {
                        prop_assert_eq!(ring.tail, before);
                    }
                }
            }
            prop_assert_eq!(ring.waiting(), queue.len() as u64);
            prop_assert_eq!(ring.taken(), taken);
            prop_assert_eq!(ring.lost, lost);
            prop_assert_eq!(ring.tail - ring.dropped, delivered);
            prop_assert_eq!(taken, delivered + lost + dropped + ring.waiting());
        }
    }

    #[test]
    fn nothing_that_is_seen_makes_a_plan_absurd(
        seed: u64,
        rate in 0..=MAX_RATE,
        budget_ppm in 1..=MAX_BUDGET,
        seen in prop::collection::vec(prop::array::uniform10(any::<u64>()), 1..20),
    ) {
        let mut sampler = Sampler::new(seed, Params { rate, budget_ppm, ..PARAMS });
        for [now_ns, armed, taken, filtered, disarmed, fault_ns, batch_ns, guest_ns, batches, vcpus] in seen {
            let plan = sampler.plan(&Seen {
                now_ns, armed, taken, filtered, disarmed, fault_ns, batch_ns, guest_ns, batches, vcpus,
            });
            prop_assert!(plan.want <= MAX_WANT);
            prop_assert!(plan.want == 0 || rate > 0);
            prop_assert!(plan.rate_now <= rate.into());
            prop_assert!((5_000_000..2 * SECOND).contains(&plan.wait_ns), "{}", plan.wait_ns);
        }
    }
}

#[test]
fn a_small_excess_is_not_favoured() {
    // A number of which 2^64 has one and a half: half of it would come twice as often.
    let n = (1u64 << 63) + (1 << 62);
    let mut random = Random::new(1);
    let low = (0..10_000).filter(|_| random.below(n) < n / 2).count();
    assert!((4800..5200).contains(&low), "{low}");
}

#[test]
fn parameters_have_bounds() {
    assert!(PARAMS.are_valid());
    for bad in [
        Params {
            strategy: 2,
            ..PARAMS
        },
        Params {
            access: 0,
            ..PARAMS
        },
        Params {
            access: 8,
            ..PARAMS
        },
        Params {
            rate: MAX_RATE + 1,
            ..PARAMS
        },
        Params {
            budget_ppm: 0,
            ..PARAMS
        },
        Params {
            budget_ppm: MAX_BUDGET + 1,
            ..PARAMS
        },
    ] {
        assert!(!bad.are_valid(), "{bad:?}");
    }
}

#[test]
fn what_hardware_cannot_express_is_widened() {
    assert_eq!(widened(WRITE), WRITE);
    for access in 1..=7 {
        assert_eq!(widened(access) & access, access);
        // Write without read is a misconfigured entry.
        assert!(access == WRITE || widened(access) == 7);
    }
}

/// As the header says: `__u32 gfn:29, xwr:3`, from the lowest bit up.
#[test]
fn what_programs_of_old_cannot_be_told_they_are_not() {
    let most = (1 << 29) - 1;
    assert_eq!(old(0, READ), Some(0x2000_0000));
    assert_eq!(old(0x12345, WRITE), Some(0x4001_2345));
    assert_eq!(old(most, EXEC), Some(0x9fff_ffff));
    for gfn in [most + 1, most + 2, 1 << 32, u64::MAX] {
        for access in [READ, WRITE, EXEC] {
            assert_eq!(old(gfn, access), None, "{gfn:x}");
        }
    }
    for none in [0, 8, u32::MAX] {
        assert_eq!(old(1, none), None);
    }
}

#[test]
fn an_access_is_of_one_kind() {
    assert_eq!(kind(false, false, false), READ);
    assert_eq!(kind(true, false, false), WRITE);
    assert_eq!(kind(false, true, false), EXEC);
    // Hardware calls a walk a write.
    assert_eq!(kind(true, false, true), READ);
}

/// Time began long before the session.
const EPOCH: u64 = 1000 * SECOND;

/// A guest in miniature.
struct Guest {
    /// How soon it touches a page that was taken away; none: never.
    touches: fn(&mut Random) -> Option<u64>,
    /// What a fault takes of KVM, and a batch of everybody.
    fault_ns: u64,
    batch_ns: u64,
    /// Of 100 touches so many are of a kind that is not asked for.
    other: u64,
}

struct Ran {
    seen: Seen,
    /// At its end, samples in each second.
    seconds: Vec<u64>,
}

/// Runs it for so many seconds; the sampler has to keep to the budget all the time.
fn run(guest: &Guest, sampler: &mut Sampler, budget_ppm: u64, seconds: u64, seed: u64) -> Ran {
    let mut random = Random::new(seed);
    let mut coming = BTreeSet::new();
    let mut seen = Seen {
        vcpus: 1,
        ..Seen::default()
    };
    let mut per_second = vec![0; seconds as usize];
    let mut id = 0u64;
    while seen.now_ns < seconds * SECOND {
        let plan = sampler.plan(&Seen {
            now_ns: EPOCH + seen.now_ns,
            ..seen
        });
        if plan.want > 0 {
            seen.batches += 1;
            seen.batch_ns += guest.batch_ns;
        }
        for _ in 0..plan.want {
            seen.armed += 1;
            id += 1;
            if let Some(after) = (guest.touches)(&mut random) {
                coming.insert((seen.now_ns + after, id));
            }
        }
        seen.now_ns += plan.wait_ns;
        while let Some(&(when, _)) = coming.first().filter(|&&(when, _)| when <= seen.now_ns) {
            coming.pop_first();
            seen.fault_ns += guest.fault_ns;
            if random.below(100) < guest.other {
                seen.filtered += 1;
            } else {
                seen.taken += 1;
                if let Some(count) = per_second.get_mut((when / SECOND) as usize) {
                    *count += 1;
                }
            }
        }
        seen.guest_ns = seen.now_ns;
        // A batch and a mean fault are known only after the fact.
        let slack = guest.batch_ns + 100 * guest.fault_ns + 1_000_000;
        assert!(
            seen.spent_ns() <= seen.now_ns * budget_ppm / 1_000_000 + slack,
            "{seen:?}"
        );
    }
    Ran {
        seen,
        seconds: per_second,
    }
}

/// Touches all that is taken away; what it costs is as on a usual machine.
const BUSY: Guest = Guest {
    touches: at_once,
    fault_ns: 20_000,
    batch_ns: 50_000,
    other: 0,
};

/// A hundredth of a second of it: what is taken away is accessed by then.
/// Returns how much that is.
fn a_hundredth(sampler: &mut Sampler, seen: &mut Seen) -> u64 {
    seen.now_ns += SECOND / 100;
    seen.guest_ns = seen.now_ns;
    let now_ns = EPOCH + seen.now_ns;
    let want = sampler.plan(&Seen { now_ns, ..*seen }).want;
    seen.armed += want;
    seen.taken += want;
    seen.fault_ns += want * BUSY.fault_ns;
    seen.batch_ns += want.min(1) * BUSY.batch_ns;
    seen.batches += want.min(1);
    want
}

fn at_once(random: &mut Random) -> Option<u64> {
    Some(random.below(1_000_000))
}

fn within_seconds(random: &mut Random) -> Option<u64> {
    Some(random.below(2 * SECOND))
}

fn one_in_five(random: &mut Random) -> Option<u64> {
    (random.below(5) == 0).then(|| random.below(50_000_000))
}

type Touches = fn(&mut Random) -> Option<u64>;
const GUESTS: [(&str, Touches); 3] = [
    ("at once", at_once),
    ("within seconds", within_seconds),
    ("one in five", one_in_five),
];

#[test]
fn the_rate_is_what_was_asked_for() {
    for (name, touches) in GUESTS {
        for rate in [1, 10, 100, 1000, 10_000] {
            for other in [0, 50] {
                let guest = Guest {
                    touches,
                    fault_ns: 2000,
                    batch_ns: 10_000,
                    other,
                };
                let params = Params { rate, ..PARAMS };
                let mut sampler = Sampler::new(7, params);
                // As many seconds as have a thousand samples.
                let seconds = 20 + 1000 / u64::from(rate);
                let ran = run(&guest, &mut sampler, MAX_BUDGET.into(), seconds, 3);
                let settled: u64 = ran.seconds[5..].iter().sum();
                let asked = u64::from(rate) * (seconds - 5);
                let off = settled.abs_diff(asked) * 100;
                assert!(
                    off <= asked * 5,
                    "{name}: {settled}, not {asked}, with {other} % others, {:?}",
                    ran.seen
                );
            }
        }
    }
}

#[test]
fn the_budget_holds_the_rate_down() {
    // 1 % of the time is 10 ms a second: at twice 20 us a fault, 250 samples less
    // what batches take.
    for (budget_ppm, low, high) in [(10_000, 150, 250), (1000, 12, 25), (100_000, 1500, 2500)] {
        let params = Params {
            rate: 1_000_000,
            budget_ppm,
            ..PARAMS
        };
        let mut sampler = Sampler::new(7, params);
        let ran = run(&BUSY, &mut sampler, budget_ppm.into(), 20, 3);
        let rate = ran.seen.taken / 20;
        assert!((low..=high).contains(&rate), "{rate} with {budget_ppm}");
        let now = sampler.plan(&ran.seen).rate_now;
        assert!(now.abs_diff(rate) <= rate / 4, "says {now}, is {rate}");
    }
}

/// What was taken away over hours from pages that are then touched all at once was
/// paid for beforehand.
#[test]
fn a_burst_was_paid_for() {
    fn later(random: &mut Random) -> Option<u64> {
        (random.below(10) == 0).then(|| random.below(10_000_000))
    }
    let guest = Guest {
        touches: later,
        fault_ns: 5000,
        batch_ns: 10_000,
        other: 0,
    };
    let mut sampler = Sampler::new(
        7,
        Params {
            rate: 10_000,
            budget_ppm: 10_000,
            ..PARAMS
        },
    );
    let ran = run(&guest, &mut sampler, 10_000, 30, 3);
    let pending = ran.seen.armed - ran.seen.taken;
    let mut all = ran.seen;
    all.fault_ns += pending * guest.fault_ns;
    assert!(pending > 1000);
    assert!(all.spent_ns() <= all.now_ns / 100 + 2_000_000, "{all:?}");
}

#[test]
fn a_guest_that_sleeps_is_not_swamped_when_it_wakes() {
    let mut sampler = Sampler::new(7, PARAMS);
    let mut seen = Seen {
        vcpus: 1,
        ..Seen::default()
    };
    for _ in 0..1000 {
        seen.now_ns += 100_000_000;
        seen.guest_ns = seen.now_ns;
        // Nothing is mapped, nothing can be taken away.
        sampler.plan(&seen);
    }
    let plan = sampler.plan(&seen);
    assert!(plan.want <= 1000, "{plan:?}");
}

/// A first batch that took longer than a second's budget, with a page or two to show
/// for it, is paid off, and sampling goes on.
#[test]
fn a_batch_that_was_held_up_is_not_the_last() {
    let params = Params {
        budget_ppm: 10_000,
        ..PARAMS
    };
    let mut sampler = Sampler::new(1, params);
    let mut seen = Seen {
        vcpus: 1,
        armed: 1,
        taken: 1,
        fault_ns: 100_000,
        batch_ns: 50_000_000,
        batches: 1,
        ..Seen::default()
    };
    let again = (1..2000u64).find(|tick| {
        seen.now_ns = tick * SECOND / 100;
        seen.guest_ns = seen.now_ns;
        sampler.plan(&seen).want > 0
    });
    // What it took is 5 s of budget, and the next page as much before it is known.
    let again = again.expect("nothing is taken away any more");
    assert!((500..1500).contains(&again), "after {again} hundredths");
}

/// One that is held up later is let off but for a second's budget, and what they usually
/// take is not.
#[test]
fn a_batch_that_was_held_up_is_let_off() {
    let params = Params {
        rate: 1_000_000,
        budget_ppm: 10_000,
        ..PARAMS
    };
    let mut sampler = Sampler::new(7, params);
    let mut seen = run(&BUSY, &mut sampler, 10_000, 20, 3).seen;
    let held_up = SECOND;
    seen.batch_ns += held_up;
    let began = seen.now_ns;
    let again = (0..1000).any(|_| a_hundredth(&mut sampler, &mut seen) > 0);
    assert!(again, "nothing is taken away any more");
    let after = seen.now_ns - began;
    assert!(
        (SECOND / 2..3 * SECOND).contains(&after),
        "after {after} ns"
    );
    while seen.now_ns - began < 60 * SECOND {
        a_hundredth(&mut sampler, &mut seen);
    }
    let over = seen.spent_ns() - held_up;
    assert!(over <= seen.guest_ns / 100, "{seen:?}");
}

/// What was earned and spent with one budget is not priced by another.
#[test]
fn a_change_of_the_budget_settles_nothing() {
    for (before, after) in [(500_000, 10_000), (10_000, 500_000)] {
        let params = |budget_ppm| Params {
            rate: 1_000_000,
            budget_ppm,
            ..PARAMS
        };
        let mut sampler = Sampler::new(7, params(before));
        let mut seen = run(&BUSY, &mut sampler, before.into(), 20, 3).seen;
        sampler.change(params(after));
        let spent = seen.spent_ns();
        let soon = (0..20).any(|_| a_hundredth(&mut sampler, &mut seen) > 0);
        assert!(soon, "sampling stopped when {before} became {after}");
        for _ in 20..100 {
            a_hundredth(&mut sampler, &mut seen);
        }
        let ppm = (seen.spent_ns() - spent) / (SECOND / 1_000_000);
        assert!(ppm <= u64::from(after) + 20_000, "{ppm} ppm");
    }
}

#[test]
fn rate_zero_pauses() {
    let mut sampler = Sampler::new(7, PARAMS);
    let guest = Guest {
        touches: at_once,
        fault_ns: 2000,
        batch_ns: 1000,
        other: 0,
    };
    let ran = run(&guest, &mut sampler, MAX_BUDGET.into(), 2, 3);
    assert!(ran.seen.taken > 1000);
    sampler.change(Params { rate: 0, ..PARAMS });
    for _ in 0..100 {
        assert_eq!(sampler.plan(&ran.seen).want, 0);
    }
}
