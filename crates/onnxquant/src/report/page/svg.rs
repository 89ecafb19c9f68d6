//! Plots as SVG that stretches with the page. Colours come from classes, which the page's style knows for light and dark.
//!
//! Bars and histograms hold no text, so that they may be stretched; charts keep their shape and have labels.

use std::fmt::Write;

/// Height of a bar in its own units; widths are hundredths.
const BAR_HEIGHT: f64 = 10.0;
/// Size of a histogram in its own units.
const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 40.0;
/// Size of a chart, and what its labels take on the left and below.
const CHART: [f64; 2] = [360.0, 230.0];
const LEFT: f64 = 68.0;
const BELOW: f64 = 40.0;
const MARGIN: f64 = 12.0;
/// Marks on an axis.
const TICKS: usize = 4;

/// Text that may stand in SVG and HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => found.push_str("&amp;"),
            '<' => found.push_str("&lt;"),
            '>' => found.push_str("&gt;"),
            '"' => found.push_str("&quot;"),
            '\'' => found.push_str("&#39;"),
            c => found.push(c),
        }
    }
    found
}

/// What stretches; `about` is for those who do not see it.
fn stretching(class: &str, size: [f64; 2], about: &str, content: &str) -> String {
    let [width, height] = size;
    let about = escaped(about);
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{about}\">{content}</svg>"
    )
}

/// A bar of this share of its row.
pub(super) fn bar(share: f64, about: &str) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let width = 100.0 * share;
    let content = format!("<rect class=\"one\" width=\"{width:.2}\" height=\"{BAR_HEIGHT}\"/>");
    stretching("bar", [100.0, BAR_HEIGHT], about, &content)
}

