//! Every option of `-o` that means something, in one list: what is taken, what is told of it in help and in errors. It never
//! reads a value.

/// One of them.
pub(super) struct Listed {
    /// Its name.
    pub(super) name: &'static str,
    /// What its value looks like, when it takes one.
    pub(super) value: Option<&'static str>,
    /// What it does.
    what: &'static str,
    /// It is for servers only.
    of_servers: bool,
}

const fn flag(name: &'static str, what: &'static str) -> Listed {
    Listed {
        name,
        value: None,
        what,
        of_servers: false,
    }
}

const fn valued(name: &'static str, value: &'static str, what: &'static str) -> Listed {
    Listed {
        value: Some(value),
        ..flag(name, what)
    }
}

impl Listed {
    const fn of_servers(self) -> Self {
        Self {
            of_servers: true,
            ..self
        }
    }
}

const ALL: [Listed; 27] = [
    flag("ro", "nothing can be written"),
    flag("rw", "it can be written (the default)"),
    flag("allow_other", "other users may use the mount"),
    flag("noexec", "no program can be run out of it"),
    flag("exec", "programs can be run out of it (the default)"),
    valued("uid", "N", "every file belongs to this user"),
    valued("gid", "N", "every file belongs to this group"),
    valued(
        "umask",
        "OOO",
        "permission bits that are taken away, in octal",
    ),
    flag("nonempty", "mount over a directory that is not empty"),
    valued("default", "STORE", "which store is `default`"),
    valued("store", "NAME", "show only this store; may be repeated"),
    valued(
        "input-key",
        "KEY",
        "the key of the input, when it is not INPUT",
    ),
    valued(
        "ttl",
        "1s",
        "how old what `stat` and `ls` say may be; 0 is exact",
    ),
    valued(
        "layout",
        "auto|plain|js|python|dual",
        "how records are laid out in the folder",
    ),
    valued(
        "drain",
        "30s",
        "how long TERM waits for users, and the end for sending",
    ),
    flag(
        "no_passthrough",
        "the daemon moves the bytes itself, also as root",
    ),
    flag("no_spin", "the daemon sleeps between any two requests"),
    valued(
        "write",
        "back|through",
        "through: close waits until the server has it",
    )
    .of_servers(),
    valued(
        "fsync",
        "remote|local",
        "local: fsync waits for the local disk only",
    )
    .of_servers(),
    valued("debounce", "0.5s", "how long after an edit it is sent").of_servers(),
    valued(
        "cache",
        "DIR",
        "where cached bytes and unsent edits are kept",
    )
    .of_servers(),
    valued("cache-size", "10GiB", "cached bytes go when there are more").of_servers(),
    flag("allow-store-delete", "rmdir removes an empty store").of_servers(),
    flag("compress", "records are sent with gzip where that helps").of_servers(),
    flag(
        "exact-sizes",
        "untold lengths are learned by reading the records",
    )
    .of_servers(),
    valued(
        "token-file",
        "FILE",
        "the token is in this file, of mode 0600",
    )
    .of_servers(),
    flag("insecure", "plain http to another machine").of_servers(),
];

/// The option of this name.
pub(super) fn named(name: &str) -> Option<&'static Listed> {
    ALL.iter().find(|listed| listed.name == name)
}

/// All of them in one line, as errors have it.
pub(super) fn line() -> String {
    let names = |of_servers: bool| {
        let some = ALL.iter().filter(|listed| listed.of_servers == of_servers);
        let names = some.map(|listed| match listed.value {
            Some(_) => format!("{}=", listed.name),
            None => listed.name.to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{}, for remote sources {}, and those of mount(8) that have no meaning here",
        names(false),
        names(true)
    )
}

/// All of them with what they do, as help has it.
pub(super) fn help() -> String {
    let mut text = "Options of -o:\n".to_owned();
    for of_servers in [false, true] {
        if of_servers {
            text += "\nOptions of -o for apify: and servers:\n";
        }
        for listed in ALL.iter().filter(|listed| listed.of_servers == of_servers) {
            let shown = match listed.value {
                Some(value) => format!("{}={value}", listed.name),
                None => listed.name.to_owned(),
            };
            // What is too long for its column has a line of its own.
            text += &match shown.len() {
                0..22 => format!("  {shown:21} {}\n", listed.what),
                _ => format!("  {shown}\n  {:21} {}\n", "", listed.what),
            };
        }
    }
    text + "\nOptions of mount(8) such as noauto, nofail, _netdev and x-... are accepted and ignored.\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_option_is_told_of_and_taken_as_it_is_listed() {
        let (line, help) = (line(), help());
        for listed in &ALL {
            let name = listed.name;
            assert!(
                line.contains(name) && help.contains(&format!("  {name}")),
                "{name}"
            );
            let taken = |text: &str| super::super::options::parse(&[text], false);
            match listed.value {
                None => assert!(taken(name).is_ok(), "{name}"),
                Some(value) => {
                    let value = match name {
                        "uid" | "gid" => "7",
                        "umask" => "022",
                        _ => value.split('|').next().unwrap(),
                    };
                    assert!(taken(&format!("{name}={value}")).is_ok(), "{name}={value}");
                    assert!(taken(name).is_err(), "{name}");
                }
            }
        }
    }
}
