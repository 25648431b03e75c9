//! The house's rules, and plumb's command line up to where it would touch the kernel. Needs no root,
//! no network and no engine.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cli;
mod from_pipework;
mod generated;
mod layers;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");

/// plumb in an environment of its own: an empty store, no configuration, no engine, and none of the
/// variables that whoever runs the tests may have set.
struct Plumb {
    folder: tempfile::TempDir,
    environment: BTreeMap<&'static str, OsString>,
    starter: Vec<&'static str>,
}

impl Plumb {
    fn new() -> Plumb {
        let folder = tempfile::tempdir().unwrap();
        let nobody = format!("unix://{}", folder.path().join("no-engine").display());
        Plumb { folder, environment: BTreeMap::new(), starter: Vec::new() }
            .without_variables()
            .with("PLUMB_CONFIG", "/dev/null")
            .with("DOCKER_HOST", &nobody)
            .with("PLUMB_PODMAN", &nobody)
            .in_store()
    }

    fn with(mut self, variable: &'static str, value: impl Into<OsString>) -> Plumb {
        self.environment.insert(variable, value.into());
        self
    }

    fn without(mut self, variable: &str) -> Plumb {
        self.environment.remove(variable);
        self
    }

    /// None but the one by which programs are found.
    fn without_variables(mut self) -> Plumb {
        self.environment = BTreeMap::from([("PATH", std::env::var_os("PATH").unwrap_or_default())]);
        self
    }

    fn in_store(self) -> Plumb {
        let store = self.store();
        self.with("PLUMB_STORE", store)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn with_config(self, text: &str) -> Plumb {
        let path = self.config();
        fs::write(&path, text).unwrap();
        self.with("PLUMB_CONFIG", path)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("plumb.toml")
    }

    fn with_record(self, name: &str, text: &str) -> Plumb {
        fs::create_dir_all(self.store().join("flat")).unwrap();
        fs::write(self.record(name), text).unwrap();
        self
    }

    fn record(&self, name: &str) -> PathBuf {
        self.store().join("flat").join(format!("{name}.json"))
    }

    /// With an engine that runs containers of these names and tells of nothing else.
    fn with_containers(self, names: &[&str]) -> Plumb {
        let socket = self.folder.path().join("engine");
        answer(UnixListener::bind(&socket).unwrap(), names);
        let address = format!("unix://{}", socket.display());
        self.with("DOCKER_HOST", address)
    }

    /// Started by another program, such as one that takes capabilities away.
    fn by(mut self, starter: &[&'static str]) -> Plumb {
        self.starter = starter.to_vec();
        self
    }

    fn run(&self, arguments: &str) -> Ran {
        self.run_program(PLUMB, arguments.split_whitespace())
    }

    fn run_program<'a>(&self, program: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let words: Vec<&str> = self.starter.iter().copied().chain([program]).chain(arguments).collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A finished run.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// It ended with this code and said exactly this, on stderr only.
    #[track_caller]
    fn refused(self, code: i32, message: &str) -> Ran {
        assert_eq!((self.code, self.message(), self.out.as_str()), (code, message, ""), "{self:#?}");
        self
    }

    #[track_caller]
    fn hints(self, hint: &str) -> Ran {
        assert!(self.err.contains(&format!("\n  hint: {hint}")), "{self:#?}");
        self
    }

    /// The first line of stderr without who says it: plumb of what it judges itself, `error` of what
    /// the parser of the command line does.
    fn message(&self) -> &str {
        let first = self.err.lines().next().unwrap_or_default();
        first.strip_prefix("plumb: ").or_else(|| first.strip_prefix("error: ")).unwrap_or(first)
    }

    /// The one document on stdout.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Answers every request on the socket with a list of containers, until the tests end.
fn answer(listener: UnixListener, names: &[&str]) {
    use std::io::{BufRead, BufReader, Write};
    let list: Vec<Value> =
        names.iter().map(|name| json!({ "Id": "0123456789abcdef", "Names": [format!("/{name}")] })).collect();
    let body = Value::from(list).to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            assert!(head.count() > 0);
            let length = body.len();
            // Whoever asked may have gone.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
}

/// A file of the project.
fn project(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
