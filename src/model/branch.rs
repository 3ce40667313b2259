//! The names of branches.

use super::text::validated_text;

const MAX_LENGTH: usize = 200;

validated_text! {
    /// The short name of a branch, like `deployments`: a name that git accepts, of `A-Z a-z 0-9 . _ / + @ -` alone.
    ///
    /// The index, which is signed, contains it. The rules therefore exclude names that can be written in more than one way.
    BranchName, what: "a branch name", check: check, pattern: "^[A-Za-z0-9_+@][A-Za-z0-9._/+@-]{0,199}$"
}

/// The rules of git-check-ref-format(1), as far as these characters can break them.
fn check(text: &str) -> Result<(), String> {
    let bad = |why: &str| Err(why.to_owned());
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(format!("it has to be 1 to {MAX_LENGTH} characters long"));
    }
    if let Some(c) = text.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._/+@-".contains(c))) {
        return Err(format!("it contains {c:?}, and only A-Z a-z 0-9 . _ / + @ - are allowed"));
    }
    if text.starts_with('-') {
        return bad("it may not begin with `-`, since programs would take it for an option");
    }
    if text.starts_with("refs/") {
        return bad("write the short name, without `refs/heads/`");
    }
    if text == "@" || text == "HEAD" {
        return bad("git uses this name for something else");
    }
    if text.contains("..") || text.ends_with('.') {
        return bad("it may not contain `..` or end with `.`");
    }
    match text.split('/').find(|part| part.is_empty() || part.starts_with('.') || part.strip_suffix(".lock").is_some())
    {
        Some(part) => Err(format!("its part `{part}` is empty, begins with `.`, or ends with `.lock`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_git_reads_as_a_branch_are_accepted() {
        for good in ["deployments", "a/b", "release-1.2", "_x", "a@b"] {
            assert!(good.parse::<BranchName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "/a",
            "a/",
            "a//b",
            "a..b",
            ".a",
            "a/.b",
            "a.",
            "a.lock",
            "a.lock/b",
            "@",
            "HEAD",
            "refs/heads/a",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "a@{1}",
            "d\u{e9}ployments",
            "a\nb",
        ] {
            assert!(bad.parse::<BranchName>().is_err(), "{bad}");
        }
        assert!("x".repeat(201).parse::<BranchName>().is_err());
    }
}
