// SPDX-License-Identifier: GPL-2.0

//! Running the command against a machine made of files.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub fn kvmscope(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmscope"));
    command.arg("--root").arg(root);
    command
}

pub fn run(root: &Path, args: &[&str]) -> Output {
    kvmscope(root).args(args).output().expect("kvmscope runs")
}

#[allow(dead_code, reason = "not all tests have use for it")]
pub fn stdout(root: &Path, args: &[&str]) -> String {
    let output = run(root, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What it said when it failed, as it should: in one line.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn failure(root: &Path, args: &[&str]) -> String {
    let output = run(root, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(said.lines().count(), 1, "{said}");
    said.trim_end().to_string()
}

/// What the command line must not be.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn are_no_words(cases: &[&[&str]]) {
    for args in cases {
        let output = run(&data("host"), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stderr.starts_with(b"error: "), "{args:?}");
    }
}

/// Where nothing can be written.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn full() -> Stdio {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    Stdio::from(full.expect("it is there"))
}

/// Fails when its standard output is full, and says so.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn fails_when_full(root: &Path, args: &[&str]) {
    let output = kvmscope(root).args(args).stdout(full()).output();
    let output = output.expect("kvmscope runs");
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left"), "{args:?}: {said}");
}

/// Ends as by SIGPIPE, without a word, when nobody reads on after the first line,
/// which is returned.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn read_a_line(root: &Path, args: &[&str]) -> String {
    let child = kvmscope(root)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("kvmscope runs");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut head = String::new();
    reader.read_line(&mut head).expect("a head");
    drop(reader);
    let output = child.wait_with_output().expect("it ended");
    assert_eq!(output.status.code(), Some(141), "as of SIGPIPE: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    head
}

#[allow(dead_code, reason = "not all tests have use for it")]
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let kill = Command::new("kill").args([name, &pid]).status();
    assert!(kill.expect("kill runs").success());
}

#[allow(dead_code, reason = "not all tests have use for it")]
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{what} did not happen");
}

/// At once, as what is read from the kernel is of one piece.
#[allow(dead_code, reason = "not all tests have use for it")]
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(new, path)
}

/// A copy of a machine, to be changed; gone when dropped.
pub struct Machine(PathBuf);

#[allow(dead_code, reason = "not all tests have use for it")]
impl Machine {
    pub fn copy(name: &str) -> Machine {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&root);
        copy(&data("host"), &root).expect("copied");
        Machine(root)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).expect("written");
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).expect("read")
    }

    pub fn remove(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).expect("removed");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
