//! The mirrors of a repository, which the configurations of claveld and of the agent name alike.

use crate::git::Remote;

/// The most mirrors of a repository.
pub(super) const MAX_MIRRORS: usize = 15;

/// Checks that no repository is named twice. The error says which.
pub(super) fn check_mirrors(repository: &Remote, mirrors: &[Remote]) -> Result<(), String> {
    let named = |at: usize| std::iter::once(repository).chain(&mirrors[..at]);
    let twice = mirrors.iter().enumerate().find(|(at, mirror)| named(*at).any(|other| is_same(other, mirror)));
    twice
        .map_or(Ok(()), |(_, mirror)| Err(format!("{mirror} is named twice; name the repository and each mirror once")))
}

/// Whether two addresses are the same text, or the same path of this machine.
fn is_same(one: &Remote, other: &Remote) -> bool {
    let is_same_path = one.local_path().is_some_and(|path| other.local_path() == Some(path));
    one == other || is_same_path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_repository_is_named_twice() {
        let check = |mirrors: &[&str]| {
            let mirrors: Vec<Remote> = mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect();
            check_mirrors(&"/srv/fleet.git".parse().unwrap(), &mirrors)
        };
        check(&["https://h/fleet.git", "git@h:fleet.git", "/srv/mirror.git"]).unwrap();
        for (mirrors, named) in [
            (&["https://h/a", "/srv/fleet.git"][..], "/srv/fleet.git is named twice"),
            (&["file:///srv/fleet.git"], "file:///srv/fleet.git is named twice"),
            (&["/srv/fleet.git/"], "/srv/fleet.git/ is named twice"),
            (&["https://h/a", "git@h:b", "https://h/a"], "https://h/a is named twice"),
        ] {
            assert!(check(mirrors).unwrap_err().starts_with(named), "{mirrors:?}");
        }
    }
}
