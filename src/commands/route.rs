//! `plumb route`: the routes of a target, changed as `ip route` changes them, and taken back.

use serde_json::{Map, json};

use super::{
    Context,
    changing::{self, Needs, Row},
};
use crate::{
    cli::{Route, RouteVerb},
    error::{Error, Result},
    plan::{
        self, Inside,
        changes::{How, delete_route, expected_routes, set_route},
    },
    store::Attachment,
    types::{RouteWords, table_name, table_of},
};

pub fn run(options: Route, context: &Context) -> Result<()> {
    let ipv6 = changing::ipv6(&options.version);
    if options.verb == RouteVerb::Show {
        return show(&options, ipv6, context);
    }
    let verb = options.verb;
    let words = RouteWords::parse(&options.words, ipv6).map_err(|error| match options.words.is_empty() {
        true => error.hint(example(&options)),
        false => error,
    })?;
    changing::run(&options.target, &options.how, Needs::default(), context, |present| match verb {
        RouteVerb::Del => delete_route(&words, present),
        RouteVerb::Replace => set_route(&words, How::Replace, present),
        RouteVerb::Append => set_route(&words, How::Append, present),
        RouteVerb::Add | RouteVerb::Show => set_route(&words, How::Add, present),
    })
}

/// The whole command, for who has said nothing of the route.
fn example(options: &Route) -> String {
    let target = &options.target;
    match options.verb {
        RouteVerb::Del => format!("such as plumb route {target} del 10.0.0.0/8; plumb route {target} lists them"),
        RouteVerb::Add | RouteVerb::Show => format!("such as plumb route {target} add 10.0.0.0/8 via 192.168.0.1"),
        RouteVerb::Replace => format!("such as plumb route {target} replace default via 192.168.0.1"),
        RouteVerb::Append => format!("such as plumb route {target} append default via 192.168.0.2"),
    }
}

/// One table, the main one unless another is said, or all.
fn show(options: &Route, ipv6: Option<bool>, context: &Context) -> Result<()> {
    let table = match options.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(254),
        ["table", "all"] => None,
        ["table", table] => Some(table_of(table).map_err(Error::usage)?),
        _ => {
            return Err(Error::usage("show lists the routes of a table, and what is behind it names none")
                .hint("table 100, table all, or nothing for the main table"));
        }
    };
    let is_wanted = |route: &&plan::Route| {
        table.is_none_or(|table| route.table() == table) && ipv6.is_none_or(|ipv6| route.is_ipv6() == ipv6)
    };
    changing::show(&options.target, ("ROUTE", "routes"), context, |inside, attached, _| {
        Ok(inside.routes.iter().filter(is_wanted).map(|route| row(route, inside, attached)).collect())
    })
}

fn row(route: &plan::Route, inside: &Inside, attached: &[Attachment]) -> Row {
    let details = json!({
        "ipv6": route.is_ipv6(),
        "destination": route.destination().map(|network| network.to_string()),
        "via": route.gateways(),
        "dev": route.leaves_by().and_then(|index| inside.name_of(index)),
        "metric": route.metric(),
        "table": table_name(route.table()),
    });
    let owner = attached.iter().find(|attachment| {
        let is_it = |expected: &plan::Route| expected.is(route);
        let by_its_link = attachment.link().is_some_and(|link| route.leaves_by() == Some(link.index));
        by_its_link || expected_routes(attachment.all_steps()).iter().any(is_it)
    });
    let details = if let serde_json::Value::Object(details) = details { details } else { Map::new() };
    Row { details, text: route.brief(), goes_with: owner.map(|attachment| attachment.name_now().to_owned()) }
}
