// SPDX-License-Identifier: GPL-2.0

//! The results as bars: of the boots, and of each thing that was measured of the
//! workloads.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Once;

use anyhow::{anyhow, Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{register_font, FontStyle};

use crate::results::{Results, Run};

const SIZE: (u32, u32) = (1400, 1000);
/// Reasons that most exits have; the others would be too short to see.
const REASONS: usize = 10;
/// Colours that those who see fewer of them can tell apart as well (Okabe, Ito).
pub const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
/// What all text is in.
pub const FONT: &str = "sans-serif";

/// A figure in a SVG file, whose reader has fonts.
pub fn svg(results: &Results, path: &Path) -> Result<()> {
    draw(SVGBackend::new(path, SIZE).into_drawing_area(), results)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The same in a PNG file.
pub fn png(results: &Results, path: &Path) -> Result<()> {
    draw(BitMapBackend::new(path, SIZE).into_drawing_area(), results)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Some bars for each of some things.
struct Bars {
    title: String,
    things: Vec<String>,
    series: Vec<(String, Vec<f64>)>,
    /// The first one's colour.
    colour: usize,
    /// How to write a value.
    write: fn(f64) -> String,
}

/// Plotters' errors hold what a thread may not send.
pub fn plain(error: impl Debug) -> anyhow::Error {
    anyhow!("{error:?}")
}

/// Sees to it that there is one; it also measures the text of a SVG.
pub fn font() {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, results: &Results) -> Result<()> {
    font();
    area.fill(&WHITE).map_err(plain)?;
    let title = format!(
        "Exits of a Linux guest, and what they cost: Linux {}, {}, engine {}",
        results.kernel, results.isa, results.engine
    );
    let area = area.titled(&title, (FONT, 20)).map_err(plain)?;
    let panels = area.split_evenly((2, 2));
    let runs = |title: &str, places: usize, value: fn(&Run) -> f64, write| {
        of_runs(results, title, places, value, write)
    };
    let all = [
        of_boots(results),
        runs(
            "seconds, by the clock where it ran",
            0,
            |run| run.seconds,
            |x| format!("{x:.2}"),
        ),
        runs(
            "exits per second",
            1,
            |run| run.exits_per_s,
            |x| format!("{x:.0}"),
        ),
        runs(
            "per cent of the time that KVM spent in exits",
            1,
            |run| run.lost_percent,
            |x| format!("{x:.1}"),
        ),
    ];
    for (panel, bars) in panels.iter().zip(&all) {
        bars.draw(&panel.margin(10, 10, 10, 10))?;
    }
    area.present().map_err(plain)
}

fn of_boots(results: &Results) -> Bars {
    let first = &results.boots[0].reasons;
    let mut reasons: Vec<_> = first.iter().collect();
    reasons.sort_by_key(|(reason, cost)| (-cost.exits, reason.to_string()));
    reasons.truncate(REASONS);
    let things: Vec<_> = reasons
        .iter()
        .map(|(reason, _)| reason.to_string())
        .collect();
    let series = ["first", "second"]
        .into_iter()
        .zip(&results.boots)
        .map(|(name, boot)| {
            let exits = |reason| boot.reasons.get(reason).map_or(0, |cost| cost.exits);
            let values = things.iter().map(|reason| exits(reason) as f64).collect();
            (name.to_string(), values)
        })
        .collect();
    Bars {
        title: "exits while booting and powering off, twice".into(),
        things,
        series,
        colour: 0,
        write: |x| format!("{x:.0}"),
    }
}

/// A bar for each run but the first `from`.
fn of_runs(
    results: &Results,
    title: &str,
    from: usize,
    value: fn(&Run) -> f64,
    write: fn(f64) -> String,
) -> Bars {
    let runs = &results.workloads[0].runs;
    let series = (from..runs.len())
        .map(|index| {
            let name = format!(
                "{} {}",
                runs[index].place,
                runs[index].guest.replace('-', "")
            );
            let values = results
                .workloads
                .iter()
                .map(|work| value(&work.runs[index]));
            (name, values.collect())
        })
        .collect();
    Bars {
        title: title.into(),
        things: results
            .workloads
            .iter()
            .map(|work| work.name.clone())
            .collect(),
        series,
        colour: from,
        write,
    }
}

impl Bars {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()> {
        let most = self
            .series
            .iter()
            .flat_map(|(_, values)| values)
            .fold(0.0, |most: f64, &value| most.max(value));
        let count = self.things.len();
        // The things from the top down, and as much of the chart's height for the
        // legend below them as it takes.
        let height = f64::from(area.dim_in_pixel().1) - 60.0;
        let legend = 30.0 + 18.0 * self.series.len() as f64;
        let rows = count as f64 * height / (height - legend);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 17))
            .x_label_area_size(30)
            .y_label_area_size(180)
            .build_cartesian_2d(0.0..(most * 1.15).max(1e-9), rows..0.0)
            .map_err(plain)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(0)
            .x_labels(6)
            .x_label_formatter(&|x| (self.write)(*x))
            .label_style((FONT, 13))
            .draw()
            .map_err(plain)?;

        let left = TextStyle::from((FONT, 13)).pos(Pos::new(HPos::Right, VPos::Center));
        let right = TextStyle::from((FONT, 12)).pos(Pos::new(HPos::Left, VPos::Center));
        let (origin_x, origin_y) = area.get_base_pixel();
        let write_at = |text: &str, style: &TextStyle, (x, y): (i32, i32), shift: i32| {
            area.draw_text(text, style, (x - origin_x + shift, y - origin_y))
                .map_err(plain)
        };
        for (index, thing) in self.things.iter().enumerate() {
            let middle = chart.backend_coord(&(0.0, index as f64 + 0.5));
            write_at(thing, &left, middle, -6)?;
        }
        let height = 0.8 / self.series.len() as f64;
        for (number, (name, values)) in self.series.iter().enumerate() {
            let colour = COLOURS[(number + self.colour) % COLOURS.len()];
            let top = |index: usize| index as f64 + 0.1 + number as f64 * height;
            chart
                .draw_series(values.iter().enumerate().map(|(index, &value)| {
                    let corners = [(0.0, top(index)), (value, top(index) + height)];
                    Rectangle::new(corners, colour.filled())
                }))
                .map_err(plain)?
                .label(name.as_str())
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
                });
            for (index, &value) in values.iter().enumerate() {
                let end = chart.backend_coord(&(value, top(index) + height / 2.0));
                write_at(&(self.write)(value), &right, end, 4)?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()
            .map_err(plain)
    }
}
