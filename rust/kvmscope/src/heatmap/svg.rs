// SPDX-License-Identifier: GPL-2.0

//! SVG: whoever shows it has the letters.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use crate::heatmap::canvas::{Anchor, Canvas, Rect};
use crate::heatmap::color::Color;

pub struct Svg {
    size: (u32, u32),
    text: String,
}

impl Svg {
    pub fn new(width: u32, height: u32) -> Svg {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" shape-rendering=\"crispEdges\" \
             font-family=\"monospace\">\n"
        );
        Svg {
            size: (width, height),
            text,
        }
    }
}

impl Canvas for Svg {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    /// A path for each colour, which takes a third of what rectangles do.
    fn fill(&mut self, rects: &[(Rect, Color)]) {
        let mut paths: BTreeMap<Color, String> = BTreeMap::new();
        for (rect, color) in rects {
            let Rect {
                x,
                y,
                width,
                height,
            } = rect;
            let path = paths.entry(*color).or_default();
            // Writing to a string does not fail.
            let _ = write!(path, "M{x} {y}h{width}v{height}h-{width}z");
        }
        for (color, path) in paths {
            let _ = writeln!(self.text, "<path fill=\"{}\" d=\"{path}\"/>", hex(color));
        }
    }

    fn text(&mut self, x: u32, y: u32, anchor: Anchor, text: &str, color: Color) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // Letters of monospace fonts are 0.6 as wide as the font is high.
        let size = self.advance() * 10 / 6;
        let _ = writeln!(
            self.text,
            "<text x=\"{x}\" y=\"{}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{}\">{}</text>",
            y + size / 3,
            hex(color),
            escape(text)
        );
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.text.push_str("</svg>\n");
        Ok(self.text.into_bytes())
    }
}

fn hex(Color(r, g, b): Color) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A guest may be named anything.
fn escape(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // XML has no way to write these.
            '\u{fffe}' | '\u{ffff}' => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}
