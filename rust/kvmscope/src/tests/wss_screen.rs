// SPDX-License-Identifier: GPL-2.0

//! Working sets on a screen, key by key.

use std::time::Duration;

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;

use crate::screen::draw::Palette;
use crate::wss::recording::Reader;
use crate::wss::screen::{draw, Action, App};

const RUN: &[u8] = include_bytes!("../../tests/data/run.wss");

fn app() -> App {
    let mut app = App::new(Duration::from_secs(10));
    app.vms = 2;
    let mut reader = Reader::new(RUN).unwrap();
    while let Some(period) = reader.read().unwrap() {
        app.take(&period);
    }
    app
}

fn write(app: &mut App, text: &str) -> Action {
    let mut action = Action::None;
    for c in text.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            c => KeyCode::Char(c),
        };
        action = app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    action
}

fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, app, &Palette::new(true)))
        .unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| row(y).trim_end().to_string()).collect()
}

#[test]
fn the_table() {
    assert_eq!(
        screen(&mut app(), 110, 6),
        [
            "kvmscope  working sets  2 VMs  periods of 10s  last period  by VM",
            "VM      Name         Period  Written  MiB  Tables  Read set  MiB  Lost  Entries  Full     Spent",
            "812-11  web              12     1531  6.0      40      2381  9.3     0     8853     1  720.24us",
            "900-4   guest storm       8      192  0.8       0       192  0.8     0      960     0   84.80us",
            "",
            "h help  g VM  p PID  c clear  o sort  i percentiles  r zero  s seconds  q quit",
        ]
    );
    // The least important go first.
    assert_eq!(
        screen(&mut app(), 50, 6)[1],
        "VM      Name         Written  MiB  Read set  MiB"
    );
}

#[test]
fn percentiles_since_zero() {
    let mut app = app();
    write(&mut app, "i");
    let lines = screen(&mut app, 100, 12);
    assert!(lines[0].ends_with("20 periods in all"), "{}", lines[0]);
    assert!(lines[1].starts_with("VM      Name         Working set      Periods"));
    assert_eq!(lines.iter().filter(|line| line.contains("MiB")).count(), 4);
    write(&mut app, "r");
    assert_eq!(screen(&mut app, 100, 12)[2], "");
}

#[test]
fn filters_and_order() {
    let mut app = app();
    write(&mut app, "gguest storm\n");
    let lines = screen(&mut app, 110, 8);
    assert_eq!(lines[1], "only VM \"guest storm\"");
    assert!(lines[3].starts_with("900-4") && lines[4].is_empty());
    // By process, too, and both must match.
    write(&mut app, "p810\n");
    assert_eq!(screen(&mut app, 110, 8)[3], "");
    write(&mut app, "g\n");
    assert!(screen(&mut app, 110, 8)[3].starts_with("812-11"));
    write(&mut app, "px\n");
    assert!(screen(&mut app, 110, 8)[7].contains("\"x\" is no number"));
    app.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
    write(&mut app, "cooo");
    let lines = screen(&mut app, 110, 8);
    assert!(
        lines[0].ends_with("by name") && lines[2].starts_with("900-4"),
        "{lines:?}"
    );
}

#[test]
fn pace_and_leave() {
    let mut app = app();
    assert_eq!(write(&mut app, "s0.5\n"), Action::Period(500));
    write(&mut app, "s0\n");
    assert!(screen(&mut app, 100, 8)[7].contains("not a number of seconds from 0.01 to 3600"));
    // While something is being typed, letters are letters.
    assert_eq!(write(&mut app, "q"), Action::None);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(interrupt), Action::Quit);
    app.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
    app.remark = Some("900-4 has\nended".to_string());
    assert_eq!(screen(&mut app, 80, 8)[7], "900-4 has ended");
    assert_eq!(write(&mut app, "h"), Action::None);
    assert!(screen(&mut app, 80, 20)[0].starts_with("g          filter by VM"));
    assert_eq!(write(&mut app, "q"), Action::None);
    assert_eq!(write(&mut app, "q"), Action::Quit);
}

#[test]
fn any_size_and_any_key() {
    for width in (0..100).step_by(3) {
        for height in 0..12 {
            let mut app = app();
            for keys in ["", "i", "gx\n", "h"] {
                write(&mut app, keys);
                screen(&mut app, width, height);
            }
        }
    }
    let mut app = app();
    for c in ' '..='~' {
        write(&mut app, &c.to_string());
        app.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        screen(&mut app, 80, 8);
    }
    let none = screen(&mut App::new(Duration::from_secs(1)), 80, 5);
    assert!(
        none[0].ends_with("the first period is not over"),
        "{none:?}"
    );
}
