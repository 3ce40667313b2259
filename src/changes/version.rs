//! Versions as Nix reads them: where a name ends and its version begins, and which of two versions is the newer one
//! (Nix's manual, `builtins.parseDrvName` and `nix-env`, "Versions").

use std::cmp::Ordering;

/// Splits `nginx-1.26.1` into `nginx` and `1.26.1`: at the first dash that no letter follows. The version is empty where
/// there is no such dash.
pub(super) fn split_name(name: &str) -> (&str, &str) {
    let dash = name
        .match_indices('-')
        .find(|(at, _)| name[at + 1..].chars().next().is_some_and(|next| !next.is_ascii_alphabetic()));
    dash.map_or((name, ""), |(at, _)| (&name[..at], &name[at + 1..]))
}

/// Like [`split_name`], but a version has to begin with a digit: `unit-getty-.service` has no version.
pub(super) fn split_numbered(name: &str) -> (&str, &str) {
    let (stem, version) = split_name(name);
    if version.starts_with(|c: char| c.is_ascii_digit()) { (stem, version) } else { (name, "") }
}

/// Compares two versions as `builtins.compareVersions` does. Unlike there, numbers may have any length.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (Components(a), Components(b));
    loop {
        let (left, right) = (a.next(), b.next());
        if left.is_none() && right.is_none() {
            return Ordering::Equal;
        }
        let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
        if is_older(left, right) {
            return Ordering::Less;
        }
        if is_older(right, left) {
            return Ordering::Greater;
        }
    }
}

/// The components of a version: runs of digits and runs of other characters, between dots and dashes.
struct Components<'a>(&'a str);

impl<'a> Iterator for Components<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches(['.', '-']);
        let numeric = rest.starts_with(|c: char| c.is_ascii_digit());
        let ends = |c: char| c == '.' || c == '-' || c.is_ascii_digit() != numeric;
        let (component, rest) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        self.0 = rest;
        (!component.is_empty()).then_some(component)
    }
}

/// Whether component `a` is older than component `b`. The empty component is the end of a version.
fn is_older(a: &str, b: &str) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a.len(), a) < (b.len(), b),
        (None, Some(_)) if a.is_empty() => true,
        // `pre` is older than everything, even than the end: 2.3pre1 is older than 2.3.
        _ if a == "pre" => b != "pre",
        _ if b == "pre" => false,
        // A letter is older than a number: 2.3a is older than 2.3.1.
        (None, Some(_)) => true,
        (Some(_), None) => false,
        (None, None) => a < b,
    }
}

/// A number without its leading zeros. Of two such numbers, the longer one is larger.
fn number(component: &str) -> Option<&str> {
    component.starts_with(|c: char| c.is_ascii_digit()).then(|| component.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_where_no_letter_follows_a_dash() {
        assert_eq!(split_name("nginx-1.26.1"), ("nginx", "1.26.1"));
        assert_eq!(split_name("gtk+-2.24"), ("gtk+", "2.24"));
        assert_eq!(split_name("x-y-z"), ("x-y-z", ""));
        assert_eq!(split_name("openssl-3.0.1-bin"), ("openssl", "3.0.1-bin"));
        assert_eq!(split_name("x-"), ("x-", ""));
        assert_eq!(split_name("unit-getty-.service"), ("unit-getty", ".service"));
        assert_eq!(split_numbered("unit-getty-.service"), ("unit-getty-.service", ""));
        assert_eq!(split_numbered("x-ü"), ("x-ü", ""));
    }

    #[test]
    fn versions_are_compared_as_nix_does() {
        for (older, newer) in [
            ("1.0", "2.3"),
            ("2.1", "2.3"),
            ("2.3", "2.3.1"),
            ("2.3pre1", "2.3"),
            ("2.3pre1", "2.3pre12"),
            ("2.3a", "2.3c"),
            ("2.3pre1", "2.3c"),
            ("2.3pre1", "2.3q"),
            ("2.3a", "2.3.1"),
            ("9", "10"),
            ("20240101123000", "202401011230001"),
            ("", "1"),
        ] {
            assert_eq!(compare_versions(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare_versions(newer, older), Ordering::Greater, "{newer} {older}");
        }
        for same in [("1.0", "1.0"), ("1.00", "1.0"), ("1-0", "1.0"), ("", "")] {
            assert_eq!(compare_versions(same.0, same.1), Ordering::Equal, "{same:?}");
        }
    }
}
