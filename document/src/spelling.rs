//! Guesses which known name a user meant.
//!
//! Knows the edit distance with swaps. Refuses to guess when nothing is near: a wrong suggestion
//! costs more than none.
//!
//! Documentation: the optimal string alignment distance,
//! <https://en.wikipedia.org/wiki/Damerau%E2%80%93Levenshtein_distance>.

/// Longer names are not compared: nothing of ours is as long.
const LONGEST: usize = 40;

/// The known name that is nearest to what was written, if one is near enough.
///
/// ```
/// use document::spelling::nearest_name;
///
/// assert_eq!(nearest_name("hostnmae", ["hostname", "users"]), Some("hostname"));
/// assert_eq!(nearest_name("nothing-like-it", ["hostname", "users"]), None);
/// ```
#[must_use]
pub fn nearest_name<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written: Vec<char> = written.chars().take(LONGEST + 1).collect();
    // About a third of the name, as rustc allows for its suggestions.
    let allowed = match written.len() {
        0..=2 => 1,
        3..=5 => 2,
        6..=LONGEST => 3,
        _ => return None,
    };
    known
        .into_iter()
        // No edit distance is smaller than the difference of the lengths, and this costs nothing.
        .filter(|name| name.len().abs_diff(written.len()) <= allowed)
        .map(|name| (edit_distance(&written, name), name))
        // With as many edits as letters, any short name would be near any other.
        .filter(|(distance, name)| *distance <= allowed && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Insertions, removals, replacements and swaps of neighbours that turn one into the other.
fn edit_distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut older: Vec<usize> = Vec::new();
    let mut old: Vec<usize> = (0..=to.len()).collect();
    for (row, from_char) in from.iter().enumerate() {
        let mut new = vec![row + 1];
        for (column, to_char) in to.iter().enumerate() {
            let replaced = old[column] + usize::from(from_char != to_char);
            let mut best = replaced.min(old[column + 1] + 1).min(new[column] + 1);
            // Neighbours that are swapped are the commonest slip at a keyboard. Levenshtein's distance alone
            // counts them as two.
            let swapped = row > 0 && column > 0 && from[row - 1] == *to_char && *from_char == to[column - 1];
            if swapped {
                best = best.min(older[column - 1] + 1);
            }
            new.push(best);
        }
        older = old;
        old = new;
    }
    old[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name() {
        let known = ["hostname", "users", "write_files", "runcmd"];

        assert_eq!(nearest_name("usres", known), Some("users"));
        assert_eq!(nearest_name("write_file", known), Some("write_files"));
        assert_eq!(nearest_name("runcnd", known), Some("runcmd"));
    }

    #[test]
    fn a_foreign_name_finds_none() {
        assert_eq!(nearest_name("kubernetes", ["hostname", "users"]), None);
        assert_eq!(nearest_name("", ["id"]), None);
    }
}
