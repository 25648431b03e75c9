//! `route`, `rule` and `link` in the order of words that iproute2 has them in.

use std::ffi::OsString;

use clap::{
    ValueEnum,
    error::{ContextKind, ContextValue},
};

use super::{Cli, LinkVerb, RouteVerb, RuleVerb};
use crate::types::{LINK_WORDS, ROUTE_WORDS, RULE_WORDS};

/// What was typed, understood. `route`, `rule` and `link` take iproute2's order of words too where it can mean
/// nothing else: `plumb route add web …`, `plumb link web up`.
///
/// # Errors
/// What cannot be, or help and version, which end a run as well.
pub fn parse(typed: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(typed).or_else(|mut error| {
        let words: Vec<&str> = typed.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        let Some(meant) = by_iproute2(&words, &error) else { return Err(error) };
        if let Meant::Surely(words) = &meant
            && let Ok(understood) = Cli::try_parse_from(words)
        {
            return Ok(understood);
        }
        let (Meant::Surely(words) | Meant::Perhaps(words)) = meant;
        let tip = format!("the whole command: plumb {}", words[1..].join(" "));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        Err(error)
    })
}

/// Words in plumb's order, of a command line whose action was none.
enum Meant<'a> {
    Surely(Vec<&'a str>),
    Perhaps(Vec<&'a str>),
}

fn by_iproute2<'a>(typed: &[&'a str], error: &clap::Error) -> Option<Meant<'a>> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let value = context(ContextKind::InvalidValue).filter(|_| context(ContextKind::InvalidArg) == Some("[ACTION]"))?;
    let verb = typed.iter().position(|word| ["route", "rule", "link"].contains(word))?;
    let at = verb + 2 + typed.get(verb + 2..)?.iter().position(|word| *word == value)?;
    let (verb, before, behind) = (typed[verb], typed[at - 1], &typed[at..]);
    let is_action = match verb {
        "route" => RouteVerb::from_str(before, false).is_ok(),
        "rule" => RuleVerb::from_str(before, false).is_ok(),
        _ => LinkVerb::from_str(before, false).is_ok(),
    };
    let mut words = typed.to_vec();
    if is_action {
        words.swap(at - 1, at);
        return Some(Meant::Surely(words));
    }
    let is_network = || value == "default" || value.contains(['.', ':', '/']);
    let (action, is_sure) = match verb {
        "link" if LINK_WORDS.contains(&value) => ("set", true),
        "link" if behind.iter().any(|word| LINK_WORDS.contains(word)) => ("set", false),
        "route" if is_network() || ROUTE_WORDS.contains(&value) => ("add", false),
        "rule" if RULE_WORDS.contains(&value) => ("add", false),
        _ => return None,
    };
    words.insert(at, action);
    Some(if is_sure { Meant::Surely(words) } else { Meant::Perhaps(words) })
}
