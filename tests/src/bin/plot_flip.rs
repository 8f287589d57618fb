//! Draws what `make bench-mesh` measured, a dot for every flip. I/O: reads target/bench/flip.json,
//! writes docs/flip.svg.

use std::path::Path;

use anyhow::{Context, Result};
use harness::flips::quantile;
use plotters::prelude::*;
use serde_json::Value;

const WAYS: [(&str, &str, RGBColor); 4] = [
    ("ours", "versionflag", RGBColor(0, 114, 178)),
    ("ours-config-only", "versionflag without its flag service", RGBColor(86, 180, 233)),
    ("virtualservice", "VirtualService edited", RGBColor(213, 94, 0)),
    ("selector", "Service selector changed", RGBColor(0, 158, 115)),
];
const STATES: [(&str, &str); 2] = [("idle", "idle mesh"), ("busy", "300 Services and VirtualServices changing")];
/// In milliseconds.
const RANGE: std::ops::Range<f64> = 1.0..30_000.0;
const SIZE: (u32, u32) = (1000, 500);

fn main() -> Result<()> {
    let root = harness::root();
    let text = std::fs::read(root.join("target/bench/flip.json")).context("run `make bench-mesh` first")?;
    let results: Value = serde_json::from_slice(&text)?;
    draw(&root.join("docs/flip.svg"), &results)
}

fn draw(file: &Path, results: &Value) -> Result<()> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled("From the write to the API to the last request on the old version", ("sans-serif", 20))?;
    let (panels, legend) = area.split_vertically(SIZE.1 - 100);
    for (panel, (state, title)) in panels.split_evenly((1, STATES.len())).iter().zip(STATES) {
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 16))
            .margin(10)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..WAYS.len() as f64, RANGE.log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .y_labels(5)
            .y_label_formatter(&|ms| format!("{ms} ms"))
            .light_line_style(WHITE)
            .draw()?;
        for (column, (way, _, color)) in WAYS.into_iter().enumerate() {
            let counts = results["callers"].as_object().context("no results")?;
            for (place, (_, of_count)) in counts.iter().enumerate() {
                let center = column as f64 + (place as f64 + 0.5) / counts.len() as f64;
                let points = last_old(&of_count["variants"][way][state]);
                let spread = 0.3 / counts.len() as f64 / points.len().max(2) as f64;
                let middle = points.len() as f64 / 2.0;
                chart.draw_series(points.iter().enumerate().map(|(index, ms)| {
                    Circle::new((center + (index as f64 - middle) * spread, *ms), 3, color.mix(0.5).filled())
                }))?;
                let (median, half) = (quantile(points, 0.5).context("no flips")?, 0.2);
                let line = [(center - half, median), (center + half, median)];
                chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))])?;
                let label = Text::new(format!("{median:.0}"), (center - 0.1, median * 2.0), ("sans-serif", 13));
                chart.draw_series([label])?;
            }
        }
    }
    for ((_, name, color), place) in WAYS.into_iter().zip(legend.split_evenly((2, 2))) {
        place.draw(&Circle::new((40, 12), 5, color.filled()))?;
        place.draw(&Text::new(name, (52, 6), ("sans-serif", 14)))?;
    }
    legend.draw(&Text::new(
        "a dot is one flip, a line the median; in each pair: 1 caller, 8 callers",
        (40, 82),
        ("sans-serif", 12),
    ))?;
    area.present()?;
    Ok(())
}

/// Of each flip, in milliseconds; not below what is drawn.
fn last_old(variant: &Value) -> Vec<f64> {
    let flips = variant["flips"].as_array().into_iter().flatten();
    flips.filter_map(|flip| Some(flip["last_old_ms"].as_f64()?.max(RANGE.start))).collect()
}
