//! The machine that was measured on.

use std::fs;

use crate::bench::{
    generator::processors,
    report::{Circumstances, moment},
};

pub fn circumstances() -> Circumstances {
    let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    Circumstances {
        kernel: kernel.unwrap_or_default(),
        processor: processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        processors: processors().len(),
        version: env!("CARGO_PKG_VERSION"),
        when: moment(now.as_secs()),
        command: format!("plumb {}", words.join(" ")),
        ..Circumstances::default()
    }
}

/// As `/proc/cpuinfo` calls it, where it has a name.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
