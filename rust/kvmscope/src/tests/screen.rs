// SPDX-License-Identifier: GPL-2.0

//! The live table, key by key, on terminals of all sizes.

use clap::Parser;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;
use ratatui::Terminal;

use crate::cli::{Cli, Command};
use crate::interval::Interval;
use crate::screen::draw::{draw, Palette};
use crate::screen::live::{Action, Live};
use crate::stat::screen::App;
use crate::tests::keys::{self, interrupt, press, screen, write};
use crate::tests::views::interval;

fn app() -> Live<App> {
    let Command::Stat(args) = Cli::parse_from(["kvmscope", "stat"]).command else {
        unreachable!()
    };
    let mut app = App::new(&args);
    app.start(&interval());
    app.advance(interval());
    Live::new(app)
}

#[test]
fn the_table() {
    assert_eq!(
        screen(&mut app(), 80, 8),
        [
            "kvmscope  VMX  2 VMs  3 vCPUs  latency off  by count  every 1s  2.00s in all",
            "No  VM-EXIT        Samples  Samples%  Rate/s",
            "10  CPUID               55    63.22%      28",
            "12  HLT                 25    28.74%      12",
            "48  EPT_VIOLATION        7     8.05%     3.5",
            "    TOTAL               87   100.00%      44",
            "",
            "h help  b by  f exits  g VM  p PID  o sort  i latest  r zero  s seconds  q quit",
        ]
    );
}

#[test]
fn totals_run_on_and_rates_are_the_latest() {
    let mut app = app();
    let mut quiet = interval().emptied();
    quiet.elapsed_ns = 1_000_000_000;
    app.show.advance(quiet);
    let row = |app: &mut Live<App>| screen(app, 80, 8)[2].clone();
    assert_eq!(
        row(&mut app),
        "10  CPUID               55    63.22%       0"
    );
    app.show.advance(interval());
    assert_eq!(
        row(&mut app),
        "10  CPUID              110    63.22%      28"
    );
    press(&mut app, KeyCode::Char('i'));
    assert_eq!(
        row(&mut app),
        "10  CPUID               55    63.22%      28"
    );
    press(&mut app, KeyCode::Char('i'));
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(row(&mut app), "    TOTAL          0         -      44");
    app.show.advance(interval());
    assert_eq!(
        row(&mut app),
        "10  CPUID               55    63.22%      28"
    );
}

#[test]
fn by_vm_and_vcpu() {
    let mut app = app();
    press(&mut app, KeyCode::Char('b'));
    let lines = screen(&mut app, 80, 9);
    assert_eq!(lines[1], "VM       Name  Samples  Samples%  Rate/s");
    assert_eq!(lines[2], "812-11   web        63    72.41%      32");
    assert_eq!(lines[4], "(ended)              4     4.60%     2.0");
    press(&mut app, KeyCode::Char('b'));
    assert_eq!(
        screen(&mut app, 80, 9)[2],
        "812-11   web      0       55    63.22%      28"
    );
    write(&mut app, "bb");
    assert_eq!(
        screen(&mut app, 80, 9)[2],
        "10  CPUID               55    63.22%      28"
    );
}

#[test]
fn filters_are_typed() {
    let mut app = app();
    write(&mut app, "f(");
    assert_eq!(
        screen(&mut app, 80, 8)[7],
        "Exits that match (regular expression): ("
    );
    write(&mut app, "\n");
    let wrong = screen(&mut app, 80, 8)[7].clone();
    assert!(wrong.contains("(  not a regular expression"), "{wrong}");
    press(&mut app, KeyCode::Backspace);
    write(&mut app, "hlt\n");
    let lines = screen(&mut app, 80, 8);
    assert_eq!(lines[1], "only exits \"hlt\"");
    assert_eq!(lines[3], "12  HLT           25   100.00%      12");

    write(&mut app, "f\ngnone\n");
    let lines = screen(&mut app, 80, 8);
    assert_eq!(lines[1], "only VM \"none\"");
    assert_eq!(lines[7], "the filter matches no VM now; c clears it");
    write(&mut app, "c");
    assert_eq!(screen(&mut app, 80, 8), screen(&mut self::app(), 80, 8));

    write(&mut app, "p810\nv1\n");
    assert_eq!(screen(&mut app, 80, 8)[1], "only pid 810, vCPU 1");
    write(&mut app, "px\n");
    assert!(screen(&mut app, 80, 8)[7].contains("\"x\" is no number"));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.show.filter.pids, [810]);
    // While something is being typed, letters are letters.
    assert_eq!(write(&mut app, "gq"), Action::None);
    assert_eq!(press(&mut app, KeyCode::Esc), Action::None);
    assert_eq!(press(&mut app, KeyCode::Esc), Action::Quit);
}

#[test]
fn pace_and_leave() {
    let mut app = app();
    assert_eq!(write(&mut app, "s0.5\n"), Action::Refresh);
    assert_eq!(app.show.pace.as_millis(), 500);
    write(&mut app, "s0\n");
    assert!(screen(&mut app, 100, 8)[7].contains("not a number of seconds from 0.1 to 86400"));
    assert_eq!(interrupt(&mut app), Action::Quit);
    press(&mut app, KeyCode::Esc);
    assert_eq!(write(&mut app, " "), Action::Refresh);
    assert_eq!(write(&mut app, "q"), Action::Quit);
    write(&mut app, "h");
    assert!(screen(&mut app, 80, 24)[0].starts_with("b          by reason"));
    assert_eq!(write(&mut app, "q"), Action::None);
}

#[test]
fn scrolling_stays_within_the_table() {
    let mut app = app();
    write(&mut app, "bbb");
    let shown = |app: &mut Live<App>| screen(app, 80, 6)[2].clone();
    let first = shown(&mut app);
    press(&mut app, KeyCode::Down);
    let second = shown(&mut app);
    assert_ne!(first, second);
    press(&mut app, KeyCode::End);
    let last = shown(&mut app);
    press(&mut app, KeyCode::PageDown);
    press(&mut app, KeyCode::Down);
    assert_eq!(shown(&mut app), last);
    press(&mut app, KeyCode::Up);
    assert_ne!(shown(&mut app), last);
    press(&mut app, KeyCode::Home);
    assert_eq!(shown(&mut app), first);
}

#[test]
fn trouble_is_shown_until_it_is_over() {
    let mut app = app();
    app.show.trouble = Some("KVM is\nnot loaded".to_string());
    assert_eq!(screen(&mut app, 80, 8)[7], "KVM is not loaded");
    assert_eq!(
        screen(&mut app, 80, 8)[2],
        "10  CPUID               55    63.22%      28"
    );
    app.show.advance(interval());
    assert!(screen(&mut app, 80, 8)[7].starts_with("h help"));
    app.show.advance(Interval::default());
    assert_eq!(
        screen(&mut app, 80, 8)[7],
        "counting is off: kvmscope exits on"
    );
}

#[test]
fn any_size_and_any_key() {
    keys::any_size_and_any_key(app, &["", "b", "b", "b", "f(\n", "h"]);
}

#[test]
fn colors_only_when_wanted() {
    for color in [true, false] {
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        let palette = Palette::new(color);
        terminal
            .draw(|frame| draw(frame, &mut app(), &palette))
            .unwrap();
        let cells = terminal.backend().buffer().content();
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), color);
    }
}
