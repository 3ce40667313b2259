//! The names of branches.

use super::text::validated_text;

const LONGEST: usize = 200;

validated_text! {
    /// The short name of a branch, like `deployments`: what git takes for one, in `A-Z a-z 0-9 . _ / + @ -` alone.
    ///
    /// It is signed with the index: what has more than one way to be written has no place in it.
    BranchName, what: "a branch name", check: check, pattern: "^[A-Za-z0-9_+@][A-Za-z0-9._/+@-]{0,199}$"
}

/// The rules of git-check-ref-format(1), as far as these characters can break them.
fn check(text: &str) -> Result<(), String> {
    let bad = |why: &str| Err(why.to_owned());
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("it has to be 1 to {LONGEST} characters long"));
    }
    if let Some(c) = text.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._/+@-".contains(c))) {
        return Err(format!("it holds {c:?}, and only A-Z a-z 0-9 . _ / + @ - may stand there"));
    }
    if text.starts_with('-') {
        return bad("it may not begin with `-`, which programs take for an option");
    }
    if text.starts_with("refs/") {
        return bad("write the short name, without `refs/heads/`");
    }
    if text == "@" || text == "HEAD" {
        return bad("git means something else by it");
    }
    if text.contains("..") || text.ends_with('.') {
        return bad("it may not hold `..` nor end with `.`");
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
    fn what_git_takes_for_a_branch_and_nothing_that_could_be_taken_for_another_thing() {
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
