//! Each module uses only those below it. Here is the table, and a reader of the sources that holds
//! them to it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::project;

/// The modules from top to bottom, each with those that it may use. All of them stand below it.
const TABLE: [(&str, &[&str]); 23] = [
    ("main", &["commands", "cli", "output", "interrupt", "error"]),
    ("lib", &[]),
    (
        "commands",
        &[
            "agent",
            "shim",
            "namespace",
            "cli",
            "config",
            "container",
            "docker",
            "kernel",
            "bench",
            "apply",
            "store",
            "plan",
            "pipework",
            "ipam",
            "dhcp",
            "types",
            "output",
            "interrupt",
            "error",
        ],
    ),
    (
        "agent",
        &["shim", "namespace", "container", "kernel", "apply", "store", "plan", "dhcp", "types", "interrupt", "error"],
    ),
    ("shim", &["namespace", "kernel", "apply", "store", "plan", "types", "error"]),
    ("namespace", &["container", "kernel", "store", "types", "error"]),
    ("cli", &["complete", "bench", "dhcp", "types"]),
    ("complete", &["config", "docker", "store", "types", "error"]),
    ("config", &["store", "types", "error"]),
    ("container", &["docker", "types", "interrupt", "error"]),
    ("docker", &["types", "error"]),
    ("kernel", &["bench", "apply", "plan", "dhcp", "types", "interrupt", "error"]),
    ("bench", &["plan", "types", "error"]),
    ("apply", &["plan", "interrupt", "error"]),
    ("pipework", &["plan", "types", "error"]),
    ("store", &["plan", "ipam", "dhcp", "types", "error"]),
    ("plan", &["types", "error"]),
    ("ipam", &["types"]),
    ("dhcp", &["types"]),
    ("types", &["error"]),
    ("output", &["error"]),
    ("interrupt", &["error"]),
    ("error", &[]),
];

/// Who speaks to the world, by the beginning of what they speak with; the first row that fits counts.
const SPEAKERS: [(&str, &[&str]); 9] = [
    // The kernel's messages are data as well: a plan keeps a route as the kernel described it.
    ("rtnetlink::packet_", &["kernel", "plan"]),
    ("rtnetlink", &["kernel"]),
    ("netlink_packet_netfilter", &["kernel"]),
    ("bollard", &["docker"]),
    ("hyper", &["store"]),
    ("prost", &["store"]),
    ("tokio_rustls", &["store"]),
    ("dhcproto", &["dhcp"]),
    ("caps", &["commands"]),
];

/// The layers that look at nothing but what they are given.
const PURE: [&str; 3] = ["plan", "dhcp", "pipework"];

/// What they must not look at, or they could not be tested by that alone.
const IMPURE: [&str; 11] =
    ["fs", "env", "process", "thread", "io", "os", "Instant", "SystemTime", "UdpSocket", "TcpStream", "TcpListener"];

/// What has no home has no name yet.
const NO_NAMES: [&str; 11] =
    ["util", "utils", "common", "core", "helper", "helpers", "manager", "managers", "misc", "shared", "base"];

#[test]
fn each_module_uses_only_those_the_table_allows() {
    let mut violations = Vec::new();
    for file in sources() {
        let allowed = allowed(&file.layer);
        for path in file.paths() {
            let Some(used) = file.layer_of(&path) else { continue };
            if used != file.layer && !allowed.contains(&used.as_str()) {
                violations.push(format!("{}: {} must not use {used}", file.at(path.line), file.layer));
            }
        }
    }
    none(&violations);
}

#[test]
fn the_table_leads_down_and_names_what_there_is() {
    let order: Vec<&str> = TABLE.iter().map(|(layer, _)| *layer).collect();
    for (at, (layer, allowed)) in TABLE.iter().enumerate() {
        for used in *allowed {
            assert!(order[at + 1..].contains(used), "the table lets {layer} use {used}, which does not stand below it");
        }
    }
    let named: BTreeSet<String> = order.into_iter().map(str::to_owned).collect();
    let there: BTreeSet<String> = sources().into_iter().map(|file| file.layer).collect();
    assert_eq!(named, there, "the modules of the table, and those of src/");
}

