//! The pictures of the book's chapter on how it works: one step of a walk, and where errors go.

use std::path::Path;

use anyhow::Context;
use ndarray::{Array2, Array3, Axis};
use onnxquant_quant::{GramStats, Granularity, Grid, LayerProblem, Method, QuantSpec, ScaleRule, solve};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Random;

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Two weights, the row of data that they are multiplied with, and the step between levels, which lie at halves.
const WEIGHTS: (f64, f64) = (0.9, -0.2);
const DATA: (f64, f64) = (1.0, 1.7);
const LEVELS: [f64; 4] = [-1.5, -0.5, 0.5, 1.5];

/// A layer whose inputs are alike as those of trained networks are.
const ROWS: usize = 1024;
const INPUTS: usize = 256;
const OUTPUTS: usize = 16;
const BITS: u32 = 2;
/// How much of an input follows from the one before.
const ALIKE: f64 = 0.8;
const METHODS: [&str; 3] = ["msq", "gpfq", "feedback"];

/// Writes `walk.svg` and `feedback.svg` into `folder`.
pub(super) fn draw(folder: &Path) -> anyhow::Result<()> {
    walk(&folder.join("walk.svg"))?;
    feedback(&folder.join("feedback.svg"))
}

fn new<'a>(path: &'a Path, size: (u32, u32)) -> anyhow::Result<Drawing<'a>> {
    let drawing = SVGBackend::new(path, size).into_drawing_area();
    drawing.fill(&WHITE)?;
    Ok(drawing)
}

/// Where the walk from the weights along the line of equal outputs meets the wall of their cell, and the level there.
fn step() -> ((f64, f64), (f64, f64)) {
    let direction = (DATA.1, -DATA.0);
    let nearest = |x: f64| LEVELS.into_iter().min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs())).unwrap_or(x);
    let above = |x: f64| LEVELS.into_iter().find(|level| *level > x).unwrap_or(x);
    let below = |x: f64| LEVELS.into_iter().rev().find(|level| *level < x).unwrap_or(x);
    let first = (above(WEIGHTS.0) - WEIGHTS.0) / direction.0;
    let second = (below(WEIGHTS.1) - WEIGHTS.1) / direction.1;
    let t = first.min(second);
    let wall = (WEIGHTS.0 + t * direction.0, WEIGHTS.1 + t * direction.1);
    (wall, (nearest(wall.0), nearest(wall.1)))
}

fn walk(path: &Path) -> anyhow::Result<()> {
    let root = new(path, (560, 420))?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(40)
        .build_cartesian_2d(-0.2..2.0f64, -1.2..0.9f64)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(5)
        .y_labels(5)
        .x_desc("first weight")
        .y_desc("second weight")
        .draw()?;
    let grey = BLACK.mix(0.12);
    chart.draw_series([Rectangle::new([(0.5, -0.5), (1.5, 0.5)], grey.filled())])?;
    let of_levels = LEVELS.into_iter().flat_map(|x| LEVELS.into_iter().map(move |y| (x, y)));
    let shown = of_levels.filter(|(x, y)| (-0.2..2.0).contains(x) && (-1.2..0.9).contains(y));
    chart.draw_series(shown.map(|point| Circle::new(point, 4, BLACK.filled())))?;
    let at = |t: f64| (WEIGHTS.0 + t * DATA.1, WEIGHTS.1 - t * DATA.0);
    chart.draw_series([PathElement::new([at(-0.6), at(0.62)], BLUE.mix(0.5))])?;
    let (wall, level) = step();
    chart.draw_series([PathElement::new([WEIGHTS, wall, level], BLUE.stroke_width(3))])?;
    let rounded = (0.5, -0.5);
    chart.draw_series([PathElement::new([WEIGHTS, rounded], RED.stroke_width(2))])?;
    let font = || ("sans-serif", 14).into_font();
    let label = |text: &'static str, place: (f64, f64), color: RGBColor| {
        EmptyElement::at(place) + Text::new(text, (0, 0), font().color(&color))
    };
    chart.draw_series([
        label("the weights", (0.92, -0.1), BLACK),
        label("equal outputs", (-0.15, 0.62), BLUE),
        label("1: walk to the wall of the cell", (1.02, 0.08), BLUE),
        label("2: nearest level", (1.54, -0.42), BLUE),
        label("plain rounding", (0.02, -0.42), RED),
    ])?;
    chart.draw_series([Circle::new(WEIGHTS, 5, BLUE.filled())])?;
    root.present().with_context(|| format!("cannot write {path:?}"))
}

/// Rows of data in which each input is like the one before, and weights for them.
fn layer() -> (Array2<f32>, Array3<f32>) {
    let mut random = Random(1_701);
    let mut rows = Array2::<f32>::zeros((ROWS, INPUTS));
    for mut row in rows.rows_mut() {
        let mut last = 0.0;
        for value in &mut row {
            last = ALIKE * last + (1.0 - ALIKE * ALIKE).sqrt() * random.gaussian();
            *value = last as f32;
        }
    }
    let weights = Array3::from_shape_simple_fn((1, INPUTS, OUTPUTS), || random.gaussian() as f32);
    (rows, weights)
}

/// The error of what the first inputs make, over the outputs of all, for every number of them.
fn errors(method: Method, rows: &Array2<f32>, weights: &Array3<f32>) -> anyhow::Result<Vec<f64>> {
    let stats = [GramStats::from_rows(rows.view())?];
    let spec = QuantSpec::new(Grid::symmetric(BITS)?, Granularity::Channel, ScaleRule::LeastSquares)?;
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec)?;
    let lost = weights - &solve(method, &problem)?.dequantize();
    let (weights, lost) = (weights.index_axis(Axis(0), 0), lost.index_axis(Axis(0), 0).to_owned());
    let power = |values: &Array2<f32>| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    let all = power(&rows.dot(&weights));
    let mut error = Array2::<f32>::zeros((ROWS, OUTPUTS));
    let mut found = Vec::with_capacity(INPUTS);
    for input in 0..INPUTS {
        let (column, row) = (rows.column(input).insert_axis(Axis(1)), lost.row(input).insert_axis(Axis(0)));
        error += &column.dot(&row);
        found.push((power(&error) / all).sqrt());
    }
    Ok(found)
}

fn feedback(path: &Path) -> anyhow::Result<()> {
    let (rows, weights) = layer();
    let root = new(path, (640, 380))?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..INPUTS as f64, 0.0..0.5f64)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("inputs so far").y_desc("error over outputs").draw()?;
    let methods = Method::ALL.into_iter().filter(|method| METHODS.contains(&method.name()));
    for (index, method) in methods.enumerate() {
        let color = [RED, BLACK, BLUE][index % METHODS.len()];
        let points = errors(method, &rows, &weights)?.into_iter().enumerate();
        let line = LineSeries::new(points.map(|(at, error)| (at as f64 + 1.0, error)), color.stroke_width(2));
        chart
            .draw_series(line)?
            .label(method.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3)).draw()?;
    root.present().with_context(|| format!("cannot write {path:?}"))
}