/// An axis on which numbers stand by their logarithms.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    /// Over all of these that are above 0.
    pub(super) fn over(numbers: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for log in numbers.filter(|x| x.is_finite() && *x > 0.0).map(f64::log10) {
            (low, high) = (low.min(log), high.max(log));
        }
        if low > high {
            Self { low: -3.0, high: 0.0 }
        } else {
            Self { low: low.floor(), high: high.ceil().max(low.floor() + 1.0) }
        }
    }

    fn share(self, x: f64) -> f64 {
        ((x.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Its ends.
    pub(super) fn ends(self) -> [f64; 2] {
        [10f64.powf(self.low), 10f64.powf(self.high)]
    }
}

/// A bar up to `length`, and marks of these classes.
pub(super) fn marked_bar(axis: LogAxis, length: Option<f64>, marks: &[(&str, Option<f64>)], about: &str) -> String {
    let mut content = String::new();
    if let Some(length) = length {
        let width = 100.0 * axis.share(length);
        let _ = write!(content, "<rect class=\"one\" y=\"2\" width=\"{width:.2}\" height=\"6\"/>");
    }
    for (class, x) in marks.iter().filter_map(|(class, x)| Some((class, (*x)?))) {
        let x = 100.0 * axis.share(x);
        let _ = write!(content, "<line class=\"{class}\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"0\" y2=\"{BAR_HEIGHT}\"/>");
    }
    stretching("bar", [100.0, BAR_HEIGHT], about, &content)
}

/// Where numbers between two ends stand on the width of a histogram.
#[derive(Clone, Copy, Debug)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn over(ends: &[f64]) -> Self {
        let low = ends.iter().copied().fold(f64::INFINITY, f64::min);
        let high = ends.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low < high { Self { low, high } } else { Self { low: low.min(0.0) - 1.0, high: low.max(0.0) + 1.0 } }
    }

    fn place(self, x: f64) -> f64 {
        let share = (x - self.low) / (self.high - self.low);
        WIDTH * if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Bars of equal width between two ends, from `base` on by at most `height` (downwards where that is below 0).
fn bars(class: &str, (from, to): (f64, f64), heights: &[f64], base: f64, height: f64) -> String {
    let most = heights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = (to - from) / heights.len().max(1) as f64;
    let mut path = format!("M{from:.1} {base:.1}");
    for (at, tall) in heights.iter().enumerate() {
        let (right, y) = (from + step * (at + 1) as f64, base - height * tall / most);
        let _ = write!(path, "V{y:.1}H{right:.1}");
    }
    format!("<path class=\"{class}\" d=\"{path}V{base:.1}Z\"/>")
}

/// Numbers seen between two ends.
pub(super) struct Seen<'a> {
    pub(super) ends: [f64; 2],
    pub(super) counts: &'a [u64],
}

/// Weights above, and below them the codes by what they stand for; `has_steps` where codes are evenly spaced.
pub(super) fn weights(seen: &Seen<'_>, codes: &Seen<'_>, has_steps: bool, about: &str) -> String {
    let span = Span::over(&[seen.ends[0], seen.ends[1], codes.ends[0], codes.ends[1]]);
    let numbers = |counts: &[u64]| counts.iter().map(|&count| count as f64).collect::<Vec<f64>>();
    let place = |ends: [f64; 2]| (span.place(ends[0]), span.place(ends[1]));
    let middle = HEIGHT * 0.6;
    let mut content = bars("one", place(seen.ends), &numbers(seen.counts), middle, middle);
    if has_steps {
        let most = codes.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
        let last = codes.counts.len().saturating_sub(1).max(1) as f64;
        for (at, &count) in codes.counts.iter().enumerate() {
            let x = span.place(codes.ends[0] + (codes.ends[1] - codes.ends[0]) * at as f64 / last);
            let y = middle + 3.0 + (HEIGHT - middle - 3.0) * count as f64 / most;
            let _ =
                write!(content, "<line class=\"two\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{middle:.1}\" y2=\"{y:.1}\"/>");
        }
    } else {
        for end in codes.ends.map(|end| span.place(end)) {
            let _ = write!(
                content,
                "<line class=\"two\" x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"{middle:.1}\" y2=\"{HEIGHT:.1}\"/>"
            );
        }
    }
    stretching("histogram", [WIDTH, HEIGHT], about, &content)
}

/// Values, heights by the square roots of their counts, over the range that codes cover.
pub(super) fn values(seen: &Seen<'_>, covered: [f64; 2], about: &str) -> String {
    let span = Span::over(&[seen.ends[0], seen.ends[1], covered[0], covered[1]]);
    let [left, right] = covered.map(|end| span.place(end));
    let width = (right - left).max(0.0);
    let mut content = format!("<rect class=\"band\" x=\"{left:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>");
    let roots: Vec<f64> = seen.counts.iter().map(|&count| (count as f64).sqrt()).collect();
    content += &bars("one", (span.place(seen.ends[0]), span.place(seen.ends[1])), &roots, HEIGHT, HEIGHT);
    for end in [left, right] {
        let _ = write!(content, "<line class=\"two\" x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"0\" y2=\"{HEIGHT}\"/>");
    }
    stretching("histogram", [WIDTH, HEIGHT], about, &content)
}

/// Points on two axes, joined in their order.
pub(super) struct Chart<'a> {
    pub(super) points: &'a [(f64, f64)],
    /// The point of what was written.
    pub(super) here: Option<(f64, f64)>,
    pub(super) x_name: &'a str,
    pub(super) y_name: &'a str,
    pub(super) x_text: &'a dyn Fn(f64) -> String,
    pub(super) y_text: &'a dyn Fn(f64) -> String,
}

