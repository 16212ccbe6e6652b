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
        let with_cpus = list("has_cpu").unwrap_or_default();
        for given in fast.iter().chain(&slow) {
            ensure!(
                with_memory.contains(given),
                "node {given} has no memory; there are {}",
                names(&with_memory)
            );
        }
        ensure!(
            with_memory.len() > 1,
            "there is one NUMA node with memory, and nothing to move between: for a try, boot \
             with numa=fake=2"
        );
        let others =
            |not: Option<u32>| with_memory.iter().copied().filter(move |n| Some(*n) != not);
        let has_cpus = |node: &u32| with_cpus.contains(node);
        let fast = fast
            .or_else(|| others(slow).find(has_cpus))
            .or_else(|| others(slow).next());
        let slow = slow
            .or_else(|| others(fast).find(|node| !has_cpus(node)))
            .or_else(|| others(fast).next());
        let (Some(fast), Some(slow)) = (fast, slow) else {
            bail!("there are no two nodes with memory");
        };
        ensure!(fast != slow, "node {fast} cannot be both fast and slow");
        Ok(Nodes {
            fast: fast as i32,
            slow: slow as i32,
        })
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
    fn lists_of_nodes() {
        assert_eq!(numbers("0-1,4\n"), [0, 1, 4]);
        assert_eq!(numbers("0\n"), [0]);
        assert!(numbers("\n").is_empty());
    }
}
