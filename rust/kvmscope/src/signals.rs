// SPDX-License-Identifier: GPL-2.0

//! Being asked to stop: Ctrl-C or Ctrl-\, kill, the terminal hung up. Nothing ends on
//! the spot, so that what was switched on can be switched off again.

use std::fmt;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Sends what `event` makes of each signal from now on.
pub fn forward<E: Send + 'static>(sender: Sender<E>, event: fn(i32) -> E) -> Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM, SIGQUIT];
    // nohup means it. Not so of SIGINT, which a script's shell ignores for all that it
    // starts in the background.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).context("signals cannot be caught")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(event(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: All zeroes is a valid sigaction: integers and an optional pointer.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: A null action changes nothing, and `action` is one to be written to.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

pub struct Stop(Receiver<i32>);

impl Stop {
    pub fn install() -> Result<Stop> {
        let (sender, receiver) = channel();
        forward(sender, |signal| signal)?;
        Ok(Stop(receiver))
    }

    /// Sleeps until `when`, or until asked to stop.
    pub fn wait_until(&self, when: Instant) -> Result<(), Interrupted> {
        self.wait(when.saturating_duration_since(Instant::now()))
    }

    /// Sleeps for so long, or until asked to stop.
    pub fn wait(&self, time: Duration) -> Result<(), Interrupted> {
        match self.0.recv_timeout(time) {
            Ok(signal) => Err(Interrupted(signal)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    /// Sleeps until asked to stop.
    pub fn wait_for_signal(&self) {
        let _ = self.0.recv();
    }
}

/// The signal that ended what was not yet done.
#[derive(Debug)]
pub struct Interrupted(pub i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}
