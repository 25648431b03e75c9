use super::Context; use crate::error::Result; pub fn run(_o: crate::cli::Detach, _c: &Context) -> Result<()> { Ok(()) }
