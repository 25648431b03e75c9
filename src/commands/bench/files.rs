//! The files that a report goes to, made sure of before anything is measured.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// A file that can be written.
pub struct Writable {
    path: PathBuf,
    /// There was none before. Where nothing comes to be written, none is left.
    is_new: bool,
}

impl Writable {
    pub fn new(path: &Path) -> Result<Writable> {
        let is_new = !path.exists();
        OpenOptions::new().append(true).create(true).open(path).map_err(|error| cannot_write(path, &error))?;
        Ok(Writable { path: path.to_owned(), is_new })
    }

    pub fn write(&mut self, text: &str) -> Result<()> {
        fs::write(&self.path, text).map_err(|error| cannot_write(&self.path, &error))?;
        self.is_new = false;
        Ok(())
    }

    pub fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), error)
        .hint("choose a file in a directory that exists and may be written")
}

impl Drop for Writable {
    fn drop(&mut self) {
        if self.is_new {
            let _ = fs::remove_file(&self.path);
        }
    }
}
