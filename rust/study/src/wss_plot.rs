// SPDX-License-Identifier: GPL-2.0

//! The estimates over time, against the truth: a chart for each pattern.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::types::RangedCoordf64;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::plot::{font, plain, COLOURS, FONT};
use crate::wss::{Pattern, Period, Study};

const SIZE: (u32, u32) = (1400, 520);
const LEGEND: u32 = 40;
const GREY: RGBColor = RGBColor(215, 215, 215);
/// Blue, green, orange, pink.
const ORDER: [usize; 4] = [0, 2, 1, 3];
/// Side by side within a period, so that none hides another.
const BESIDE: [f64; 4] = [-0.27, -0.09, 0.09, 0.27];
const NAMES: [&str; 4] = [
    "written, by PML",
    "written and read",
    "random sampling, with its 95 % interval",
    "idle page tracking",
];

/// A figure in a SVG file, whose reader has fonts.
pub fn svg(study: &Study, path: &Path) -> Result<()> {
    draw(SVGBackend::new(path, SIZE).into_drawing_area(), study)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The same in a PNG file.
pub fn png(study: &Study, path: &Path) -> Result<()> {
    draw(BitMapBackend::new(path, SIZE).into_drawing_area(), study)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn mib(pages: f64) -> f64 {
    pages / 256.0
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, study: &Study) -> Result<()> {
    font();
    area.fill(&WHITE).map_err(plain)?;
    let title = format!(
        "A constant working set, as four estimators see it: Linux {}, {}, engine {}",
        study.kernel, study.isa, study.engine
    );
    let area = area.titled(&title, (FONT, 20)).map_err(plain)?;
    let (charts, legend) = area.split_vertically(area.dim_in_pixel().1 - LEGEND);
    let highest = study
        .patterns
        .iter()
        .flat_map(|pattern| &pattern.periods)
        .map(|period| {
            let sampled = period.sampling.map_or(0.0, |sampling| sampling.high);
            let whole = [period.touched, period.read_set, period.idle, period.written];
            whole
                .into_iter()
                .fold(sampled, |most, value| most.max(value as f64))
        })
        .fold(0.0, f64::max);
    let panels = charts.split_evenly((1, study.patterns.len()));
    for (panel, pattern) in panels.iter().zip(&study.patterns) {
        let panel = panel.margin(5, 5, 10, 10);
        of_pattern(&panel, pattern, mib(highest) * 1.05, study.period_ms)?;
    }
    explain(&legend)?;
    area.present().map_err(plain)
}

/// Draws the sign of estimator `number`.
fn sign<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    number: usize,
    at: (i32, i32),
) -> Result<()> {
    let colour = COLOURS[ORDER[number]];
    match number {
        0 => area.draw(&Circle::new(at, 4, colour.filled())),
        1 => area.draw(&TriangleMarker::new(at, 6, colour.stroke_width(2))),
        2 => area.draw(&Circle::new(at, 4, colour.stroke_width(2))),
        _ => area.draw(&Cross::new(at, 4, colour.stroke_width(2))),
    }
    .map_err(plain)
}

fn of_pattern<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    pattern: &Pattern,
    highest: f64,
    period_ms: u64,
) -> Result<()> {
    let count = pattern.periods.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(&pattern.name, (FONT, 17))
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.5..count + 0.5, 0.0..highest)
        .map_err(plain)?;
    let bars = pattern.periods.iter().map(|period| {
        let middle = period.period as f64;
        let corners = [
            (middle - 0.5, 0.0),
            (middle + 0.5, mib(period.touched as f64)),
        ];
        Rectangle::new(corners, GREY.filled())
    });
    chart.draw_series(bars).map_err(plain)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(pattern.periods.len())
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_desc(format!("period of {period_ms} ms"))
        .y_desc("MiB")
        .label_style((FONT, 13))
        .draw()
        .map_err(plain)?;
    intervals(&mut chart, pattern)?;
    let values: [fn(&Period) -> Option<f64>; 4] = [
        |period| Some(period.written as f64),
        |period| Some(period.read_set as f64),
        |period| period.sampling.map(|sampling| sampling.estimate),
        |period| Some(period.idle as f64),
    ];
    let (origin_x, origin_y) = area.get_base_pixel();
    for (number, value) in values.into_iter().enumerate() {
        for period in &pattern.periods {
            if let Some(pages) = value(period) {
                let x = period.period as f64 + BESIDE[number];
                let (x, y) = chart.backend_coord(&(x, mib(pages)));
                sign(area, number, (x - origin_x, y - origin_y))?;
            }
        }
    }
    Ok(())
}

fn intervals<B: DrawingBackend>(
    chart: &mut ChartContext<B, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    pattern: &Pattern,
) -> Result<()> {
    let lines = pattern.periods.iter().filter_map(|period| {
        let (sampling, x) = (period.sampling?, period.period as f64 + BESIDE[2]);
        let ends = [(x, mib(sampling.low)), (x, mib(sampling.high))];
        Some(PathElement::new(ends, COLOURS[ORDER[2]].stroke_width(2)))
    });
    chart.draw_series(lines).map_err(plain)?;
    Ok(())
}

/// Which sign is whose, in a line.
fn explain<B: DrawingBackend>(area: &DrawingArea<B, Shift>) -> Result<()> {
    let style = TextStyle::from((FONT, 14));
    let mut x = 60;
    let corners = [(x, 8), (x + 16, 24)];
    area.draw(&Rectangle::new(corners, GREY.filled()))
        .map_err(plain)?;
    area.draw_text("really touched", &style, (x + 24, 8))
        .map_err(plain)?;
    for (number, name) in NAMES.into_iter().enumerate() {
        x += 250;
        sign(area, number, (x, 16))?;
        area.draw_text(name, &style, (x + 16, 8)).map_err(plain)?;
    }
    Ok(())
}
