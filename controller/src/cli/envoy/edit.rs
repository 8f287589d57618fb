//! The text of somebody's file with what has changed in its tree, and all else as it was: comments, order, quotes.
//! Pure.

use serde::de::IgnoredAny;

use super::node::{Kind, Node};
use super::write::{entry, flow, item, json, yaml};

/// A text that says what the tree `after` does, and whether what has not changed stands as it stood, comments included.
/// `before` was read from `text`.
pub(super) fn rewritten(text: &str, before: &Node, after: &Node) -> (String, bool) {
    if before == after {
        return (text.to_owned(), true);
    }
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        let second = text.lines().nth(1).unwrap_or_default();
        let indent = second.len() - second.trim_start().len();
        return (json(after, if indent == 0 { 2 } else { indent }), true);
    }
    let mut edits = Edits { text, all: vec![] };
    let done = edits.walk(before, after).and_then(|()| edits.apply());
    match done.filter(|done| Node::parse(done).is_ok_and(|read| read == *after)) {
        Some(done) => {
            let is_kept = keeps_comments(text, &done);
            (done, is_kept)
        }
        // Anchors, say, and other things that cannot be changed in one place.
        None => (yaml(after), false),
    }
}

/// Whether every comment of one text stands in the other, too.
fn keeps_comments(before: &str, after: &str) -> bool {
    let mut left: Vec<&str> = comments(after).collect();
    comments(before).all(|comment| {
        let found = left.iter().position(|one| *one == comment);
        found.map(|index| left.swap_remove(index)).is_some()
    })
}

/// What may be a comment: from a `#` at the begin of a line, or after a space.
pub(super) fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let starts = line.match_indices('#').map(|(at, _)| at);
        let is_start = |at: &usize| line.get(..*at).is_some_and(|before| before.trim_end().len() < *at || *at == 0);
        let start = starts.into_iter().find(is_start)?;
        line.get(start..).map(str::trim_end)
    })
}

/// What takes the place of some bytes of a text.
struct Edit {
    start: usize,
    end: usize,
    new: String,
}

struct Edits<'a> {
    text: &'a str,
    all: Vec<Edit>,
}

