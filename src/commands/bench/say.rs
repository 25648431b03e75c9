//! The report, as a person reads it or a program.

use comfy_table::{CellAlignment, Table as Drawn, presets::NOTHING};

use super::baseline;
use crate::{
    bench::{
        report::{Report, Subject},
        table::{self, Table},
    },
    cli::BenchInto,
    commands::Context,
    output::flush_left,
};

pub fn report(report: &Report, into: &BenchInto, context: &Context) {
    let output = context.output;
    output.document(report);
    let measured: Vec<&Subject> = report.ways.iter().filter(|way| way.lacking.is_none()).collect();
    let tables = table::tables(report, baseline(&measured).map(|place| measured[place].title.as_str()));
    if into.csv {
        output.line(table::csv(&report.figures).trim_end());
    } else if into.markdown {
        output.line(conditions(report));
        output.line(format_args!("\n{}", table::markdown(&tables).trim_end()));
    } else if !tables.is_empty() {
        output.line(conditions(report));
        tables.iter().for_each(|table| output.line(format_args!("\n{}\n{}", table.title, drawn(table))));
    }
    if !into.csv {
        let lacking = report.ways.iter().filter_map(|way| Some((way, way.lacking.as_ref()?)));
        lacking.for_each(|(way, reason)| output.line(format_args!("\n{}: not measured; {reason}", way.title)));
    }
    report.warnings.iter().for_each(|warning| output.warn(warning));
}

/// `Linux 6.18.0, 8 processors (…); MTU 1500; median of 5 rounds of 0.30 s`
pub fn conditions(report: &Report) -> String {
    let of = &report.circumstances;
    let processors = if of.processors == 1 { "1 processor".into() } else { format!("{} processors", of.processors) };
    let rounds = if of.rounds == 1 { "1 round".to_owned() } else { format!("median of {} rounds", of.rounds) };
    format!(
        "Linux {}, {processors} ({}); MTU {}; {rounds} of {:.2} s",
        of.kernel, of.processor, of.mtu, of.seconds_each
    )
}

fn drawn(table: &Table) -> String {
    let mut drawn = Drawn::new();
    drawn.load_style(NOTHING).set_header(&table.headings);
    for row in &table.rows {
        drawn.add_row(row);
    }
    for column in drawn.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    flush_left(drawn)
}
