//! The list of circles that are allowed, compared with those that exist.
//!
//! Knows lines such as `fleet::plan: ordering reconcile`. Refuses to know files. Invariant: the list can only shrink:
//! a new circle is a complaint, and so is a line that is larger than what is there.

use std::collections::BTreeSet;

use crate::circle::Circle;

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedCircle {
    place: String,
    members: BTreeSet<String>,
}

/// Reads the list: one circle a line, `#` begins a comment.
pub(crate) fn parse_allowed(text: &str) -> Result<Vec<AllowedCircle>, String> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or_default().trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| format!("line {number} is not CRATE: MODULE MODULE"))
        })
        .collect()
}

fn parse_line(line: &str) -> Option<AllowedCircle> {
    // From the right, since the place of a nested module has colons too.
    let (place, members) = line.rsplit_once(": ")?;
    let members: BTreeSet<String> = members.split_whitespace().map(str::to_owned).collect();
    (members.len() > 1).then(|| AllowedCircle { place: place.to_owned(), members })
}

/// Every difference between the list and the circles of the crates, each with its cure.
pub(crate) fn compare_circles(allowed: &[AllowedCircle], found: &[(String, Circle)]) -> Vec<String> {
    let found: Vec<(AllowedCircle, &Circle)> =
        found.iter().map(|(name, circle)| (line_of(name, circle), circle)).collect();
    let new = found.iter().filter(|(line, _)| !allowed.iter().any(|other| covers_circle(other, line)));
    let new = new.map(|(line, circle)| {
        format!(
            "{}: these import each other in a circle\n    {}",
            format_line(line),
            show_places(&circle.places)
        )
    });
    let stale = allowed.iter().filter(|line| !found.iter().any(|(other, _)| *line == other));
    let stale = stale.map(|line| {
        let left: Vec<String> = found
            .iter()
            .filter(|(other, _)| covers_circle(line, other))
            .map(|(other, _)| format_line(other))
            .collect();
        let cure = if left.is_empty() {
            "remove the line".to_owned()
        } else {
            format!("now it is {}", left.join(" and "))
        };
        format!("{}: is allowed, but is no such circle any more: {cure}", format_line(line))
    });
    new.chain(stale).collect()
}

/// Whether a circle is this allowed one or a part of it. A part is stale, not new.
fn covers_circle(allowed: &AllowedCircle, found: &AllowedCircle) -> bool {
    allowed.place == found.place && found.members.is_subset(&allowed.members)
}

fn line_of(name: &str, circle: &Circle) -> AllowedCircle {
    let place =
        std::iter::once(name).chain(circle.parent.iter().map(String::as_str)).collect::<Vec<_>>().join("::");
    AllowedCircle { place, members: circle.members.clone() }
}

/// Twenty lines are a screen; a circle of more arrows is not understood by reading more of them.
const MAX_PLACES: usize = 20;

fn show_places(places: &[String]) -> String {
    let mut shown = places[..places.len().min(MAX_PLACES)].to_vec();
    if places.len() > MAX_PLACES {
        shown.push(format!("and {} more", places.len() - MAX_PLACES));
    }
    shown.join("\n    ")
}

fn format_line(line: &AllowedCircle) -> String {
    let members: Vec<&str> = line.members.iter().map(String::as_str).collect();
    format!("{}: {}", line.place, members.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(parent: &[&str], members: &[&str]) -> (String, Circle) {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let members = owned(members).into_iter().collect();
        (
            "fleet".to_owned(),
            Circle { parent: owned(parent), members, places: vec!["a uses b at a.rs:1".to_owned()] },
        )
    }

    fn complaints(list: &str, found: &[(String, Circle)]) -> Vec<String> {
        compare_circles(&parse_allowed(list).unwrap(), found)
    }

    #[test]
    fn an_allowed_circle_is_no_complaint() {
        let list = "# a type-state pair\nfleet::plan: b a   # why\n\n";

        assert!(complaints(list, &[circle(&["plan"], &["a", "b"])]).is_empty());
    }

    #[test]
    fn a_new_circle_names_its_places() {
        let found = [circle(&[], &["a", "b"])];

        let complaint = "fleet: a b: these import each other in a circle\n    a uses b at a.rs:1";
        assert_eq!(complaints("", &found), [complaint]);
        assert_eq!(complaints("other: a b", &found).len(), 2);
    }

    #[test]
    fn a_circle_may_not_grow() {
        let grown = complaints("fleet: a b", &[circle(&[], &["a", "b", "c"])]);

        assert_eq!(grown.len(), 2, "the new circle, and the line that no longer is one: {grown:?}");
    }

    #[test]
    fn a_line_that_is_too_large_is_stale() {
        let shrunk = complaints("fleet: a b c", &[circle(&[], &["a", "b"])]);

        assert_eq!(
            shrunk,
            ["fleet: a b c: is allowed, but is no such circle any more: now it is fleet: a b"]
        );
        let gone = complaints("fleet: a b c", &[]);
        assert_eq!(gone, ["fleet: a b c: is allowed, but is no such circle any more: remove the line"]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told() {
        assert_eq!(parse_allowed("a: b c\nfleet: a").unwrap_err(), "line 2 is not CRATE: MODULE MODULE");
        assert!(parse_allowed("fleet a b").is_err());
    }
}
