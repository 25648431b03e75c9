//! The man pages and the completions are made from the command line as `src/cli.rs` has it. They are
//! committed, so that packagers and readers need no build, and compared here, so that they are true.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::{PLUMB, Plumb, project};

const FOLDERS: [&str; 2] = ["man", "completions"];

/// Compares, or with `PLUMB_GENERATE` set writes: that is scripts/generate.
#[test]
fn what_is_committed_is_what_is_generated() {
    let generated = generated();
    if std::env::var_os("PLUMB_GENERATE").is_some() {
        write(&generated);
    }
    let committed = committed();
    let names: std::collections::BTreeSet<&PathBuf> = generated.keys().chain(committed.keys()).collect();
    let wrong: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (generated.get(name), committed.get(name)) {
            (Some(_), None) => Some(format!("{} is missing", name.display())),
            (None, Some(_)) => Some(format!("{} is not generated, so it does not belong there", name.display())),
            (now, then) => (now != then).then(|| format!("{} is stale", name.display())),
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}\nrun scripts/generate", wrong.join("\n"));
}

#[test]
fn nothing_generated_tells_of_the_machine_that_it_was_generated_on() {
    let here = [project(""), PathBuf::from(PLUMB).parent().unwrap().to_owned()];
    for (name, text) in generated() {
        for folder in &here {
            assert!(!text.contains(&*folder.to_string_lossy()), "{} names {}", name.display(), folder.display());
        }
    }
}

fn write(generated: &BTreeMap<PathBuf, String>) {
    for folder in FOLDERS {
        fs::create_dir_all(project(folder)).unwrap();
    }
    for name in committed().keys().filter(|name| !generated.contains_key(*name)) {
        fs::remove_file(project(name)).unwrap();
    }
    for (name, text) in generated {
        fs::write(project(name), text).unwrap();
    }
}

fn committed() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(project(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            files.insert(path.strip_prefix(project("")).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
        }
    }
    files
}

/// All files by their names from the project's folder.
fn generated() -> BTreeMap<PathBuf, String> {
    let mut plumb = netplumb::cli::command();
    plumb.build();
    let mut files: BTreeMap<PathBuf, String> = with_verbs(&plumb).into_iter().map(page).collect();
    for (shell, name) in [("bash", "plumb.bash"), ("zsh", "_plumb"), ("fish", "plumb.fish")] {
        let script = Plumb::new().run(&format!("completions {shell}")).ok().out;
        files.insert(PathBuf::from("completions").join(name), script);
    }
    files
}

/// A command and all below it.
fn with_verbs(command: &clap::Command) -> Vec<clap::Command> {
    command.get_subcommands().flat_map(with_verbs).chain([command.clone()]).collect()
}

/// A man page. clap_mangen makes its parts; put together they are here, as it would lose the commands
/// of the examples in one paragraph, and a heading without a date. A date would be stale by tomorrow.
fn page(mut command: clap::Command) -> (PathBuf, String) {
    let usage = command.render_usage().to_string().replace("Usage: ", "");
    let closing = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (is_verb, is_plumb) = (!command.has_subcommands(), command.get_name() == "plumb");
    let man = Man::new(command.override_usage(usage).subcommand_help_heading("COMMANDS"));
    let mut text = Vec::new();
    man.render_name_section(&mut text).unwrap();
    man.render_synopsis_section(&mut text).unwrap();
    man.render_description_section(&mut text).unwrap();
    man.render_options_section(&mut text).unwrap();
    if !is_verb {
        man.render_subcommands_section(&mut text).unwrap();
    }
    let mut end = Roff::new();
    closing_sections(&closing, &mut end);
    if !is_plumb {
        end.control("SH", ["SEE ALSO"]).text([roman("plumb(1)")]);
    }
    end.to_writer(&mut text).unwrap();
    let name = man.get_filename();
    let heading =
        format!(".TH {} 1 \"\" \"plumb {}\" \"plumb\"\n", name.trim_end_matches(".1"), env!("CARGO_PKG_VERSION"));
    // Each part defines how an apostrophe is written; once is enough.
    let text = String::from_utf8(text).unwrap().replace(APOSTROPHE, "");
    (PathBuf::from("man").join(name), [APOSTROPHE, &heading, &text].concat())
}

const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// What stands below a help text: sections that begin with their title and a colon. Indented lines
/// are commands, one each.
fn closing_sections(text: &str, page: &mut Roff) {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.split_once(": "), line.strip_suffix(':'), sections.last_mut()) {
            (Some((title, rest)), _, _) if title.starts_with(char::is_uppercase) => {
                sections.push((title.to_uppercase(), vec![rest]))
            }
            (_, Some(title), _) => sections.push((title.to_uppercase(), Vec::new())),
            (_, _, Some((_, lines))) => lines.push(line),
            (_, _, None) => panic!("{line:?} stands below a help text, but under no title"),
        }
    }
    for (title, lines) in sections {
        page.control("SH", [title.as_str()]);
        let are_commands = lines.iter().all(|line| line.starts_with("  "));
        if are_commands {
            page.control("nf", []);
        }
        for line in lines {
            page.text([roman(line.trim_start())]);
        }
        if are_commands {
            page.control("fi", []);
        }
    }
}
