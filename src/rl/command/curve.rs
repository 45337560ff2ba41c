//! The learning curve as a picture.
//!
//! Invariant: a whole SVG file without anything from elsewhere. Left out: interaction.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 44.0;
const EDGE: f64 = 20.0;

/// A line through `points` of steps and mean returns.
pub(super) fn svg(title: &str, points: &[(u64, f32)]) -> String {
    let points: Vec<(f64, f64)> = points
        .iter()
        .filter(|(_, y)| y.is_finite())
        .map(|(x, y)| (*x as f64, f64::from(*y)))
        .collect();
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        });
        match high > low {
            true => (low, high),
            false if low.is_finite() => (low - 0.5, low + 0.5),
            false => (0.0, 1.0),
        }
    };
    let (_, x_high) = bounds(&mut points.iter().map(|p| p.0));
    let (y_low, y_high) = bounds(&mut points.iter().map(|p| p.1));
    let place = |x: f64, y: f64| {
        (
            LEFT + (WIDTH - LEFT - EDGE) * x / x_high,
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 2.0 * EDGE) * (y - y_low) / (y_high - y_low),
        )
    };
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for i in 0..=4 {
        let part = f64::from(i) / 4.0;
        let (x, y) = (x_high * part, y_low + (y_high - y_low) * part);
        let (at_x, _) = place(x, y_low);
        let (_, at_y) = place(0.0, y);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at_y:.1}\" y2=\"{at_y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            WIDTH - EDGE,
            LEFT - 6.0,
            at_y + 4.0,
            short(y),
            HEIGHT - BOTTOM + 18.0,
            short(x),
        );
    }
    let line: Vec<String> = points
        .iter()
        .map(|(x, y)| {
            let (x, y) = place(*x, *y);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let _ = write!(
        out,
        "<polyline fill=\"none\" stroke=\"#1f6fb2\" stroke-width=\"2\" points=\"{}\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">environment steps</text>\n</svg>\n",
        line.join(" "),
        (LEFT + WIDTH - EDGE) / 2.0,
        HEIGHT - 8.0,
    );
    out
}

fn short(x: f64) -> String {
    match x.abs() {
        a if a >= 1e6 => format!("{:.1}M", x / 1e6),
        a if a >= 1e4 => format!("{:.0}k", x / 1e3),
        a if a >= 100.0 => format!("{x:.0}"),
        _ => format!("{x:.1}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_goes_from_corner_to_corner() {
        let picture = svg("a < b", &[(0, 10.0), (500, f32::NAN), (1000, 20.0)]);
        assert!(picture.contains("a &lt; b"), "{picture}");
        assert!(
            picture.contains("points=\"64.0,316.0 620.0,40.0\""),
            "{picture}"
        );
        assert!(svg("nothing", &[]).ends_with("</svg>\n"));
    }
}
