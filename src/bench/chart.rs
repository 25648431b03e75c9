//! Pictures of figures, as SVG: bars with intervals, throughput over streams, tails of latencies.
//!
//! A few shapes and texts in a language that is text: a library for plots would bring fonts and back ends to
//! place what is placed here by a dozen sums.

use std::fmt::Write;

use super::{
    report::{Figure, Report, by_task},
    statistics::Summary,
    table::digits,
};

/// A picture of its own, its size in pixels.
#[derive(Debug, Clone)]
pub struct Picture {
    pub width: f64,
    pub height: f64,
    shapes: String,
}

const INK: &str = "#222";
const FAINT: &str = "#ddd";
const BAR: &str = "#2f6690";
const BASE_BAR: &str = "#a9c6dc";
/// As dark as to be told apart in grey by every second; the marks and the dashes tell the others.
const COLOURS: [&str; 9] =
    ["#000000", "#0072b2", "#d55e00", "#117733", "#882255", "#999933", "#44aa99", "#cc6677", "#777777"];
const DASHES: [&str; 3] = ["", "6 3", "2 3"];
/// What a letter of 13 pixels takes in the width, at most.
const LETTER: f64 = 7.3;
const WIDTH: f64 = 860.0;

/// All pictures of a report, each of one thing.
pub fn pictures(report: &Report) -> Vec<Picture> {
    let of_each: Vec<&[Figure]> = by_task(&report.figures).collect();
    let mut pictures = Vec::new();
    for of_test in of_each.chunk_by(|one, other| one[0].test == other[0].test) {
        pictures.extend(of_test.first().map(|figures| bars(figures)));
        if of_test.len() > 1 {
            pictures.push(over_streams(of_test));
        }
        pictures.extend(of_test.first().and_then(|figures| tails(figures)));
    }
    pictures
}

/// The pictures below one another, under a title, in one document.
pub fn document(title: &str, below: &str, pictures: &[Picture]) -> String {
    const TOP: f64 = 76.0;
    let height = TOP + pictures.iter().map(|picture| picture.height).sum::<f64>();
    let mut sheet = Picture::new(WIDTH, height);
    // For readers with a dark page.
    let _ = write!(sheet.shapes, "<rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#fff\"/>");
    sheet.text(20.0, 34.0, "start", 20, title);
    sheet.text(20.0, 58.0, "start", 12, below);
    let mut top = TOP;
    for picture in pictures {
        let _ = writeln!(sheet.shapes, "<g transform=\"translate(0 {top:.0})\">{}</g>", picture.shapes);
        top += picture.height;
    }
    sheet.svg()
}

impl Picture {
    fn new(width: f64, height: f64) -> Picture {
        Picture { width, height, shapes: String::new() }
    }

    /// As a document, or within one of HTML.
    pub fn svg(&self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" \
             font-family=\"Helvetica, Arial, sans-serif\" fill=\"{INK}\">{}</svg>\n",
            self.shapes,
            w = self.width,
            h = self.height
        )
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
        let words = escaped(words);
        let _ = write!(
            self.shapes,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>"
        );
    }

    fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], look: &str) {
        let _ = write!(self.shapes, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {look}/>");
    }

    /// An interval around a value that lies along: two ends and what is between.
    fn whisker(&mut self, [low, high]: [f64; 2], y: f64) {
        let look = format!("stroke=\"{INK}\" stroke-width=\"1.4\"");
        self.line([low, y], [high, y], &look);
        self.line([low, y - 4.0], [low, y + 4.0], &look);
        self.line([high, y - 4.0], [high, y + 4.0], &look);
    }

    /// A point of the series of that number: each has a shape of its own.
    fn mark(&mut self, number: usize, [x, y]: [f64; 2]) {
        let colour = COLOURS[number % COLOURS.len()];
        let shape = |corners: &[(f64, f64)]| {
            let corners: Vec<String> = corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
            corners.join(" ")
        };
        let filled = format!("fill=\"{colour}\" stroke=\"{colour}\"");
        let hollow = format!("fill=\"#fff\" stroke=\"{colour}\" stroke-width=\"1.6\"");
        let look = if number.is_multiple_of(2) { filled } else { hollow };
        let _ = match number / 2 % 4 {
            0 => write!(self.shapes, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" {look}/>"),
            1 => {
                write!(self.shapes, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" {look}/>", x - 3.5, y - 3.5)
            }
            2 => {
                let corners = shape(&[(0.0, -4.5), (4.5, 4.0), (-4.5, 4.0)]);
                write!(self.shapes, "<polygon points=\"{corners}\" {look}/>")
            }
            _ => {
                let corners = shape(&[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)]);
                write!(self.shapes, "<polygon points=\"{corners}\" {look}/>")
            }
        };
    }
}

