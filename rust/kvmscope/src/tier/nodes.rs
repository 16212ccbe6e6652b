// SPDX-License-Identifier: GPL-2.0

//! Which NUMA nodes there are, and which of two is the fast one.

use std::fs;

use anyhow::{anyhow, bail, ensure, Result};

use crate::kernel::Kernel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nodes {
    pub fast: i32,
    pub slow: i32,
}

impl Nodes {
    /// Those that are given, and for those that are not: fast is the first node that
    /// has CPUs, slow the first other one, or better one without CPUs.
    pub fn find(kernel: &Kernel, fast: Option<u32>, slow: Option<u32>) -> Result<Nodes> {
        let list = |name: &str| {
            let path = kernel.root().join("sys/devices/system/node").join(name);
            fs::read_to_string(path).map(|text| numbers(&text))
        };
        let with_memory = list("has_memory")
            .map_err(|_| anyhow!("this kernel knows no NUMA nodes: boot one with CONFIG_NUMA=y"))?;
        choose(
            &with_memory,
            &list("has_cpu").unwrap_or_default(),
            fast,
            slow,
        )
    }
}

fn choose(
    with_memory: &[u32],
    with_cpus: &[u32],
    fast: Option<u32>,
    slow: Option<u32>,
) -> Result<Nodes> {
    for given in fast.iter().chain(&slow) {
        ensure!(
            with_memory.contains(given),
            "node {given} has no memory; there are {}",
            names(with_memory)
        );
    }
    ensure!(
        with_memory.len() > 1,
        "there is one NUMA node with memory, and nothing to move between: for a try, boot with \
         numa=fake=2"
    );
    let others = |not: Option<u32>| with_memory.iter().copied().filter(move |n| Some(*n) != not);
    let has_cpus = |node: &u32| with_cpus.contains(node);
    let fast = fast
        .or_else(|| others(slow).find(has_cpus))
        .or_else(|| others(slow).next());
    let slow = slow
        .or_else(|| others(fast).find(|node| !has_cpus(node)))
        .or_else(|| others(fast).next());
    match (fast, slow) {
        (Some(fast), Some(slow)) if fast != slow => Ok(Nodes {
            fast: fast as i32,
            slow: slow as i32,
        }),
        (Some(both), _) => bail!("node {both} cannot be both fast and slow"),
        (None, _) => bail!("there are no two nodes with memory"),
    }
}

/// Of a list such as `0-1,4`.
fn numbers(text: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            numbers.extend(first..=last.min(first.saturating_add(1024)));
        }
    }
    numbers
}

fn names(nodes: &[u32]) -> String {
    let names: Vec<String> = nodes.iter().map(u32::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_one_and_the_slow_one() {
        let choose = |memory: &[u32], cpus: &[u32], fast, slow| {
            let nodes = choose(memory, cpus, fast, slow);
            nodes
                .map(|nodes| (nodes.fast, nodes.slow))
                .map_err(|e| e.to_string())
        };
        // Two sockets, and memory that has no CPUs.
        assert_eq!(choose(&[0, 1, 2], &[0, 1], None, None), Ok((0, 2)));
        assert_eq!(choose(&[0, 1, 2], &[0, 1], Some(1), None), Ok((1, 2)));
        assert_eq!(choose(&[0, 1, 2], &[0, 1], None, Some(0)), Ok((1, 0)));
        assert_eq!(choose(&[0, 1], &[0, 1], None, None), Ok((0, 1)));
        assert_eq!(choose(&[0, 1], &[0, 1], Some(1), None), Ok((1, 0)));
        assert_eq!(choose(&[0, 1], &[], None, None), Ok((0, 1)));
        assert!(choose(&[0], &[0], None, None)
            .unwrap_err()
            .contains("numa=fake=2"));
        assert!(choose(&[0, 1], &[0], Some(1), Some(1))
            .unwrap_err()
            .contains("both"));
        assert!(choose(&[0, 1], &[0], Some(7), None)
            .unwrap_err()
            .contains("node 7"));
    }

    #[test]
    fn lists_of_nodes() {
        assert_eq!(numbers("0-1,4\n"), [0, 1, 4]);
        assert_eq!(numbers("0\n"), [0]);
        assert!(numbers("\n").is_empty());
    }
}
