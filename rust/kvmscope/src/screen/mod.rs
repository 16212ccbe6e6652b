// SPDX-License-Identifier: GPL-2.0

//! The terminal, on which a `live` table is drawn (`draw`) and asks (`prompt`).

pub mod draw;
pub mod live;
pub mod prompt;

use std::env;
use std::fs::File;
use std::io::{self, stdin, stdout, IsTerminal};
use std::mem::ManuallyDrop;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{size, EnterAlternateScreen};
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, TerminalOptions, Viewport};

use crate::signals;
use draw::{draw, Palette};
use live::{Action, Live, Show};

enum Event {
    Input(event::Event),
    /// The terminal gives no more input.
    Deaf(io::Error),
    Signal,
}

/// What came of a refresh.
pub enum Refreshed {
    Same,
    Changed,
    /// There is nothing more to show.
    Over,
}

/// Shows a table until the user quits, a signal comes, or it is over. `refresh` is
/// called at its pace, and when the user asks for it. Returns what was shown last.
pub fn run<S: Show>(
    mut live: Live<S>,
    mut refresh: impl FnMut(&mut S) -> Result<Refreshed>,
) -> Result<S> {
    let (sender, events) = channel();
    let mut screen = Screen::take(sender)?;
    let palette = Palette::new(colors_wanted());
    let mut last = Instant::now();
    let mut changed = true;
    loop {
        if changed {
            let drawn = screen.0.draw(|frame| draw(frame, &mut live, &palette));
            drawn.context("cannot draw on the terminal")?;
        }
        changed = true;
        let next = last + live.show.pace();
        let action = match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Event::Input(event::Event::Key(key))) if key.kind != KeyEventKind::Release => {
                live.key(key)
            }
            // A new size: drawn anew.
            Ok(Event::Input(_)) => Action::None,
            Ok(Event::Deaf(error)) => return Err(error).context("cannot read the terminal"),
            Ok(Event::Signal) | Err(RecvTimeoutError::Disconnected) => Action::Quit,
            Err(RecvTimeoutError::Timeout) => {
                // Nothing may have come of it.
                changed = false;
                Action::Refresh
            }
        };
        match action {
            Action::None => {}
            Action::Quit => return Ok(live.show),
            Action::Refresh => {
                last = Instant::now();
                match refresh(&mut live.show)? {
                    Refreshed::Same => {}
                    Refreshed::Changed => changed = true,
                    Refreshed::Over => return Ok(live.show),
                }
            }
        }
    }
}

fn listen(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event) => Event::Input(event),
            Err(error) => return drop(events.send(Event::Deaf(error))),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Whether standard output can be drawn on.
pub fn is_drawable() -> bool {
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    stdout().is_terminal() && !dumb
}

/// Whether there are keys as well.
pub fn is_possible() -> bool {
    // What reads them takes the terminal of the session if it must.
    is_drawable() && (stdin().is_terminal() || File::open("/dev/tty").is_ok())
}

pub fn colors_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn take_fixed(area: Rect) -> io::Result<DefaultTerminal> {
    let viewport = Viewport::Fixed(area);
    let terminal = ratatui::try_init_with_options(TerminalOptions { viewport })?;
    execute!(stdout(), EnterAlternateScreen)?;
    Ok(terminal)
}

/// The terminal, which is given back when dropped.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    /// From now on, keys and signals are events.
    fn take(events: Sender<Event>) -> Result<Screen> {
        signals::forward(events.clone(), |_| Event::Signal)?;
        let taken = match size() {
            // A serial line does not know; this is what they all can.
            Ok((0, _) | (_, 0)) => take_fixed(Rect::new(0, 0, 80, 24)),
            _ => ratatui::try_init(),
        };
        match taken {
            Ok(terminal) => {
                thread::spawn(move || listen(&events));
                Ok(Screen(ManuallyDrop::new(terminal)))
            }
            Err(error) => {
                // It may have been half taken.
                let _ = ratatui::try_restore();
                Err(error).context("cannot use the terminal")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // ratatui's own way prints its errors, and panics where the terminal that
        // it would print to is what has gone.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
