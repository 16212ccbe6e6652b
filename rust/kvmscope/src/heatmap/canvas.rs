// SPDX-License-Identifier: GPL-2.0

//! What a picture is drawn on.

use anyhow::Result;

use crate::heatmap::color::Color;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Where a text is, of the point that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

pub trait Canvas {
    fn size(&self) -> (u32, u32);

    /// Those of one call do not overlap.
    fn fill(&mut self, rects: &[(Rect, Color)]);

    /// A line of text in letters of one width, `y` being its middle.
    fn text(&mut self, x: u32, y: u32, anchor: Anchor, text: &str, color: Color);

    /// The file.
    fn finish(self) -> Result<Vec<u8>>;

    /// How much larger letters are than the smallest.
    fn zoom(&self) -> u32 {
        if self.size().0 >= 900 {
            2
        } else {
            1
        }
    }

    /// From one letter to the next.
    fn advance(&self) -> u32 {
        6 * self.zoom()
    }
}
