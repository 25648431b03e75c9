//! Figures as rows of text: for the terminal, for Markdown, for other programs.

use super::{
    Test,
    report::{Figure, Report, by_task},
};

/// Rows under headings, and what they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub title: String,
    pub headings: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A table for each test with its first number of streams, and one over all numbers where there are several.
/// `baseline` is what the ways are held against.
pub fn tables(report: &Report, baseline: Option<&str>) -> Vec<Table> {
    let mut tables = Vec::new();
    let of_each: Vec<&[Figure]> = by_task(&report.figures).collect();
    for of_test in of_each.chunk_by(|one, other| one[0].test == other[0].test) {
        tables.extend(of_test.first().map(|figures| of_task(figures, baseline)));
        if of_test.len() > 1 {
            tables.push(over_streams(of_test));
        }
    }
    tables
}

fn of_task(figures: &[Figure], baseline: Option<&str>) -> Table {
    let test = figures[0].test;
    let relative = baseline.filter(|_| figures.iter().any(|figure| figure.relative.is_some()));
    let mut headings = vec!["WAY", if test.asks() { "PER SECOND" } else { "GBIT/S" }, "95 %"];
    let of_baseline = relative.map(|baseline| format!("OF {}", baseline.to_uppercase()));
    headings.extend(of_baseline.as_deref());
    headings.extend(match test {
        Test::TcpStream => &["PACKETS/S", "B/PACKET", "RESENT", "CPU S/GBIT"][..],
        Test::UdpStream => &["SENT", "PACKETS/S", "DROPPED", "CPU S/GBIT"],
        Test::TcpRr | Test::TcpCrr | Test::UdpRr => &["P50 µs", "P90", "P99", "P99.9", "MAX", "CPU µs"],
    });
    let row = |figure: &Figure| {
        let rate = &figure.rate;
        let mut row = vec![figure.title.clone(), digits(rate.median)];
        row.push(format!("{} – {}", digits(rate.low), digits(rate.high)));
        if relative.is_some() {
            row.push(figure.relative.map_or("-".into(), |relative| format!("{:.2}", relative.median)));
        }
        row.extend(details(figure));
        row
    };
    Table {
        title: titled(&figures[0]),
        headings: headings.into_iter().map(str::to_owned).collect(),
        rows: figures.iter().map(row).collect(),
    }
}

fn details(figure: &Figure) -> Vec<String> {
    let latency =
        |pick: fn(&super::report::Latency) -> f64| figure.latency_us.as_ref().map_or("-".into(), |l| digits(pick(l)));
    match figure.test {
        Test::TcpStream => vec![
            digits(figure.packets_per_second),
            digits(figure.bytes_per_packet),
            figure.retransmitted.to_string(),
            format!("{:.3}", figure.processor),
        ],
        Test::UdpStream => vec![
            figure.sent.map_or("-".into(), digits),
            digits(figure.packets_per_second),
            figure.dropped.to_string(),
            format!("{:.3}", figure.processor),
        ],
        Test::TcpRr | Test::TcpCrr | Test::UdpRr => vec![
            latency(|l| l.p50),
            latency(|l| l.p90),
            latency(|l| l.p99),
            latency(|l| l.p999),
            latency(|l| l.max),
            digits(figure.processor),
        ],
    }
}

/// "TCP_STREAM, 1 stream"
fn titled(figure: &Figure) -> String {
    match figure.streams {
        1 => format!("{}, 1 stream", figure.test),
        _ => figure.task().to_string(),
    }
}

fn over_streams(of_test: &[&[Figure]]) -> Table {
    let numbers = of_test.iter().map(|figures| figures[0].streams.to_string());
    let first = of_test[0];
    let row = |way: &Figure| {
        let with = |figures: &&[Figure]| {
            let found = figures.iter().find(|figure| figure.way == way.way);
            found.map_or("-".into(), |figure| digits(figure.rate.median))
        };
        [way.title.clone()].into_iter().chain(of_test.iter().map(with)).collect()
    };
    Table {
        title: format!("{}, {} by number of streams", first[0].test, first[0].unit),
        headings: ["WAY".to_owned()].into_iter().chain(numbers).collect(),
        rows: first.iter().map(row).collect(),
    }
}

