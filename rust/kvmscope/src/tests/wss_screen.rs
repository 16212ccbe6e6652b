// SPDX-License-Identifier: GPL-2.0

//! Working sets on a screen, key by key.

use std::time::Duration;

use ratatui::crossterm::event::KeyCode;

use crate::screen::live::{Action, Live};
use crate::tests::keys::{self, interrupt, press, screen, write};
use crate::wss::recording::Reader;
use crate::wss::screen::App;

const RUN: &[u8] = include_bytes!("../../tests/data/run.wss");

fn app() -> Live<App> {
    let mut app = App::new(Duration::from_secs(10));
    app.vms = 2;
    let mut reader = Reader::new(RUN).unwrap();
    while let Some(period) = reader.read().unwrap() {
        app.take(&period);
    }
    Live::new(app)
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
    press(&mut app, KeyCode::Esc);
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
    assert_eq!(write(&mut app, "s0.5\n"), Action::Refresh);
    assert_eq!(app.show.wanted_ms, Some(500));
    write(&mut app, "s0\n");
    assert!(screen(&mut app, 100, 8)[7].contains("not a number of seconds from 0.01 to 3600"));
    // While something is being typed, letters are letters.
    assert_eq!(write(&mut app, "q"), Action::None);
    assert_eq!(interrupt(&mut app), Action::Quit);
    press(&mut app, KeyCode::Esc);
    app.show.remark = Some("900-4 has\nended".to_string());
    assert_eq!(screen(&mut app, 80, 8)[7], "900-4 has ended");
    assert_eq!(write(&mut app, "h"), Action::None);
    assert!(screen(&mut app, 80, 20)[0].starts_with("g          filter by VM"));
    assert_eq!(write(&mut app, "q"), Action::None);
    assert_eq!(write(&mut app, "q"), Action::Quit);
}

#[test]
fn any_size_and_any_key() {
    keys::any_size_and_any_key(app, &["", "i", "gx\n", "h"]);
    let none = screen(&mut Live::new(App::new(Duration::from_secs(1))), 80, 5);
    assert!(
        none[0].ends_with("the first period is not over"),
        "{none:?}"
    );
}