#[test]
fn netlink_is_spoken_in_one_place_and_so_is_the_engines_language() {
    let mut violations = Vec::new();
    for file in sources() {
        for path in file.paths() {
            let written = path.segments.join("::");
            let Some((_, speakers)) = SPEAKERS.iter().find(|(beginning, _)| written.starts_with(beginning)) else {
                continue;
            };
            if !speakers.contains(&file.layer.as_str()) {
                violations.push(format!("{}: {written} is for {} only", file.at(path.line), speakers.join(" and ")));
            }
        }
    }
    none(&violations);
}

#[test]
fn the_pure_layers_look_at_nothing_but_what_they_are_given() {
    let mut violations = Vec::new();
    for file in sources().iter().filter(|file| PURE.contains(&file.layer.as_str())) {
        for path in file.paths().iter().filter(|path| path.segments[0] == "std") {
            if path.segments.iter().any(|segment| IMPURE.contains(&segment.as_str())) {
                let (at, used) = (file.at(path.line), path.segments.join("::"));
                violations.push(format!("{at}: {} must not use {used}", file.layer));
            }
        }
    }
    none(&violations);
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let mut violations = Vec::new();
    for file in sources() {
        let of_file = file.module.iter().map(|name| (name.clone(), 1));
        let inline = file.modules().into_iter().map(|module| (module.name, module.line));
        for (name, line) in of_file.chain(inline).filter(|(name, _)| NO_NAMES.contains(&name.as_str())) {
            violations.push(format!("{}: a module called {name}", file.at(line)));
        }
    }
    none(&violations);
}

#[test]
fn the_reader_understands_groups_nested_modules_and_what_is_no_code() {
    let text = r##"
        //! crate::comment
        use crate::{apply::{self, Step}, plan as planned};
        use super::super::types::*;
        pub(crate) fn f<'a>(_: &'a str) { let _ = ("crate::string", 'c', r#"crate::"raw""#); super::own(crate::docker::x::<u8>()) }
        /* crate::a /* crate::b */ crate::c */
        mod tests {
            use super::*;
            use super::super::super::store::Store;
        }
        use super::after;
    "##;
    let file = Source {
        path: "src/kernel/netns.rs".into(),
        text: text.into(),
        layer: "kernel".into(),
        module: vec!["kernel".into(), "netns".into()],
    };
    let found: Vec<(usize, Option<String>)> =
        file.paths().iter().map(|path| (path.line, file.layer_of(path))).collect();
    let layer = |line, name: &str| (line, Some(name.to_owned()));
    let expected = [
        (3, "apply"),
        (3, "apply"),
        (3, "plan"),
        (4, "types"),
        (5, "kernel"),
        (5, "docker"),
        (8, "kernel"),
        (9, "store"),
        (11, "kernel"),
    ];
    assert_eq!(found, expected.map(|(line, name)| layer(line, name)));
}

#[track_caller]
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\nthe rules are at the top of tests/house/layers.rs", violations.join("\n"));
}

fn allowed(layer: &str) -> &'static [&'static str] {
    TABLE.iter().find(|(name, _)| *name == layer).map_or(&[], |(_, allowed)| allowed)
}

/// A file of src/.
struct Source {
    /// From the project's folder.
    path: PathBuf,
    text: String,
    /// Its row of the table: the first part of its module's path, `main` or `lib`.
    layer: String,
    /// Its module, empty at the crate's root.
    module: Vec<String>,
}

/// A path as it is written: `crate::plan::Step`. Of `use a::{b, c}` there are two.
struct Written {
    line: usize,
    segments: Vec<String>,
    /// The module that it is written in.
    module: Vec<String>,
}

