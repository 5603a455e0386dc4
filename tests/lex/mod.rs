//! Rust source as words: enough of a lexer to see what a file imports and declares, and no more.

/// The words and signs of a source, without comments, strings and the contents of character literals.
pub(crate) fn tokens(source: &str) -> Vec<String> {
    let mut rest = source;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(length) = blank(rest) {
            length
        } else if let Some(length) = literal(rest) {
            tokens.push("\"\"".to_owned());
            length
        } else {
            let length = match rest.find(|c: char| !is_word(c)) {
                Some(0) if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                Some(end) => end,
                None => rest.len(),
            };
            tokens.push(rest[..length].to_owned());
            length
        };
        rest = &rest[length..];
    }
    tokens
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the space or comment here.
fn blank(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        let (mut depth, mut at) = (0_usize, 0);
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            if rest.starts_with(b"/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if rest.starts_with(b"*/") {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return Some(at);
                }
            } else {
                at += 1;
            }
        }
        return Some(text.len());
    }
    let space = text.len() - text.trim_start().len();
    (space > 0).then_some(space)
}

/// The length of the string or character literal here, in any of their forms.
fn literal(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let mark = text.len() - body.len();
    if mark > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = &raw[hashes + 1..];
            let length = inside.find(&end).unwrap_or(inside.len()) + end.len();
            return Some((mark + 1 + hashes + 1 + length).min(text.len()));
        }
        return None;
    }
    if body.starts_with('"') {
        return Some(mark + quoted(body, '"'));
    }
    let inside = body.strip_prefix('\'')?;
    // A quote without its partner one character on begins a lifetime.
    let mut characters = inside.chars();
    let first = characters.next()?;
    (first == '\\' || characters.next() == Some('\'')).then(|| mark + quoted(body, '\''))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == quote {
            return at + 1;
        } else {
            escaped = c == '\\';
        }
    }
    text.len()
}

/// Every path of the source in full, also those of a group: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn paths(tokens: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let inside = at > 0 && tokens[at - 1] == "::";
        if !inside && tokens[at].starts_with(is_word) {
            path_at(tokens, at, "", &mut found);
        }
    }
    found
}

/// Reads the path that begins here. Returns the place after it.
fn path_at(tokens: &[String], mut at: usize, before: &str, found: &mut Vec<String>) -> usize {
    let mut path = before.to_owned();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while let Some(token) = tokens.get(at) {
                    match token.as_str() {
                        "}" => return at + 1,
                        "," => at += 1,
                        _ => at = path_at(tokens, at, &path, found),
                    }
                }
                return at;
            }
            Some(word) if word.starts_with(is_word) => path += word,
            Some("*") if path.ends_with("::") => path += "*",
            _ => return at + 1,
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") {
            found.push(path);
            // `a as b` inside a group.
            let renamed = !before.is_empty() && tokens.get(at).is_some_and(|next| next == "as");
            return if renamed { at + 2 } else { at };
        }
        path += "::";
        at += 1;
    }
}

/// The tokens outside `#[cfg(test)]` modules.
pub(crate) fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..]
            .iter()
            .zip(mark)
            .filter(|(a, b)| *a == b)
            .count()
            < mark.len()
        {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        for token in &tokens[at..] {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// The names that a source gives: to functions, types, modules, constants, variables, fields and parameters.
pub(crate) fn declared(tokens: &[String]) -> Vec<&str> {
    let keywords = [
        "fn", "struct", "enum", "trait", "mod", "type", "const", "static", "let", "mut", "for",
    ];
    let mut names = Vec::new();
    for (at, name) in tokens.iter().enumerate() {
        if !name.starts_with(is_word) {
            continue;
        }
        let after_keyword = at > 0 && keywords.contains(&tokens[at - 1].as_str());
        let before_colon = tokens.get(at + 1).is_some_and(|next| next == ":");
        if after_keyword || before_colon {
            names.push(name.as_str());
        }
    }
    names
}

/// The words of a name, in lower case and without a plural s: `ObjectStore` and `object_stores` are object, store.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let mut lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower) {
            words.push(std::mem::take(&mut word));
        }
        word.extend(c.to_lowercase().filter(|c| c.is_alphanumeric()));
        lower = c.is_lowercase();
    }
    words.push(word);
    let singular = |word: String| word.strip_suffix('s').unwrap_or(&word).to_owned();
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.map(singular).collect()
}
