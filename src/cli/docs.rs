//! Completions and manual pages, made from the definitions in `args`. It never holds a text of its own.

use super::Outcome;
use super::args::{Cli, Mount8Args};
use super::exit::print;
use crate::error::Error;
use clap::CommandFactory;
use std::fs;
use std::io;
use std::path::Path;

/// `storefs completions`.
pub(super) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "storefs", &mut text);
    Ok(print(&String::from_utf8_lossy(&text))?)
}

/// `storefs man`: a page for the program, one for each verb, one for what mount(8) runs. Prints their paths.
pub(super) fn man(dir: &Path) -> Outcome {
    const OP: &str = "write the manual pages into";
    let fault = |why: io::Error| Error::io(OP, dir.display().to_string(), why);
    fs::create_dir_all(dir).map_err(fault)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut written = String::new();
    let verbs = program.get_subcommands().map(|verb| (verb, "1"));
    let for_mount = Mount8Args::command();
    let pages = [(&program, "1")]
        .into_iter()
        .chain(verbs)
        .chain([(&for_mount, "8")]);
    for (command, section) in pages {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = dir.join(format!("{name}.{section}"));
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(command.clone()).section(section);
        page.render(&mut text)
            .and_then(|()| fs::write(&path, text))
            .map_err(fault)?;
        written.push_str(&format!("{}\n", path.display()));
    }
    Ok(print(&written)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let temp = tempfile::tempdir().unwrap();
        man(temp.path()).unwrap();
        for name in [
            "storefs.1",
            "storefs-mount.1",
            "storefs-umount.1",
            "mount.fuse.storefs.8",
        ] {
            let text = fs::read_to_string(temp.path().join(name)).unwrap();
            assert!(text.contains(".TH"), "{name}");
        }
    }
}