struct InlineModule {
    line: usize,
    name: String,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&project("src"), &mut files);
    files.sort();
    assert!(files.len() > 20, "src/ is not where it was");
    files.into_iter().map(Source::read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn read(path: PathBuf) -> Source {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(project("")).unwrap().to_owned();
        let mut module: Vec<String> =
            path.with_extension("").iter().skip(1).map(|part| part.to_str().unwrap().to_owned()).collect();
        let layer = module[0].clone();
        if module.last().is_some_and(|last| last == "mod") || module == ["main"] || module == ["lib"] {
            module.pop();
        }
        Source { path, text, layer, module }
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The row of the table that a path leads to, if it leads to one of ours.
    fn layer_of(&self, path: &Written) -> Option<String> {
        let mut there = path.module.clone();
        for (at, segment) in path.segments.iter().enumerate() {
            match segment.as_str() {
                "crate" | "netplumb" if at == 0 => there.clear(),
                "self" => {}
                "super" => drop(there.pop()),
                // From here on it is a name in this crate, or at the beginning one of another's.
                _ if at == 0 => return None,
                name => {
                    there.push(name.to_owned());
                    break;
                }
            }
        }
        there.into_iter().next()
    }

    fn paths(&self) -> Vec<Written> {
        self.walk().0
    }

    fn modules(&self) -> Vec<InlineModule> {
        self.walk().1
    }

    /// All paths of two segments and more, and all modules that are declared here.
    fn walk(&self) -> (Vec<Written>, Vec<InlineModule>) {
        let tokens = tokens(&self.text);
        let (mut paths, mut modules) = (Vec::new(), Vec::new());
        // The inline modules around, each with the depth of braces that it ends at.
        let (mut around, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let next = |n: usize| tokens.get(at + n).map_or("", |token| token.text);
            match token.text {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    around.pop_if(|(_, ends_at)| *ends_at == depth);
                }
                "mod" => {
                    modules.push(InlineModule { line: token.line, name: next(1).to_owned() });
                    if next(2) == "{" {
                        around.push((next(1).to_owned(), depth));
                    }
                }
                _ if token.is_word() && next(1) == "::" => {
                    let module: Vec<String> =
                        self.module.iter().cloned().chain(around.iter().map(|(name, _)| name.clone())).collect();
                    let mut found = Vec::new();
                    at = tree(&tokens, at, &[], &mut found);
                    paths.extend(found.into_iter().map(|(line, segments)| Written {
                        line,
                        segments,
                        module: module.clone(),
                    }));
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        (paths, modules)
    }
}

/// Reads the tree of paths that begins at `at` and says where it ends.
fn tree(tokens: &[Token<'_>], mut at: usize, before: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    // What is no name is a comma, or the other name behind "as".
                    at = if tokens[at].is_word() || tokens[at].text == "*" {
                        tree(tokens, at, &path, found)
                    } else {
                        at + 1
                    };
                    if tokens.get(at).is_some_and(|token| token.text == "as") {
                        at += 2;
                    }
                }
                return at + 1;
            }
            text if token.is_word() || text == "*" => {
                path.push(text.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|token| token.text != "::") {
                    break;
                }
                at += 1;
            }
            // `x::<T>`
            _ => break,
        }
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    found.push((line, path));
    at
}

/// A word, `::`, or a single other character of code.
struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The code of a source, without space, comments and literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while !rest.is_empty() {
        let (length, is_code) = lexeme(rest);
        let (text, behind) = rest.split_at(length);
        if is_code {
            tokens.push(Token { line, text });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

/// How long what `text` begins with is, and whether it is code.
fn lexeme(text: &str) -> (usize, bool) {
    let first = text.chars().next().unwrap_or_default();
    let literal = text.trim_start_matches('b');
    let hashes = literal.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
    if text.starts_with("//") {
        (text.find('\n').unwrap_or(text.len()), false)
    } else if text.starts_with("/*") {
        (comment(text), false)
    } else if let Some(hashes) = hashes.filter(|hashes| literal[1 + hashes..].starts_with('"')) {
        let end = format!("\"{}", "#".repeat(hashes));
        let opened = text.len() - literal.len() + hashes + 2;
        (text[opened..].find(&end).map_or(text.len(), |at| opened + at + end.len()), false)
    } else if literal.starts_with('"') {
        (text.len() - literal.len() + quoted(literal), false)
    } else if first == '\'' && (text[1..].starts_with('\\') || text.chars().nth(2) == Some('\'')) {
        (quoted(text), false)
    } else if text.starts_with("::") {
        (2, true)
    } else if first.is_alphanumeric() || first == '_' {
        (text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()), true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

/// The length of a literal that ends with the quote that it begins with.
fn quoted(text: &str) -> usize {
    let quote = text.chars().next();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if Some(c) == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a block comment. They nest.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while let Some(mark) = text[at..].find(['/', '*']) {
        at += mark;
        match text.get(at..at + 2) {
            Some("/*") => depth += 1,
            Some("*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}
