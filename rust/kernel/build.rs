// SPDX-License-Identifier: GPL-2.0

//! Generates the tables of exit reasons, with the script that kbuild uses, from
//! the kernel source that `scripts/apply` lays out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let linux = env::var_os("KVMSCOPE_LINUX")
        .map_or_else(|| PathBuf::from("../../build/linux"), PathBuf::from);
    let include = linux.join("arch/x86/include");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let bindgen = env::var_os("BINDGEN").unwrap_or_else(|| "bindgen".into());

    println!("cargo::rerun-if-env-changed=KVMSCOPE_LINUX");
    println!("cargo::rerun-if-changed=reasons.sh");
    for header in ["uapi/asm/vmx.h", "uapi/asm/svm.h", "asm/trapnr.h"] {
        let header = include.join(header);
        assert!(
            header.exists(),
            "{} is missing: run scripts/apply first",
            header.display()
        );
        println!("cargo::rerun-if-changed={}", header.display());
    }

    let tables = Command::new("sh")
        .arg("reasons.sh")
        .arg(bindgen)
        .arg(&include)
        .output()
        .expect("sh runs");
    assert!(
        tables.status.success(),
        "reasons.sh: {}",
        String::from_utf8_lossy(&tables.stderr)
    );
    fs::write(Path::new(&out).join("reasons_generated.rs"), tables.stdout)
        .expect("OUT_DIR is writable");

    println!("cargo::rustc-env=KVM_SCOPE_GENERATED={out}");
    println!("cargo::rustc-env=KVM_SCOPE_INCLUDE={}", include.display());
    println!("cargo::rustc-check-cfg=cfg(CONFIG_KVM_SCOPE, CONFIG_KVM_SCOPE_SAMPLE, CONFIG_KVM_SCOPE_WSS)");
}
