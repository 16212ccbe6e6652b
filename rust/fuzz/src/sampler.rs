// SPDX-License-Identifier: GPL-2.0

//! The sampler: whatever parameters it is given, whatever the slots of the VM are,
//! and whatever a reader writes into the page that it shares with the kernel.

use kernel::sample::{Params, Ring, Sampler, Seen, Slot, MAX_WANT, WRITE};

use crate::bytes::Bytes;

impl Bytes<'_> {
    /// Small numbers, and some of any size.
    fn number(&mut self) -> u64 {
        match self.byte().unwrap_or(0) {
            small @ 0..=0xbf => small.into(),
            size => {
                let mut number = 0;
                for _ in 0xc0..=size.min(0xc7) {
                    number = (number << 8) | u64::from(self.byte().unwrap_or(0));
                }
                number
            }
        }
    }
}

/// A ring of some size, then what happens to it, a byte saying what.
pub fn ring(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut ring = Ring {
        records: 1 << (bytes.byte().unwrap_or(0) % 8),
        ..Ring::default()
    };
    let mut delivered = 0;
    while let Some(what) = bytes.byte() {
        let before = ring;
        match what % 4 {
            0 => {
                if let Some(at) = ring.room() {
                    assert!(at < ring.records);
                    ring.put();
                }
                assert_eq!(ring.taken(), before.taken() + 1);
            }
            1 => {
                // What a reader says is any number at all.
                let tail = match what & 4 {
                    0 => bytes.number(),
                    _ => ring.tail.wrapping_add(bytes.number()),
                };
                ring.heed(tail);
                assert!(ring.waiting() <= before.waiting());
            }
            2 => {
                let (at, count) = ring.next(bytes.number());
                assert!(count <= ring.waiting() && at + count <= ring.records);
            }
            _ => ring.consume(bytes.number(), bytes.number()),
        }
        assert!(ring.waiting() <= ring.records);
        assert_eq!(ring.taken(), ring.tail + ring.waiting() + ring.lost);
        assert!(ring.tail >= delivered, "it goes back");
        delivered = ring.tail;
    }
}

/// Parameters, slots, and what was counted, a few times over.
pub fn sampler(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let params = Params {
        strategy: bytes.number() as u32,
        access: bytes.number() as u32,
        rate: bytes.number() as u32,
        budget_ppm: bytes.number() as u32,
    };
    if !params.are_valid() {
        return;
    }
    assert!(params.access <= 7 && params.strategy <= 1);
    let mut slots: Vec<Slot> = Vec::new();
    let (mut gfn, mut before) = (0u64, 0u64);
    for _ in 0..bytes.byte().unwrap_or(0) % 5 {
        // As KVM has them: ascending, apart, and within 2^52 bytes.
        gfn += bytes.number() % (1 << 36);
        let pages = 1 + bytes.number() % (1 << 31);
        slots.push(Slot { gfn, pages, before });
        (gfn, before) = (gfn + pages, before + pages);
    }
    let mut sampler = Sampler::new(bytes.number(), params);
    let mut gfns = [0; 16];
    for _ in 0..8 {
        let count = sampler.choose(&slots, &mut gfns);
        assert!(count == gfns.len() || slots.is_empty());
        for gfn in &gfns[..count] {
            let within = |slot: &Slot| (slot.gfn..slot.gfn + slot.pages).contains(gfn);
            assert!(slots.iter().any(within), "{gfn:#x} of {slots:?}");
        }
        let plan = sampler.plan(&Seen {
            now_ns: bytes.number(),
            armed: bytes.number(),
            taken: bytes.number(),
            filtered: bytes.number(),
            fault_ns: bytes.number(),
            batch_ns: bytes.number(),
            guest_ns: bytes.number(),
            batches: bytes.number(),
            vcpus: bytes.number(),
            ..Seen::default()
        });
        assert!(plan.want <= MAX_WANT && plan.rate_now <= params.rate.into());
        assert!(params.rate != 0 || plan.want == 0, "{plan:?}");
        sampler.change(Params {
            access: WRITE,
            ..params
        });
    }
}
