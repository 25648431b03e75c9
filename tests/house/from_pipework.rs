//! docs/from-pipework.md says what plumb does: each line of its table becomes what stands beside it, which plumb
//! understands, and each difference that a case of tests/pipework/cases names is explained.

use std::{collections::BTreeSet, fs};

use netplumb::{
    cli::Cli,
    pipework::{self, Found, HostInterface, Kind, Request},
};

use crate::project;

fn page() -> String {
    fs::read_to_string(project("docs/from-pipework.md")).unwrap()
}

/// Each old line with the new one, without the programs' names.
fn lines(page: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `pipework ")?.split('`');
        let (old, _, new) = (cells.next()?, cells.next()?, cells.next()?);
        Some((old.to_owned(), new.strip_prefix("plumb ")?.replace('…', "--probe 0 --no-check")))
    };
    page.lines().filter_map(row).collect()
}

/// What a host has under a name that says it.
fn found(name: &str) -> Found {
    let kind = match name.trim_end_matches(char::is_numeric) {
        "eth" => Some(Kind::Other),
        "br" => Some(Kind::Bridge),
        "ovs" => Some(Kind::OpenVswitch),
        "ib" => Some(Kind::Infiniband),
        "wlan" => Some(Kind::Wifi),
        _ => None,
    };
    Found { name: name.parse().unwrap(), kind, pid: Some(4242) }
}

fn translated(old: &str) -> String {
    let words: Vec<String> = old.split(' ').map(str::to_owned).collect();
    let request = pipework::read(&words).unwrap().unwrap();
    let host = match &request {
        Request::Attach(attach) => Some(match &attach.host {
            HostInterface::Named(name) => found(name),
            HostInterface::WithMac(_) => found("eth0"),
        }),
        Request::Wait { .. } | Request::Inside(_) => None,
    };
    pipework::say(&request, host.as_ref()).unwrap().to_string().replacen("plumb ", "", 1)
}

#[test]
fn each_line_becomes_what_stands_beside_it() {
    let page = page();
    let lines = lines(&page);
    assert!(lines.len() >= 25, "{lines:#?}");
    for (old, new) in &lines {
        assert_eq!(translated(old), *new, "pipework {old}");
    }
}

#[test]
fn plumb_understands_each_new_line() {
    for (old, new) in lines(&page()) {
        if let Err(error) = Cli::try_parse_from(format!("plumb {new}").split(' ')) {
            panic!("pipework {old} becomes plumb {new}\n{error}");
        }
    }
}

#[test]
fn each_difference_is_explained_and_each_explanation_is_of_one() {
    let page = page();
    let explained: BTreeSet<&str> =
        page.lines().filter_map(|line| Some(line.strip_prefix("- **")?.split_once("**")?.0)).collect();
    let cases = fs::read_to_string(project("tests/pipework/cases")).unwrap();
    let (_, cases) = cases.split_once("\n\n").unwrap();
    let named: BTreeSet<&str> =
        cases.lines().filter_map(|line| line.strip_prefix("! ")).flat_map(str::split_whitespace).collect();
    assert_eq!(named, explained);
}
