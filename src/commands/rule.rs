//! `plumb rule`: a target's rules about which table decides, changed as `ip rule` changes them, and taken back.

use serde_json::{Map, json};

use super::{
    Context,
    changing::{self, Needs, Row},
};
use crate::{
    cli::{Rule, RuleVerb},
    error::{Error, Result},
    plan::{
        self,
        changes::{add_rule, delete_rule, expected_rules},
    },
    store::Attachment,
    types::{RuleWords, table_name},
};

pub fn run(options: Rule, context: &Context) -> Result<()> {
    let ipv6 = changing::ipv6(&options.version);
    if options.verb == RuleVerb::Show {
        return show(&options, ipv6, context);
    }
    let words = RuleWords::parse(&options.words, ipv6)?;
    let verb = options.verb;
    changing::run(&options.target, &options.how, Needs::default(), context, |present| match verb {
        RuleVerb::Del => delete_rule(&words, present),
        RuleVerb::Add | RuleVerb::Show => add_rule(&words, present),
    })
}

fn show(options: &Rule, ipv6: Option<bool>, context: &Context) -> Result<()> {
    if let Some(word) = options.words.first() {
        return Err(Error::usage(format!("show lists all rules, so {word:?} has no meaning")));
    }
    let is_wanted = |rule: &&plan::Rule| ipv6.is_none_or(|ipv6| rule.is_ipv6() == ipv6);
    changing::show(&options.target, ("RULE", "rules"), context, |inside, attached, _| {
        Ok(inside.rules.iter().filter(is_wanted).map(|rule| row(rule, attached)).collect())
    })
}

fn row(rule: &plan::Rule, attached: &[Attachment]) -> Row {
    let details = json!({
        "ipv6": rule.is_ipv6(),
        "priority": rule.priority(),
        "table": rule.table().map(table_name),
    });
    let has_it =
        |attachment: &&Attachment| expected_rules(attachment.all_steps()).iter().any(|expected| expected.is(rule));
    let owner = attached.iter().find(has_it);
    let details = if let serde_json::Value::Object(details) = details { details } else { Map::new() };
    Row { details, text: rule.brief(), goes_with: owner.map(|attachment| attachment.name_now().to_owned()) }
}
