// SPDX-License-Identifier: GPL-2.0

//! Driven by libFuzzer, takes the kind of input that KVMSCOPE_FUZZ names. Without
//! it, `fuzz KIND FILE...` plays files back, and `fuzz` says which kinds there are.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod driven {
    use std::sync::OnceLock;

    fn take() -> fuzz::Take {
        static TAKE: OnceLock<fuzz::Take> = OnceLock::new();
        *TAKE.get_or_init(|| {
            let name = std::env::var("KVMSCOPE_FUZZ").expect("KVMSCOPE_FUZZ names a kind");
            fuzz::kind(&name).expect("there is such a kind")
        })
    }

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| take()(bytes));
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        fuzz::kinds().for_each(|(name, _)| println!("{name}"));
        return std::process::ExitCode::SUCCESS;
    };
    let Some(take) = fuzz::kind(&name) else {
        eprintln!("fuzz: there is no kind {name}: run it without one for a list");
        return std::process::ExitCode::from(2);
    };
    for file in words {
        match std::fs::read(&file) {
            Ok(bytes) => take(&bytes),
            Err(error) => {
                eprintln!("fuzz: cannot read {file}: {error}");
                return std::process::ExitCode::from(2);
            }
        }
        println!("{file}: nothing wrong");
    }
    std::process::ExitCode::SUCCESS
}
