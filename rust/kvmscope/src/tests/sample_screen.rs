// SPDX-License-Identifier: GPL-2.0

//! Heat on a screen, key by key.

use std::time::Duration;

use crate::recording::{Reader, SAMPLES};
use crate::sample::columns::Order;
use crate::sample::heat::HeatMap;
use crate::sample::recording::{read_begin, Line};
use crate::sample::screen::App;
use crate::sample::wanted::Wanted;
use crate::screen::live::{Action, Live};
use crate::tests::keys::{self, interrupt, screen, write};

const RUN: &[u8] = include_bytes!("../../tests/data/run.sample");

fn app() -> Live<App> {
    let mut reader = Reader::new(RUN, &SAMPLES).unwrap();
    read_begin(&mut reader).unwrap();
    let heat = HeatMap::new(Duration::from_secs(10), 4096);
    let name = "812-11 (web)".to_string();
    let mut app = App::new(name, Wanted::default(), Order::Heat, heat);
    while let Some(line) = reader.read().unwrap() {
        match line {
            Line::Sample(sample) => app.take(&sample),
            Line::End(end) => (app.counts, app.now_ns) = (end.counts, end.end_ns),
            _ => {}
        }
    }
    Live::new(app)
}

#[test]
fn the_table() {
    assert_eq!(
        screen(&mut app(), 110, 8),
        [
            "kvmscope  812-11 (web)  8 regions of 16 MiB  half-life 10s  by heat  400 samples  3 lost  100/s",
            "      GPA    Size   Heat   Heat%  Samples  Reads  Writes  Fetches  Tables      Idle",
            "0x4000000  16 MiB  150.2  42.81%      161     46     115        0       0    2.00ms",
            "0x2000000  16 MiB  122.4  34.88%      149     54      95        0       0     1.64s",
            "0x1000000  16 MiB   63.7  18.16%       73      9      24       40      24   11.92ms",
            "0x5000000  16 MiB    4.3   1.22%        5      5       0        0       0  180.98ms",
            "0x6000000  16 MiB    4.3   1.21%        5      5       0        0       0     1.84s",
            "h help  o sort  l half-life  r zero  s seconds  q quit",
        ]
    );
    assert_eq!(
        screen(&mut app(), 40, 8)[1],
        "      GPA   Heat   Heat%  Samples  Reads"
    );
}

/// As time goes on without samples, everything cools down and keeps its share.
#[test]
fn cooling() {
    let mut app = app();
    app.show.now_ns += 10_000_000_000;
    let row = screen(&mut app, 110, 8)[2].clone();
    assert!(
        row.starts_with("0x4000000  16 MiB  75.1  42.81%      161"),
        "{row}"
    );
    write(&mut app, "l5\n");
    let lines = screen(&mut app, 110, 8);
    assert!(lines[0].contains("half-life 5s"), "{}", lines[0]);
    assert!(!lines[2].contains(" 75.1 "), "{}", lines[2]);
}

#[test]
fn keys_and_leave() {
    let mut app = app();
    write(&mut app, "o");
    let lines = screen(&mut app, 110, 11);
    assert!(lines[0].contains("by address") && lines[2].trim().starts_with("0x0 "));
    write(&mut app, "o");
    assert!(screen(&mut app, 110, 8)[0].contains("by samples"));
    assert_eq!(write(&mut app, "s0.2\n"), Action::Refresh);
    assert_eq!(app.show.redraw, Duration::from_millis(200));
    write(&mut app, "l0\n");
    assert!(screen(&mut app, 110, 8)[7].contains("not a number of seconds"));
    assert_eq!(interrupt(&mut app), Action::Quit);
    keys::press(&mut app, ratatui::crossterm::event::KeyCode::Esc);
    write(&mut app, "r");
    let lines = screen(&mut app, 110, 8);
    assert!(lines[0].contains("0 regions") && lines[2].is_empty());
    assert_eq!(write(&mut app, "q"), Action::Quit);
}

#[test]
fn any_size_and_any_key() {
    keys::any_size_and_any_key(app, &["", "o", "lx\n", "h"]);
}
