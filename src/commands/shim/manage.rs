//! Shims listed, taken away, and put back after a reboot.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::follow_all;
use crate::{
    cli::{Restore, ShimRm},
    commands::{
        Context, attach, attaching,
        attaching::{Intent, Joining, Uplink},
        ls::State,
        require_capabilities, take_back,
    },
    error::{Error, Result},
    output::flush_left,
    plan::Step,
    shim,
    store::{Attachment, Progress, attachment},
    types::{Span, TargetName},
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

/// What this host itself had before it was booted: its shims, and its gateways.
pub fn restore(options: &Restore, context: &Context) -> Result<()> {
    require_capabilities()?;
    let (mut restored, mut failures) = (Vec::new(), Vec::new());
    for kept in attachment::all(&*context.store, Some(&TargetName::Host))? {
        match kept {
            Err(error) => failures.push(error),
            Ok(record) if record.progress == Progress::Unfinished => {}
            Ok(record) if matches!(State::of(&record), State::Up | State::Down) => {}
            Ok(record) => match put_back(&record, options, context) {
                Ok(()) => restored.push(record.interface().to_owned()),
                Err(error) => failures.push(error),
            },
        }
    }
    if !options.dry_run {
        follow_all(context)?.iter().for_each(|warning| context.output.warn(warning));
    }
    for interface in &restored {
        let when = if options.dry_run { "would be put back" } else { "is back" };
        context.output.line(format_args!("{interface} {when}"));
    }
    if restored.is_empty() && failures.is_empty() {
        context.output.line("there is nothing to put back");
    }
    context.output.conclude(serde_json::json!({ "dry_run": options.dry_run, "restored": restored }), failures)
}

fn put_back(record: &Attachment, options: &Restore, context: &Context) -> Result<()> {
    let Some(link) = record.link() else {
        return Err(Error::failed(format!("the record of {} names no link", record.key())));
    };
    let uplink = match &record.network {
        None => Uplink::Interface(link.parent.name.clone()),
        Some(name) => {
            let stored = attach::find(name, context)?;
            let host_interface = stored.network.parent.clone();
            Uplink::Network(Box::new(match record.is_gateway() {
                true => Joining::as_gateway(stored),
                false => Joining::new(stored, host_interface, Vec::new()),
            }))
        }
    };
    // Nobody but this host had its addresses before, and the LAN may not be there yet.
    let intent = Intent { uplink, lease: None, probe: Span::millis(0), check: Vec::new(), dry_run: options.dry_run };
    // What comes out of a pool is chosen again, and what was had before is preferred.
    let addresses = if record.network.is_some() { Vec::new() } else { record.wish.addresses.clone() };
    let wish = crate::plan::Wish { addresses, name: Some(link.name.clone()), ..record.wish.clone() };
    attaching::attach(&TargetName::Host, None, wish, &intent, context).map(drop)
}