/// One bar for each way, with its interval; the first with a relative value of one is the baseline.
fn bars(figures: &[Figure]) -> Picture {
    const ROW: f64 = 26.0;
    const TOP: f64 = 44.0;
    let height = TOP + ROW * figures.len() as f64 + 46.0;
    let left = 30.0 + LETTER * figures.iter().map(|figure| figure.title.chars().count()).max().unwrap_or(0) as f64;
    let mut picture = Picture::new(WIDTH, height);
    let most = figures.iter().map(|figure| figure.rate.high).fold(0.0, f64::max);
    let (step, top_tick) = ticks(most);
    // Behind the longest whisker there is room for its value.
    let x = |value: f64| left + (WIDTH - left - 150.0) * value / top_tick;
    let bottom = TOP + ROW * figures.len() as f64;
    picture.text(20.0, 24.0, "start", 15, &format!("{}, {}", figures[0].task(), figures[0].unit));
    let mut tick = 0.0;
    while tick <= top_tick * 1.001 {
        picture.line([x(tick), TOP - 6.0], [x(tick), bottom], &format!("stroke=\"{FAINT}\""));
        picture.text(x(tick), bottom + 16.0, "middle", 11, &tick_text(tick, step));
        tick += step;
    }
    for (row, figure) in figures.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let Summary { median, low, high } = figure.rate;
        let is_base = figure.relative.is_some_and(|r| (r.low, r.high) == (1.0, 1.0));
        let fill = if is_base { format!("fill=\"{BASE_BAR}\" stroke=\"{BAR}\"") } else { format!("fill=\"{BAR}\"") };
        let _ = write!(
            picture.shapes,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" {fill}/>",
            y + 2.0,
            x(median) - left
        );
        picture.text(left - 10.0, y + 15.0, "end", 13, &figure.title);
        picture.whisker([x(low), x(high)], y + 10.0);
        let relative =
            figure.relative.filter(|_| !is_base).map(|r| format!(" (× {:.2})", r.median)).unwrap_or_default();
        picture.text(x(high) + 9.0, y + 15.0, "start", 12, &format!("{}{relative}", digits(median)));
    }
    picture
}

/// A named line.
struct Series {
    title: String,
    points: Vec<[f64; 2]>,
    /// Vertical, for each point.
    intervals: Vec<[f64; 2]>,
}

const PLOT_LEFT: f64 = 74.0;
const PLOT_RIGHT: f64 = 610.0;
const PLOT_TOP: f64 = 44.0;
const PLOT_BOTTOM: f64 = 300.0;

