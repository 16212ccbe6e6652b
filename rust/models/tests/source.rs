// SPDX-License-Identifier: GPL-2.0

//! What is told in a model is what the source says.

use std::env;
use std::fs;
use std::path::Path;

/// Each line of C that the model quotes is there.
#[test]
fn the_source_is_as_quoted() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let linux = env::var_os("KVMSCOPE_LINUX").map_or(here.join("../../build/linux"), Into::into);
    let kvm = linux.join("arch/x86/kvm");
    let source: String = ["kvm_scope_wss.h", "kvm_scope_wss.c", "vmx/vmx.c"]
        .iter()
        .map(|file| fs::read_to_string(kvm.join(file)).expect("scripts/apply lays it out"))
        .collect();
    let source: Vec<&str> = source.lines().map(str::trim).collect();
    let model = fs::read_to_string(here.join("src/log.rs")).unwrap();
    let quoted = model
        .lines()
        .filter_map(|line| line.split_once("// C: ").or(line.split_once("/// C: ")));
    let mut number = 0;
    for (_, line) in quoted {
        assert!(source.contains(&line), "no longer in the source: {line}");
        number += 1;
    }
    assert!(number > 20, "{number} lines");
}
