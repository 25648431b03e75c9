//! The report, as a person reads it or a program.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table as Drawn, presets::NOTHING};

use super::{baseline, files::Writable};
use crate::{
    bench::{
        chart, page,
        report::{Report, Subject},
        table::{self, Table},
    },
    cli::BenchInto,
    commands::Context,
    error::Result,
    output::flush_left,
};

/// The files of a picture and of a page, if they are wanted.
pub struct Files {
    plot: Option<Writable>,
    page: Option<Writable>,
}

impl Files {
    pub fn new(into: &BenchInto) -> Result<Files> {
        let writable = |path: &Option<PathBuf>| path.as_deref().map(Writable::new).transpose();
        Ok(Files { plot: writable(&into.plot)?, page: writable(&into.report)? })
    }
}

/// On stdout, and into the files.
pub fn report(report: &Report, into: &BenchInto, mut files: Files, context: &Context) -> Result<()> {
    let measured: Vec<&Subject> = report.ways.iter().filter(|way| way.lacking.is_none()).collect();
    let tables = table::tables(report, baseline(&measured).map(|place| measured[place].title.as_str()));
    print(report, &tables, into, context);
    let pictures = chart::pictures(report);
    if pictures.is_empty() {
        return Ok(());
    }
    let conditions = conditions(report);
    if let Some(plot) = &mut files.plot {
        plot.write(&chart::document("Ways to connect containers", &conditions, &pictures))?;
        context.output.line(format_args!("\nthe picture is in {}", plot.path()));
    }
    if let Some(page) = &mut files.page {
        page.write(&page::page(report, &conditions, &pictures, &tables))?;
        context.output.line(format_args!("\nthe report is in {}", page.path()));
    }
    Ok(())
}

fn print(report: &Report, tables: &[Table], into: &BenchInto, context: &Context) {
    let output = context.output;
    output.document(report);
    if into.csv {
        output.line(table::csv(&report.figures).trim_end());
    } else if into.markdown {
        output.line(conditions(report));
        output.line(format_args!("\n{}", table::markdown(tables).trim_end()));
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