fn over_streams(of_test: &[&[Figure]]) -> Picture {
    let first = of_test[0];
    let most = of_test.iter().flat_map(|figures| figures.iter()).map(|figure| figure.rate.high).fold(0.0, f64::max);
    let (step, top) = ticks(most);
    let x =
        |place: usize| PLOT_LEFT + 24.0 + (PLOT_RIGHT - PLOT_LEFT - 48.0) * place as f64 / (of_test.len() - 1) as f64;
    let y = |value: f64| PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * value / top;
    let title = format!("{}, {} by number of streams", first[0].test, first[0].unit);
    let across: Vec<(f64, String)> =
        of_test.iter().enumerate().map(|(place, figures)| (x(place), figures[0].streams.to_string())).collect();
    let up: Vec<(f64, String)> = (0..=(top / step).round() as u32)
        .map(|number| f64::from(number) * step)
        .map(|tick| (y(tick), tick_text(tick, step)))
        .collect();
    // Side by side, or the intervals would hide one another.
    let aside = |number: usize| 5.0 * (number as f64 - (first.len() - 1) as f64 / 2.0);
    let series = first.iter().enumerate().map(|(number, way)| {
        let found = of_test.iter().enumerate().filter_map(|(place, figures)| {
            let figure = figures.iter().find(|figure| figure.way == way.way)?;
            Some((place, figure.rate))
        });
        let found: Vec<_> = found.collect();
        Series {
            title: way.title.clone(),
            points: found.iter().map(|(place, rate)| [x(*place) + aside(number), y(rate.median)]).collect(),
            intervals: found.iter().map(|(_, rate)| [y(rate.low), y(rate.high)]).collect(),
        }
    });
    plot(&title, &across, &up, "streams", &series.collect::<Vec<_>>())
}

/// How long the slowest half, tenth … took: both axes by powers of ten.
fn tails(figures: &[Figure]) -> Option<Picture> {
    const SHARES: [(f64, &str); 5] =
        [(0.5, "50 %"), (0.1, "90 %"), (0.01, "99 %"), (0.001, "99.9 %"), (0.0001, "99.99 %")];
    let all = || figures.iter().filter_map(|figure| figure.latency_us.as_ref()).flat_map(|latency| &latency.tail);
    let least = all().map(|(_, value)| *value).fold(f64::INFINITY, f64::min).max(0.1);
    let most = all().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let (low, high) = (least.log10() - 0.05, most.log10() + 0.05);
    let y = |value: f64| PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * (value.max(0.1).log10() - low) / (high - low);
    let x = |share: f64| PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * (0.5 / share).log10() / (0.5f64 / 0.0001).log10();
    let across: Vec<(f64, String)> = SHARES.iter().map(|(share, text)| (x(*share), (*text).to_owned())).collect();
    let up = (-1..8).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)));
    let up = up.filter(|value| (low..=high).contains(&value.log10())).map(|value| (y(value), digits_or_whole(value)));
    let series = figures.iter().filter_map(|figure| {
        let points = figure.latency_us.as_ref()?.tail.iter().map(|(share, value)| [x(*share), y(*value)]).collect();
        Some(Series { title: figure.title.clone(), points, intervals: Vec::new() })
    });
    let title = format!("{}, microseconds that this share of transactions took at most", figures[0].task());
    Some(plot(&title, &across, &spaced(up.collect()), "share of transactions", &series.collect::<Vec<_>>()))
}

/// Those far enough from the one before to be read.
fn spaced(ticks: Vec<(f64, String)>) -> Vec<(f64, String)> {
    let mut kept: Vec<(f64, String)> = Vec::new();
    for tick in ticks {
        if kept.last().is_none_or(|last| (last.0 - tick.0).abs() >= 15.0) {
            kept.push(tick);
        }
    }
    kept
}

