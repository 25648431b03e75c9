//! Shims listed, and taken away.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    cli::ShimRm,
    commands::{Context, ls::State, require_capabilities, take_back},
    error::{Error, Result},
    output::flush_left,
    plan::Step,
    shim,
    store::{Attachment, Record},
};

#[derive(Serialize)]
struct Row {
    parent: String,
    interface: String,
    addresses: Vec<String>,
    driver: String,
    /// What it leads to.
    routes: Vec<String>,
    automatic: bool,
    state: State,
}

pub fn list(context: &Context) -> Result<()> {
    let rows: Vec<Row> = shim::all(&*context.store)?.iter().map(|shim| row(shim, context)).collect::<Result<_>>()?;
    context.output.document(&serde_json::json!({ "shims": rows }));
    if rows.is_empty() {
        context.output.line("there is no shim");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["PARENT", "INTERFACE", "ADDRESS", "DRIVER", "ROUTES", "STATE"]);
    for row in rows {
        let routes = match (row.routes.len(), row.automatic) {
            (0, true) => "automatic".to_owned(),
            (_, true) => format!("automatic: {}", row.routes.join("\n")),
            (_, false) => row.routes.join("\n"),
        };
        let state = row.state.name().to_owned();
        table.add_row([row.parent, row.interface, row.addresses.join("\n"), row.driver, routes, state]);
    }
    context.output.line(flush_left(table));
    Ok(())
}

fn row(record: &Attachment, context: &Context) -> Result<Row> {
    let Some(link) = record.link() else {
        return Err(Error::failed(format!("the record of {} names no link", record.key())));
    };
    let automatic = shim::is_automatic(record);
    let given = record.steps.iter().filter_map(|step| match step {
        Step::AddRoute(route) => route.destination().map(|to| to.to_string()),
        _ => None,
    });
    let routes = match &record.network {
        None if automatic => {
            shim::wanted(&link.parent.name, &*context.store)?.iter().map(|to| to.to_string()).collect()
        }
        None => given.collect(),
        Some(_) => record.wish.addresses.iter().map(|address| address.subnet().to_string()).collect(),
    };
    Ok(Row {
        parent: link.parent.name.to_string(),
        interface: link.name.to_string(),
        addresses: record.wish.addresses.iter().map(|address| address.to_string()).collect(),
        driver: link.driver.to_string(),
        routes,
        automatic,
        state: State::of(record),
    })
}

pub fn remove(options: &ShimRm, context: &Context) -> Result<()> {
    let chosen: Vec<Attachment> =
        shim::all(&*context.store)?.into_iter().filter(|one| shim::is_on(one, &options.host_interface)).collect();
    if !chosen.is_empty() {
        require_capabilities()?;
    }
    for shim in &chosen {
        take_back::anywhere(context, shim)?;
        context.output.line(format_args!("{}: {} removed", options.host_interface, shim.interface()));
    }
    take_back::on_the_host(context, &chosen)?;
    if let Some(shim) = chosen.last() {
        context.store.flush(&shim.key())?;
    } else {
        context.output.line(format_args!("{}: there is no shim", options.host_interface));
    }
    let removed: Vec<&str> = chosen.iter().map(Attachment::interface).collect();
    context.output.document(&serde_json::json!({ "removed": removed }));
    Ok(())
}
