// SPDX-License-Identifier: GPL-2.0

//! What all live tables have in common: keys that scroll, ask, explain and quit. What
//! is particular to one is its `Show`. The keys are kvm_stat's, with a few more.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::columns::Column;
use crate::screen::prompt::{Prompt, Typed};

/// A table, and what keys change about it.
pub trait Show {
    /// What can be asked for.
    type Field: Copy;

    /// The keys, in a line.
    const KEYS: &'static str;
    const HELP: &'static str;

    /// Besides the program's name.
    fn title(&self) -> String;

    /// What it is confined to.
    fn filters(&self) -> Vec<String>;

    fn columns(&self) -> Vec<Column>;

    /// Whether the columns' last cells are a total.
    fn has_total(&self) -> bool {
        false
    }

    /// Something to be said about what is shown, instead of the keys.
    fn remark(&self) -> Option<String>;

    /// The user does not want to wait for the next refresh.
    fn hurry(&mut self) {}

    /// Between refreshes.
    fn pace(&self) -> Duration;

    /// A key that is no command to all tables.
    fn key(&mut self, key: char) -> Reaction<Self::Field>;

    fn question(field: Self::Field) -> &'static str;

    /// What was typed; nothing takes away what was typed before.
    fn answer(&mut self, field: Self::Field, text: &str) -> Result<Action, String>;
}

/// What comes of a key.
pub enum Reaction<F> {
    None,
    /// The table has become another.
    Anew,
    Ask(F),
}

/// What the user asks for that is not a matter of display alone.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    None,
    Refresh,
    Quit,
}

pub struct Live<S: Show> {
    pub show: S,
    /// What is being typed.
    pub prompt: Option<Prompt<S::Field>>,
    pub help: bool,
    /// The first line shown.
    pub scroll: usize,
}

impl<S: Show> Live<S> {
    pub fn new(show: S) -> Live<S> {
        Live {
            show,
            prompt: None,
            help: false,
            scroll: 0,
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.prompt.is_some() {
            return self.prompt_key(key);
        }
        if self.help {
            self.help = false;
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Char(' ') => {
                self.show.hurry();
                return Action::Refresh;
            }
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = usize::MAX,
            KeyCode::Char(key) => match self.show.key(key) {
                Reaction::None => {}
                Reaction::Anew => self.scroll = 0,
                Reaction::Ask(field) => self.prompt = Some(Prompt::new(field)),
            },
            _ => {}
        }
        Action::None
    }

    fn prompt_key(&mut self, key: KeyEvent) -> Action {
        let Some(prompt) = &mut self.prompt else {
            return Action::None;
        };
        let field = prompt.field;
        match prompt.key(key) {
            Typed::More => {}
            Typed::Never => self.prompt = None,
            Typed::Done(text) => match self.show.answer(field, &text) {
                Ok(action) => {
                    self.prompt = None;
                    self.scroll = 0;
                    return action;
                }
                Err(error) => {
                    if let Some(prompt) = &mut self.prompt {
                        prompt.error = Some(error);
                    }
                }
            },
        }
        Action::None
    }
}