/// Three digits that count, and all of those before the point.
pub fn digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Tables for a Markdown document.
pub fn markdown(tables: &[Table]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let of = |table: &Table| {
        let rule: Vec<String> =
            (0..table.headings.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()).collect();
        let rows: String = table.rows.iter().map(|row| line(row)).collect();
        format!("**{}**\n\n{}{}{rows}", table.title, line(&table.headings), line(&rule))
    };
    tables.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// A line for each figure, for spreadsheets and scripts (RFC 4180). No field has a comma or a quote in it.
pub fn csv(figures: &[Figure]) -> String {
    let mut text = "way,test,streams,unit,median,low,high,relative,sent,packets_per_second,bytes_per_packet,\
                    retransmitted,dropped,processor,p50_us,p90_us,p99_us,p99.9_us,max_us\n"
        .to_owned();
    for figure in figures {
        let plain = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.6}"));
        let latency = figure.latency_us.as_ref();
        let fields = [
            figure.way.replace([',', '"'], " "),
            figure.test.to_string(),
            figure.streams.to_string(),
            figure.unit.to_owned(),
            plain(Some(figure.rate.median)),
            plain(Some(figure.rate.low)),
            plain(Some(figure.rate.high)),
            plain(figure.relative.map(|relative| relative.median)),
            plain(figure.sent),
            plain(Some(figure.packets_per_second)),
            plain(Some(figure.bytes_per_packet)),
            figure.retransmitted.to_string(),
            figure.dropped.to_string(),
            plain(Some(figure.processor)),
            plain(latency.map(|l| l.p50)),
            plain(latency.map(|l| l.p90)),
            plain(latency.map(|l| l.p99)),
            plain(latency.map(|l| l.p999)),
            plain(latency.map(|l| l.max)),
        ];
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::report::samples::report, *};

    #[test]
    fn each_test_has_its_table_and_several_streams_have_one_more() {
        let report = report();
        let tables = tables(&report, Some("bridge+veth"));
        let titles: Vec<&str> = tables.iter().map(|table| table.title.as_str()).collect();
        assert_eq!(titles, ["TCP_STREAM, 1 stream", "TCP_STREAM, Gbit/s by number of streams", "TCP_RR, 1 stream"]);
        for table in &tables {
            assert!(table.rows.iter().all(|row| row.len() == table.headings.len()), "{table:?}");
        }
        assert_eq!(tables[0].headings[3], "OF BRIDGE+VETH");
        assert_eq!(tables[0].rows[1][..4], ["macvlan bridge", "15.0", "14.0 – 16.0", "1.50"]);
        assert_eq!(tables[1].rows[1], ["macvlan bridge", "15.0", "30.0"]);
    }

    #[test]
    fn a_line_of_values_has_as_many_as_the_first_names() {
        let text = csv(&report().figures);
        let counts: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(counts.len(), 1 + report().figures.len());
        assert!(counts.iter().all(|count| *count == counts[0]), "{text}");
    }

    #[test]
    fn markdown_has_a_rule_under_the_headings() {
        let text = markdown(&tables(&report(), None));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "**TCP_STREAM, 1 stream**");
        assert!(lines[2].starts_with("| WAY | GBIT/S |") && lines[3].starts_with("| --- | ---: |"), "{text}");
    }

    #[test]
    fn three_digits_count() {
        assert_eq!(
            [0.1234, 9.994, 9.996, 12.34, 99.96, 12345.6].map(digits),
            ["0.12", "9.99", "10.0", "12.3", "100", "12346"]
        );
    }
}
