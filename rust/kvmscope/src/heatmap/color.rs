// SPDX-License-Identifier: GPL-2.0

//! The colours of pictures.

use crate::heatmap::heat::{scale, Cell};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Color(pub u8, pub u8, pub u8);

pub const PAPER: Color = Color(255, 255, 255);
pub const INK: Color = Color(40, 40, 40);
pub const LINE: Color = Color(150, 150, 150);
/// Memory that was not touched, and memory that is left out.
pub const COLD: Color = Color(244, 244, 246);
pub const FOLD: Color = Color(255, 255, 255);
pub const UNKNOWN: Color = Color(205, 205, 205);

/// From light to dark, so that they can be told apart without colour, too.
const HOT: [Color; 5] = [
    Color(255, 232, 150),
    Color(253, 180, 80),
    Color(238, 105, 48),
    Color(190, 30, 45),
    Color(85, 0, 40),
];
const TABLES: [Color; 3] = [
    Color(190, 220, 240),
    Color(70, 140, 200),
    Color(10, 50, 110),
];
/// How finely shades are told apart, so that neighbours are often the same.
pub const SHADES: u32 = 48;

pub fn of_cell(cell: &Cell) -> Color {
    match scale(cell.share) {
        _ if cell.unknown => UNKNOWN,
        None => COLD,
        Some(scale) => of_scale(scale, cell.table),
    }
}

pub fn of_scale(scale: f64, table: bool) -> Color {
    let shades = f64::from(SHADES);
    let scale = (scale * shades).round() / shades;
    if table {
        between(&TABLES, scale)
    } else {
        between(&HOT, scale)
    }
}

/// At a place from 0 to 1 between the first and the last.
fn between(colors: &[Color], at: f64) -> Color {
    let at = at * (colors.len() - 1) as f64;
    let left = (at as usize).min(colors.len() - 2);
    let share = at - left as f64;
    let (a, b) = (colors[left], colors[left + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    Color(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
