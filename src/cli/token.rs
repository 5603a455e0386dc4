//! The verb `token`: makes, lists and revokes tokens of `serve`. A token is shown once, when it is made.

use super::Outcome;
use super::args::{TokenArgs, TokenVerb};
use super::config::Surroundings;
use super::exit::print;
use super::serve::token_file;
use crate::error::{Error, Kind, Result};
use crate::serve::tokens::{TokenEntry, TokenFile};
use serde_json::json;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `storefs token`.
pub(super) fn token(args: &TokenArgs, here: &Surroundings) -> Outcome {
    let file = token_file(args.tokens.as_ref(), here);
    match &args.verb {
        TokenVerb::New {
            user,
            read_only,
            expires,
        } => {
            let expires = expires.and_then(|after| SystemTime::now().checked_add(after));
            let token = file.add(user, *read_only, expires)?;
            print(&format!("{token}\n")).or_else(|why| unseen(&file, &token, &why))?;
        }
        TokenVerb::List { json } => {
            let roster = file.read()?;
            let tokens = roster.tokens();
            match json {
                true => print(&format!("{:#}\n", as_json(&tokens))),
                false => print(&as_table(&tokens)),
            }?;
        }
        TokenVerb::Revoke { id } => file.revoke(id)?,
    }
    Ok(())
}

/// A token that was made and could not be shown: it is made void.
pub(super) fn unseen(file: &TokenFile, token: &str, why: &Error) -> Result<()> {
    let then = match file.revoke(token) {
        Ok(()) => "no token was made".to_owned(),
        Err(left) => format!("and the new token stays valid: {left}"),
    };
    let why = format!("{why} ({then})");
    Err(Error::because("show the new token", "", Kind::Io, why))
}

fn time(ms: u64) -> String {
    // The year 9999 ends here; a later time cannot be written.
    let ms = ms.min(253_402_300_799_000);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

fn as_json(tokens: &[(&TokenEntry, &str)]) -> serde_json::Value {
    let tokens = tokens.iter().map(|(token, user)| {
        json!({
            "id": token.id,
            "user": user,
            "userId": token.user_id,
            "readOnly": token.read_only,
            "createdAt": time(token.created_ms),
            "expiresAt": token.expires_ms.map(time),
        })
    });
    tokens.collect()
}

fn as_table(tokens: &[(&TokenEntry, &str)]) -> String {
    if tokens.is_empty() {
        return "no tokens (storefs token new --user NAME)\n".to_owned();
    }
    let width = tokens
        .iter()
        .map(|(_, user)| user.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!(
        "{:8}  {:width$}  {:10}  {:20}  expires\n",
        "id", "user", "rights", "created"
    );
    for (token, user) in tokens {
        let rights = if token.read_only {
            "read"
        } else {
            "read-write"
        };
        let expires = token.expires_ms.map_or_else(|| "never".to_owned(), time);
        let _ = writeln!(
            text,
            "{:8}  {user:width$}  {rights:10}  {:20}  {expires}",
            token.id,
            time(token.created_ms)
        );
    }
    text
}