impl Edits<'_> {
    fn walk(&mut self, before: &Node, after: &Node) -> Option<()> {
        if before == after {
            return Some(());
        }
        let start = before.at?;
        let rest = self.text.get(start..)?;
        if start == 0 && rest.starts_with('{') {
            // All of it in brackets: it would become one line.
            return None;
        }
        // A list at the column of its key begins where its first item does.
        let is_block = before.items().first().is_some_and(|first| first.at == before.at);
        let is_flow = rest.starts_with(['{', '[']) && !is_block;
        match (&before.kind, &after.kind) {
            (Kind::Scalar(_), _) => {
                let end = start + scalar_length(rest)?;
                self.replace(start, end, flow(after));
            }
            _ if is_flow => {
                let end = start + flow_length(rest)?;
                self.replace(start, end, flow(after));
            }
            (Kind::Map(old), Kind::Map(new)) => {
                for (key, value) in old {
                    self.walk(value, after.exactly(key)?)?;
                }
                let added: Vec<String> = new
                    .iter()
                    .filter(|(key, _)| before.exactly(key).is_none())
                    .flat_map(|(key, value)| entry(key, value))
                    .collect();
                if !added.is_empty() {
                    let column = self.column(start);
                    self.insert(self.end_of_block(start, column), column, &added);
                }
            }
            (Kind::List(old), Kind::List(new)) => self.walk_list(old, new)?,
            _ => return None,
        }
        Some(())
    }

    /// Items that were read stay where they are; new ones come before the next one of those.
    fn walk_list(&mut self, old: &[Node], new: &[Node]) -> Option<()> {
        let (mut waiting, mut rest) = (vec![], old.iter());
        let mut dash = None;
        for one in new {
            if one.at.is_none() {
                waiting.extend(item(one));
                continue;
            }
            loop {
                let next = rest.next()?;
                let at = self.dash(next.at?)?;
                dash = Some(at);
                if next.at == one.at {
                    self.insert(at - self.column(at), self.column(at), &std::mem::take(&mut waiting));
                    self.walk(next, one)?;
                    break;
                }
                self.delete_item(at);
            }
        }
        for gone in rest {
            let at = self.dash(gone.at?)?;
            self.delete_item(at);
        }
        // Without any item of before there is nothing to line up with.
        let last = self.dash(old.last()?.at?)?;
        let column = self.column(dash?);
        self.insert(self.end_of_block(last, column + 1), column, &waiting);
        Some(())
    }

    fn delete_item(&mut self, dash: usize) {
        let column = self.column(dash);
        self.replace(dash - column, self.end_of_block(dash, column + 1), String::new());
    }

    fn replace(&mut self, start: usize, end: usize, new: String) {
        self.all.push(Edit { start, end, new });
    }

    fn insert(&mut self, at: usize, column: usize, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let margin = " ".repeat(column);
        let mut new: String = lines.iter().map(|line| format!("{margin}{line}\n")).collect();
        if at == self.text.len() && !self.text.ends_with('\n') {
            new = format!("\n{}", new.trim_end_matches('\n'));
        }
        self.replace(at, at, new);
    }

    /// Bytes between the start of the line and this.
    fn column(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.len() - before.rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The dash before an item, with nothing but spaces before it in its line.
    fn dash(&self, at: usize) -> Option<usize> {
        let before = self.text.get(..at)?.trim_end();
        let dash = before.strip_suffix('-')?.len();
        let line = self.text.get(dash - self.column(dash)..dash)?;
        line.trim().is_empty().then_some(dash)
    }

    /// Where the first line begins that does not belong to what begins at `at`: neither is it deeper than this column
    /// nor at it. Empty lines and comments at the end belong to what follows.
    fn end_of_block(&self, at: usize, column: usize) -> usize {
        let after = |at: usize| {
            let rest = self.text.get(at..).unwrap_or_default();
            at + rest.find('\n').map_or(rest.len(), |newline| newline + 1)
        };
        let (mut end, mut next) = (after(at), after(at));
        while next < self.text.len() {
            let line = self.text.get(next..after(next)).unwrap_or_default();
            let content = line.trim_start();
            let is_empty = content.is_empty() || content.starts_with('#');
            let indent = line.len() - content.len();
            if !is_empty && (indent < column || line.starts_with("---") || line.starts_with("...")) {
                break;
            }
            next = after(next);
            if !is_empty {
                end = next;
            }
        }
        end
    }

    fn apply(&mut self) -> Option<String> {
        // What belongs deeper was noted first.
        self.all.sort_by_key(|edit| edit.start);
        let (mut text, mut done) = (String::new(), 0);
        for Edit { start, end, new } in &self.all {
            text += self.text.get(done..*start)?;
            text += new;
            done = *end;
        }
        text += self.text.get(done..)?;
        Some(text)
    }
}

/// Bytes of a scalar in one line.
fn scalar_length(rest: &str) -> Option<usize> {
    let line = rest.lines().next()?;
    match line.chars().next()? {
        quote @ ('"' | '\'') => {
            let inner = line.get(1..)?;
            // A quote within it is found, and refused when all is read again.
            Some(inner.find(quote)? + 2)
        }
        '|' | '>' | '&' | '*' | '!' => None,
        _ => Some(line.split(" #").next()?.trim_end().len()),
    }
}

/// Bytes of a list or map in one pair of brackets.
fn flow_length(rest: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped, mut comment, mut before) = (0usize, None, false, false, ' ');
    for (at, letter) in rest.char_indices() {
        match (quote, letter) {
            _ if comment => comment = letter != '\n',
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(letter),
            (None, '#') if before.is_whitespace() => comment = true,
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        before = letter;
    }
    None
}
