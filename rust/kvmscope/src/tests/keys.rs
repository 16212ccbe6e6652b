// SPDX-License-Identifier: GPL-2.0

//! A terminal for tests of live tables: keys, and what they make of it.

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;

use crate::screen::draw::{draw, Palette};
use crate::screen::live::{Action, Live, Show};

pub fn press<S: Show>(live: &mut Live<S>, code: KeyCode) -> Action {
    live.key(KeyEvent::new(code, KeyModifiers::NONE))
}

pub fn interrupt<S: Show>(live: &mut Live<S>) -> Action {
    live.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))
}

/// What the last key does.
pub fn write<S: Show>(live: &mut Live<S>, text: &str) -> Action {
    let mut action = Action::None;
    for c in text.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            c => KeyCode::Char(c),
        };
        action = press(live, code);
    }
    action
}

pub fn screen<S: Show>(live: &mut Live<S>, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, live, &Palette::new(true)))
        .unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| row(y).trim_end().to_string()).collect()
}

/// Terminals of all sizes after each of these, and every key: nothing panics.
pub fn any_size_and_any_key<S: Show>(new: impl Fn() -> Live<S>, texts: &[&str]) {
    for width in (0..100).step_by(7) {
        for height in 0..12 {
            let mut live = new();
            for text in texts {
                write(&mut live, text);
                let lines = screen(&mut live, width, height);
                if (1..24).contains(&width) && height > 0 {
                    let clipped = &"terminal too small"[..18.min(width.into())];
                    assert_eq!(lines[0], clipped.trim_end());
                }
            }
        }
    }
    let mut live = new();
    for c in ' '..='~' {
        write(&mut live, &c.to_string());
        press(&mut live, KeyCode::Esc);
        screen(&mut live, 80, 8);
    }
}
