//! The query of a URL: parameters by name, and the values that the clients write in several ways.

use super::problem::{Answer, Problem};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The parameters of a query, decoded when asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'r>(pub &'r str);

impl<'r> Query<'r> {
    /// The last value of this name.
    pub(super) fn get(&self, name: &str) -> Answer<Option<Cow<'r, str>>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let pairs = self
            .0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let found = pairs.rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| decoded(name, value)).transpose()
    }

    /// A truth value: `1`, `true`, `0`, `false`. Nothing is false.
    pub(super) fn flag(&self, name: &str) -> Answer<bool> {
        match self.get(name)?.as_deref() {
            Some("1" | "true") => Ok(true),
            None | Some("" | "0" | "false") => Ok(false),
            Some(_) => Err(Problem::bad(
                "invalid-parameter",
                format!("The parameter \"{name}\" must be one of 1, true, 0, false."),
            )),
        }
    }

    /// A count. The clients send 0 when they mean no limit.
    pub(super) fn count(&self, name: &str) -> Answer<Option<usize>> {
        let Some(text) = self.get(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        // Some generators of clients write whole numbers as 10.0.
        let whole = text.strip_suffix(".0").unwrap_or(&text);
        whole.parse().map(Some).map_err(|_| {
            Problem::bad(
                "invalid-parameter",
                format!("The parameter \"{name}\" must be a whole number that is not negative."),
            )
        })
    }
}

fn decoded<'r>(name: &str, value: &'r str) -> Answer<Cow<'r, str>> {
    if !value.contains(['+', '%']) {
        return Ok(Cow::Borrowed(value));
    }
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8();
    text.map(|text| Cow::Owned(text.into_owned())).map_err(|_| {
        Problem::bad(
            "invalid-parameter",
            format!("The parameter \"{name}\" is not UTF-8."),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_last_one_counts() {
        let query = Query("a=1&name=x%2By+z&a=2&flag&b=true");
        assert_eq!(query.get("name").unwrap().as_deref(), Some("x+y z"));
        assert_eq!(query.count("a").unwrap(), Some(2));
        assert!(query.flag("b").unwrap() && !query.flag("flag").unwrap());
        assert_eq!(query.get("none").unwrap(), None);
        assert!(Query("a=%ff").get("a").is_err() && Query("a=x").flag("a").is_err());
        assert!(Query("a=-1").count("a").is_err() && Query("a=1.5").count("a").is_err());
        assert_eq!(Query("a=10.0").count("a").unwrap(), Some(10));
    }
}
