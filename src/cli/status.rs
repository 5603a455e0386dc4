//! The verb `status`: how the mounts are, as a table, as lines or as JSON. It never changes anything.

use super::Outcome;
use super::args::StatusArgs;
use super::config::Surroundings;
use super::exit::print;
use super::mounts::{self, Entry};
use super::reach;
use crate::control::Request;
use crate::error::{Kind, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const OP: &str = "ask for the status of";
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `storefs status`.
pub(super) fn status(args: &StatusArgs, here: &Surroundings) -> Outcome {
    let (value, text) = match &args.mountpoint {
        Some(path) => {
            let entry = reach::find(OP, path, here)?;
            let one = of_mount(&entry, here)?;
            let text = lines(&without_zeros(one.clone()));
            (one, text)
        }
        None => {
            let ours = mounts::all()?.into_iter().filter(Entry::is_ours);
            let all: Vec<Value> = ours
                .map(|entry| of_mount(&entry, here))
                .collect::<Result<_>>()?;
            let text = table(&all);
            (Value::Array(all), text)
        }
    };
    Ok(match args.json {
        true => print(&format!("{value:#}\n")),
        false => print(&text),
    }?)
}

/// What the daemon says, or what can be seen without it.
fn of_mount(entry: &Entry, here: &Surroundings) -> Result<Value> {
    let answer = reach::connect(OP, entry, here)
        .and_then(|mut client| client.ask(&Request::Status, Some(PATIENCE), &mut |_| {}));
    let seen = |state: &str| {
        json!({
            "mountpoint": entry.mountpoint.display().to_string(),
            "state": state,
            "source": entry.source,
            "read_only": entry.read_only,
            "owner": entry.owner,
        })
    };
    match answer {
        Ok(value) => Ok(value),
        Err(why) if why.kind() == Kind::Denied => Ok(seen("mounted by another user")),
        Err(_) => Ok(seen(if reach::is_held_up(entry, here) || is_dead(entry) {
            "dead"
        } else {
            "not answering"
        })),
    }
}

/// Asked from a thread of its own, because a daemon that hangs would hold the question.
fn is_dead(entry: &Entry) -> bool {
    let (tell, told) = mpsc::channel();
    let path = entry.mountpoint.clone();
    let asked = thread::Builder::new().spawn(move || tell.send(mounts::is_dead(&path)));
    asked.is_ok() && told.recv_timeout(PATIENCE) == Ok(true)
}

fn table(all: &[Value]) -> String {
    if all.is_empty() {
        return "no mounts\n".to_owned();
    }
    let columns = ["mountpoint", "source", "state", "pid"];
    let mut rows = vec![columns.map(str::to_uppercase)];
    rows.extend(
        all.iter()
            .map(|one| columns.map(|column| scalar(&one[column]))),
    );
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [a, b, c, d] in &rows {
        let line = format!(
            "{a:0$}  {b:1$}  {c:2$}  {d}",
            widths[0], widths[1], widths[2]
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// One mount, a line per fact; groups are indented, and the entries of a list begin with a dash.
fn lines(value: &Value) -> String {
    let mut text = String::new();
    write_lines(&mut text, value, 0);
    text
}

fn write_lines(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            // What an entry is called comes first.
            let named = fields.iter().partition(|(name, _)| *name == "name");
            let (first, rest): (Vec<_>, Vec<_>) = named;
            for (name, field) in first.into_iter().chain(rest) {
                let _ = match inner(field) {
                    Some(true) => writeln!(text, "{indent}{name}:"),
                    Some(false) => writeln!(text, "{indent}{name}: none"),
                    None => writeln!(text, "{indent}{name}: {}", scalar(field)),
                };
                if inner(field) == Some(true) {
                    write_lines(text, field, depth + 1);
                }
            }
        }
        Value::Array(all) => {
            for one in all {
                let start = text.len();
                write_lines(text, one, depth + 1);
                let dash = start + indent.len();
                if text.get(dash..dash + 2) == Some("  ") {
                    text.replace_range(dash..dash + 2, "- ");
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(text, "{indent}{}", scalar(value));
        }
    }
}

/// Whether a group or list has anything in it; none for a value that is neither.
fn inner(value: &Value) -> Option<bool> {
    match value {
        Value::Object(fields) => Some(!fields.is_empty()),
        Value::Array(all) => Some(!all.is_empty()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// What never happened says nothing to a person.
fn without_zeros(mut value: Value) -> Value {
    if let Some(Value::Object(requests)) = value.get_mut("requests") {
        requests.retain(|_, count| *count != 0);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_mount_and_aligned_columns() {
        let one =
            json!({"mountpoint": "/m", "source": "/long/source", "state": "mounted", "pid": 7});
        let two = json!({"mountpoint": "/other", "source": "/s", "state": "dead"});
        let text = table(&[one, two]);
        assert_eq!(
            text,
            "MOUNTPOINT  SOURCE        STATE    PID\n\
             /m          /long/source  mounted  7\n\
             /other      /s            dead     -\n"
        );
        assert_eq!(table(&[]), "no mounts\n");
    }

    #[test]
    fn one_mount_is_a_line_per_fact() {
        let value = json!({"a": 1, "b": {"c": "x"}, "d": [], "e": ["y"], "f": null});
        assert_eq!(
            lines(&value),
            "a: 1\nb:\n  c: x\nd: none\ne:\n  - y\nf: -\n"
        );
        let value =
            json!({"stores": [{"layout": "js", "name": "a", "more": {"x": 1}}, {"name": "b"}]});
        assert_eq!(
            lines(&value),
            "stores:\n  - name: a\n    layout: js\n    more:\n      x: 1\n  - name: b\n"
        );
    }

    #[test]
    fn requests_that_never_came_are_left_out() {
        let value = without_zeros(json!({"requests": {"open": 0, "read": 2}, "pending": 0}));
        assert_eq!(value, json!({"requests": {"read": 2}, "pending": 0}));
    }
}