/// Lines over a grid, each with its name behind its end.
fn plot(title: &str, across: &[(f64, String)], up: &[(f64, String)], below: &str, series: &[Series]) -> Picture {
    let mut picture = Picture::new(WIDTH, PLOT_BOTTOM + 62.0);
    picture.text(20.0, 24.0, "start", 15, title);
    for (y, text) in up {
        picture.line([PLOT_LEFT, *y], [PLOT_RIGHT, *y], &format!("stroke=\"{FAINT}\""));
        picture.text(PLOT_LEFT - 8.0, y + 4.0, "end", 11, text);
    }
    for (x, text) in across {
        picture.line([*x, PLOT_TOP], [*x, PLOT_BOTTOM], &format!("stroke=\"{FAINT}\""));
        picture.text(*x, PLOT_BOTTOM + 17.0, "middle", 11, text);
    }
    picture.text((PLOT_LEFT + PLOT_RIGHT) / 2.0, PLOT_BOTTOM + 36.0, "middle", 12, below);
    let ends: Vec<f64> = series.iter().filter_map(|one| one.points.last()).map(|point| point[1]).collect();
    let labels = apart(&ends, 17.0, PLOT_TOP, PLOT_BOTTOM);
    for (number, one) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = one.points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let dashes = DASHES[number % DASHES.len()];
        let _ = write!(
            picture.shapes,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        );
        for ([x, _], [low, high]) in one.points.iter().zip(&one.intervals) {
            picture.line([*x, *low], [*x, *high], &format!("stroke=\"{colour}\" stroke-opacity=\"0.5\""));
        }
        // A tail is a line of many points: every sixth is marked, from another one on for each.
        let every = if one.intervals.is_empty() { 6 } else { 1 };
        let marked = one.points.iter().skip(if every > 1 { number % every } else { 0 }).step_by(every);
        marked.for_each(|point| picture.mark(number, *point));
        let (Some(end), Some(label)) = (one.points.last(), labels.get(number)) else { continue };
        picture.line(*end, [PLOT_RIGHT + 22.0, *label], &format!("stroke=\"{colour}\" stroke-width=\"0.8\""));
        picture.mark(number, [PLOT_RIGHT + 28.0, *label]);
        picture.text(PLOT_RIGHT + 38.0, label + 4.5, "start", 13, &one.title);
    }
    picture
}

/// Where to put labels that should be at `wanted`, so that each two are `distance` apart.
fn apart(wanted: &[f64], distance: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut next = top;
    for place in &order {
        placed[*place] = placed[*place].max(next);
        next = placed[*place] + distance;
    }
    // What was pushed out at the bottom pushes the others up again.
    let mut last = bottom.max(top + distance * wanted.len().saturating_sub(1) as f64);
    for place in order.iter().rev() {
        placed[*place] = placed[*place].min(last);
        last = placed[*place] - distance;
    }
    placed
}

/// The distance of ticks up to `most` and a little more, and the last of them: four to eight round numbers.
fn ticks(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(power * 10.0);
    (step, (most / step).ceil() * step)
}

fn tick_text(tick: f64, step: f64) -> String {
    if step >= 1.0 {
        format!("{tick:.0}")
    } else if step >= 0.1 {
        format!("{tick:.1}")
    } else {
        format!("{tick:.2}")
    }
}

fn digits_or_whole(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::report::samples::report, *};

    #[test]
    fn each_test_has_its_pictures() {
        let pictures = pictures(&report());
        let titles =
            ["TCP_STREAM, Gbit/s<", "by number of streams<", "TCP_RR, transactions/s<", "this share of transactions"];
        assert_eq!(pictures.len(), titles.len());
        for (picture, title) in pictures.iter().zip(titles) {
            assert!(picture.shapes.contains(title), "{title}");
        }
    }

    /// Everything lies on the sheet, and no two labels at the lines' ends are on top of one another.
    #[test]
    fn nothing_is_outside_and_labels_keep_apart() {
        for picture in pictures(&report()) {
            let number = |text: &str| text.split('"').next().unwrap().parse::<f64>().unwrap();
            let of = |name: &str| picture.shapes.split(name).skip(1).map(number).collect::<Vec<_>>();
            let (across, down) = (of(" x=\""), of(" y=\""));
            assert!(across.iter().all(|x| (0.0..=picture.width).contains(x)), "{across:?}");
            assert!(down.iter().all(|y| (0.0..=picture.height).contains(y)), "{down:?}");
        }
        let placed = apart(&[100.0, 101.0, 250.0, 299.0, 299.5, 300.0], 17.0, 44.0, 300.0);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] > 16.9), "{placed:?}");
        assert!(placed.iter().all(|y| (44.0..=300.0).contains(y)), "{placed:?}");
    }

    #[test]
    fn ticks_are_round_and_reach_the_most() {
        for most in [0.013, 0.9, 1.0, 7.3, 12.0, 99.0, 16_847.0] {
            let (step, top) = ticks(most);
            assert!(top >= most && (3.0..=7.0).contains(&(top / step).round()), "{most}: {step} {top}");
        }
    }

    #[test]
    fn a_container_may_be_called_anything() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
