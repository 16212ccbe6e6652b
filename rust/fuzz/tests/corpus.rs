// SPDX-License-Identifier: GPL-2.0

//! Every input that was worth keeping, once more, without a fuzzer: what it found
//! stays mended.

use std::fs;
use std::path::Path;

#[test]
fn nothing_is_wrong_with_any_of_them() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (kind, take) in fuzz::kinds() {
        let directory = corpus.join(kind);
        let files =
            fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let mut taken = 0;
        for file in files {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            take(&fs::read(&path).expect("it can be read"));
            taken += 1;
        }
        assert!(taken > 0, "{} is empty", directory.display());
    }
}