impl Chart<'_> {
    /// As SVG; nothing without two points.
    pub(super) fn svg(&self) -> String {
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points: Vec<(f64, f64)> = self.points.iter().copied().filter(finite).collect();
        if points.len() < 2 {
            return String::new();
        }
        let here = self.here.filter(finite);
        let all = || points.iter().chain(&here);
        let xs = Scale::over(all().map(|point| point.0), LEFT, CHART[0] - MARGIN);
        let ys = Scale::over(all().map(|point| point.1), CHART[1] - BELOW, MARGIN);
        let mut content = self.axes(xs, ys);
        let line: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", xs.place(*x), ys.place(*y))).collect();
        let _ = write!(content, "<polyline class=\"line\" points=\"{}\"/>", line.join(" "));
        let dots = points.iter().map(|point| (point, "one", 3.0)).chain(here.iter().map(|point| (point, "here", 5.0)));
        for ((x, y), class, radius) in dots {
            let title = format!("{}, {}", (self.x_text)(*x), (self.y_text)(*y));
            let (x, y) = (xs.place(*x), ys.place(*y));
            let title = escaped(&title);
            let _ = write!(
                content,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{title}</title></circle>"
            );
        }
        let about = escaped(&format!("{} against {}", self.y_name, self.x_name));
        let [width, height] = CHART;
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{about}\">{content}</svg>"
        )
    }

    fn axes(&self, xs: Scale, ys: Scale) -> String {
        let (bottom, right) = (CHART[1] - BELOW, CHART[0] - MARGIN);
        let mut content = String::new();
        for at in 0..TICKS {
            let share = at as f64 / (TICKS - 1) as f64;
            let (x, y) = (xs.at(share), ys.at(share));
            let (across, up) = (xs.place(x), ys.place(y));
            let (x, y) = (escaped(&(self.x_text)(x)), escaped(&(self.y_text)(y)));
            let anchor = if at + 1 == TICKS { "end" } else { "middle" };
            let _ =
                write!(content, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{up:.1}\" y2=\"{up:.1}\"/>");
            let _ =
                write!(content, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{y}</text>", LEFT - 5.0, up + 4.0);
            let _ = write!(
                content,
                "<text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{x}</text>",
                bottom + 15.0
            );
        }
        let (x_name, y_name) = (escaped(self.x_name), escaped(self.y_name));
        let middle = (LEFT + right) / 2.0;
        let _ = write!(
            content,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>",
            CHART[1] - 8.0
        );
        let (left, up) = (11.0, (MARGIN + bottom) / 2.0);
        content
            + &format!(
                "<text x=\"{left}\" y=\"{up:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {left} {up:.1})\">{y_name}</text>"
            )
    }
}

/// An axis of a chart.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(numbers: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let room = (high - low).max(0.01 * high.abs()).max(1e-9) * 0.08;
        Self { low: low - room, high: high + room, from, to }
    }

    fn place(self, x: f64) -> f64 {
        self.from + (self.to - self.from) * (x - self.low) / (self.high - self.low)
    }

    fn at(self, share: f64) -> f64 {
        self.low + (self.high - self.low) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let name = "</svg><script>\"a\" & 'b'";
        assert_eq!(escaped(name), "&lt;/svg&gt;&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
        assert!(!bar(0.5, name).contains("<script"));
    }

    #[test]
    fn numbers_that_are_none_leave_plots_whole() {
        let axis = LogAxis::over([f64::NAN, 0.0, f64::INFINITY].into_iter());
        assert_eq!(axis.ends(), [1e-3, 1.0]);
        let seen = Seen { ends: [0.0, 0.0], counts: &[0, 0] };
        let plots = [
            marked_bar(axis, Some(f64::NAN), &[("two", Some(0.0))], ""),
            weights(&seen, &Seen { ends: [0.0, 0.0], counts: &[] }, true, ""),
            values(&seen, [0.0, 0.0], ""),
            bar(f64::NAN, ""),
        ];
        for plot in plots {
            assert!(plot.starts_with("<svg") && plot.ends_with("</svg>") && !plot.contains("inf"), "{plot}");
        }
    }

    #[test]
    fn charts_need_two_points_and_hold_all_of_them() {
        let text = |x: f64| x.to_string();
        let chart = |points: &[(f64, f64)]| {
            let here = Some((2.0, 5.0));
            Chart { points, here, x_name: "x", y_name: "y", x_text: &text, y_text: &text }.svg()
        };
        assert_eq!(chart(&[(1.0, 1.0), (f64::NAN, 2.0)]), "");
        assert_eq!(chart(&[(1.0, 1.0), (2.0, 2.0), (3.0, 2.0)]).matches("<circle").count(), 4);
    }
}
