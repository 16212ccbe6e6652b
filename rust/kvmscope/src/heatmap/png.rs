// SPDX-License-Identifier: GPL-2.0

//! PNG: pixels, and letters that are pixels, so that no font need be installed.

use anyhow::Result;

use crate::heatmap::canvas::{Anchor, Canvas, Rect};
use crate::heatmap::color::Color;
use crate::heatmap::font::{glyph, HEIGHT, WIDTH};

pub struct Png {
    size: (u32, u32),
    /// Three bytes each, row by row.
    pixels: Vec<u8>,
}

impl Png {
    pub fn new(width: u32, height: u32) -> Png {
        Png {
            size: (width, height),
            pixels: vec![255; width as usize * height as usize * 3],
        }
    }

    /// What is beside the picture is not drawn.
    fn fill_one(&mut self, rect: Rect, Color(r, g, b): Color) {
        let (width, height) = self.size;
        let right = rect.x.saturating_add(rect.width).min(width);
        let bottom = rect.y.saturating_add(rect.height).min(height);
        for y in rect.y.min(bottom)..bottom {
            let at = |x: u32| (y as usize * width as usize + x as usize) * 3;
            for pixel in self.pixels[at(rect.x.min(right))..at(right)].chunks_exact_mut(3) {
                pixel.copy_from_slice(&[r, g, b]);
            }
        }
    }
}

impl Canvas for Png {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn fill(&mut self, rects: &[(Rect, Color)]) {
        for (rect, color) in rects {
            self.fill_one(*rect, *color);
        }
    }

    fn text(&mut self, x: u32, y: u32, anchor: Anchor, text: &str, color: Color) {
        let (zoom, advance) = (self.zoom(), self.advance());
        let width = advance * text.chars().count() as u32;
        let left = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x.saturating_sub(width / 2),
            Anchor::End => x.saturating_sub(width),
        };
        let top = y.saturating_sub(HEIGHT * zoom / 2);
        for (i, c) in (0..).zip(text.chars()) {
            let rows = glyph(c);
            for (row, bits) in (0..).zip(rows) {
                for column in (0..WIDTH).filter(|column| bits & (1 << (WIDTH - 1 - column)) != 0) {
                    let dot = Rect {
                        x: left + i * advance + column * zoom,
                        y: top + row * zoom,
                        width: zoom,
                        height: zoom,
                    };
                    self.fill_one(dot, color);
                }
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.size.0, self.size.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(file)
    }
}
