// SPDX-License-Identifier: GPL-2.0

//! A line that is being typed at the foot of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

pub struct Prompt<F> {
    /// What it is the answer to.
    pub field: F,
    pub text: String,
    /// What is wrong with the answer.
    pub error: Option<String>,
}

pub enum Typed {
    More,
    Never,
    Done(String),
}

impl<F> Prompt<F> {
    pub fn new(field: F) -> Prompt<F> {
        Prompt {
            field,
            text: String::new(),
            error: None,
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Typed::Never,
            KeyCode::Enter => return Typed::Done(self.text.trim().to_string()),
            KeyCode::Backspace => drop(self.text.pop()),
            KeyCode::Char('u') if control => self.text.clear(),
            KeyCode::Char(c) if !control && !c.is_control() && self.text.len() < 200 => {
                self.text.push(c);
                self.error = None;
            }
            _ => {}
        }
        Typed::More
    }
}
