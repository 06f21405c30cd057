//! `man`: the manual page.

use super::error::CliError;
use crate::exit::Code;
use crate::ui::Out;

pub(super) fn run(out: &Out, command: clap::Command) -> Result<Code, CliError> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command).render(&mut text);
    page.map_err(|error| CliError::failed("writing the manual page", &error))?;
    out.text(&String::from_utf8_lossy(&text));
    Ok(Code::Fine)
}
