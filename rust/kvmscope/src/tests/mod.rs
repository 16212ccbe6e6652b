// SPDX-License-Identifier: GPL-2.0

//! Tests of the logic; those of the whole command are in `tests/`.

mod format;
mod heatmap;
mod keys;
mod recording;
pub mod sample;
mod sample_screen;
mod screen;
mod subtraction;
mod tier;
mod tiering;
mod times;
pub mod views;
mod wss;
mod wss_screen;
