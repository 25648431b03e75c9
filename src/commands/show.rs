use super::Context; use crate::error::Result; pub fn run(_o: crate::cli::Show, _c: &Context) -> Result<()> { Ok(()) }
